"""Measure everything that is claimed, beside the rivals, in one run.

Starts its own broker and relays on loopback, and stops them; takes about twelve
minutes. Figures depend on the machine and its disk; compare the ratios.
"""

import argparse
import tempfile
from pathlib import Path

import calls
import decisions
import mitigation
import storm
import throughput
from environment import broker, start_environment
from report import Row, facts, table, write


def main() -> None:
    """Run all measurements and print them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="only show that it works")
    quick = options.parse_args().quick
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="fnm-bus-bench-") as name,
        broker(Path(name)) as (bootstrap, kind),
        start_environment(bootstrap) as environment,
    ):
        for title, measure in (
            (
                "idle latency",
                lambda: throughput.latency(environment, bootstrap, quick=quick),
            ),
            ("calls", lambda: calls.measure(environment, bootstrap, quick=quick)),
            ("storms", lambda: storm.measure(environment, bootstrap, quick=quick)),
            (
                "throughput",
                lambda: throughput.rates(environment, bootstrap, quick=quick),
            ),
            ("mitigation", lambda: mitigation.measure(bootstrap, quick=quick)),
            ("decisions", lambda: decisions.measure(bootstrap, quick=quick)),
            (
                "100,000 files",
                lambda: throughput.waiting(environment, bootstrap, quick=quick),
            ),
        ):
            print(f"{title} …", flush=True)
            rows += measure()
        machine = facts(kind)
    print()
    print(table(rows))
    if not quick:
        write(rows, machine)


if __name__ == "__main__":
    main()
