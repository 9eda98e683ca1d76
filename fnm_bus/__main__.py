"""`python -m fnm_bus` is `fnm-bus`."""

from fnm_bus.cli import main

main()
