"""`fnm-bus check`: the doctor."""

from fnm_bus.cli.options import ConfigFile, Json, dump, end, settings


def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Look at everything: spool, relay, Kafka, topics, registry, FastNetMon.

    Each line passed or failed, with what to do. Changes nothing. Ends with status 1
    when something failed.

    Examples:
        fnm-bus check

        fnm-bus check --json
    """
    from fnm_bus.cli.findings import show
    from fnm_bus.doctor import examine

    findings = list(examine(settings(file)))
    if json:
        dump([finding._asdict() for finding in findings])
    else:
        show(findings)
    end(0 if all(finding.ok for finding in findings) else 1)
