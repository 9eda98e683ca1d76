"""`policy`: print an example of a policy file, and check policy files."""

from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, out_raw

app = typer.Typer(
    help="Print an example of a policy, and check policy files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def policy() -> None:
    """Print an example of a policy, and check policy files."""


@app.command()
def example() -> None:
    """Print an example of a policy; replace its networks with yours.

    Example:
        fnm-bus policy example > policy.toml
    """
    import consumers

    out_raw(Path(consumers.__file__).with_name("policy.example.toml").read_bytes())


@app.command()
def check(
    path: Annotated[
        Path | None,
        typer.Argument(help="The policy file. Default: the configured one."),
    ] = None,
    *,
    text_mode: Annotated[
        list[str] | None,
        typer.Option("--text-mode", help="Name of a sensor that sends text reports."),
    ] = None,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """List all problems of a policy, and blocking rules that can never match.

    Needs no Kafka. Exits with status 78 for a problem, 1 for a warning.

    Examples:
        fnm-bus policy check

        fnm-bus policy check ./policy.toml --text-mode fra1
    """
    from consumers import serving
    from consumers.policy.file import load as policy_file
    from consumers.policy.file.sensor_reach import text_mode_warnings
    from fnm_bus.cli.check_results import end_with
    from fnm_bus.setup.check_result import CheckResult

    if path is None:
        path = serving.load_settings(file).consumers.mitigator.policy
    loaded = policy_file.load(path)
    networks = len(loaded.limits.own_networks)
    text = f"policy {path}: {len(loaded.rules)} rules, {networks} own networks"
    warnings = text_mode_warnings(loaded, set(text_mode or ()))
    end_with([CheckResult(ok=True, text=text), *warnings], json=json)
