"""`fnm-bus config`: the settings and their sources."""

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, out

app = typer.Typer(help="Show the configuration.")


@app.command()
def show(*, file: ConfigFile = None, json: Json = False) -> None:
    """Print every setting with its value and source; secrets are masked.

    Example:
        fnm-bus config show
    """
    from fnm_bus.config import load

    rows = list(load.setting_rows(load.load(file)))
    if json:
        dump([row._asdict() for row in rows])
        return
    key_width = max(len(row.key) for row in rows)
    values = ["-" if row.value is None else str(row.value) for row in rows]
    value_width = min(max(map(len, values)), 48)
    for row, value in zip(rows, values, strict=True):
        out(f"{row.key:{key_width}}  {value:{value_width}}  {row.source}")
