"""Measure everything that is claimed, beside the rivals, in one run.

Starts its own broker and relays on loopback, and stops them; takes about twelve
minutes. Figures depend on the machine and its disk; the ratios say more.
"""

import argparse
import tempfile
from pathlib import Path

import calls
import decisions
import mitigation
import storm
import throughput
from plant import broker, plant
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
        plant(bootstrap) as it,
    ):
        for title, measure in (
            ("idle latency", lambda: throughput.latency(it, bootstrap, quick=quick)),
            ("calls", lambda: calls.measure(it, bootstrap, quick=quick)),
            ("storms", lambda: storm.measure(it, bootstrap, quick=quick)),
            ("throughput", lambda: throughput.rates(it, bootstrap, quick=quick)),
            ("mitigation", lambda: mitigation.measure(bootstrap, quick=quick)),
            ("decisions", lambda: decisions.measure(bootstrap, quick=quick)),
            ("100,000 files", lambda: throughput.waiting(it, bootstrap, quick=quick)),
        ):
            print(f"{title} …", flush=True)
            rows += measure()
        found = facts(kind)
    print()
    print(table(rows))
    if not quick:
        write(rows, found)


if __name__ == "__main__":
    main()
