"""Measure everything that is claimed, beside the rivals, in one run.

    python benchmarks/run.py [--quick]

Starts its own broker and relays on loopback, and stops them. Figures depend on the
machine and its disk; the ratios say more. --quick only shows that it works.
"""

import sys
import tempfile
from pathlib import Path

import calls
import mitigation
import storm
import throughput
from plant import broker, plant
from report import Row, facts, table, write


def main() -> None:
    """Run all measurements and print them."""
    quick = "--quick" in sys.argv[1:]
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
