"""Execute statements with DuckDB or ClickHouse, in a process of its own.

python sql_engine.py duckdb|clickhouse < statements.json > rows.json

The input is a list of statements; the output has a list of rows for each one, with
every value as text. A statement after a question mark has its error as its row.
DuckDB's `INSTALL avro` becomes the extension of the package.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path


def duckdb_rows() -> Callable[[str], list[list[str]]]:
    """Return the function that executes one statement of DuckDB."""
    import duckdb  # noqa: PLC0415 - the other engine may be missing
    import duckdb_extension_avro  # noqa: PLC0415 - as above

    (extension,) = Path(duckdb_extension_avro.__file__).parent.glob(
        "extensions/*/avro.duckdb_extension"
    )
    connection = duckdb.connect()

    def rows(statement: str) -> list[list[str]]:
        if statement.startswith("INSTALL avro"):
            return []
        if statement.startswith("LOAD avro"):
            statement = f"LOAD '{extension}'"
        result = connection.execute(statement).fetchall()
        return [[str(value) for value in row] for row in result]

    return rows


def clickhouse_rows() -> Callable[[str], list[list[str]]]:
    """Return the function that executes one statement of ClickHouse."""
    from chdb.session import Session  # noqa: PLC0415 - as above

    session = Session()
    session.query("CREATE DATABASE noc")
    session.query("USE noc")

    def rows(statement: str) -> list[list[str]]:
        if statement.startswith("?"):
            try:
                session.query(statement[1:])
            except RuntimeError as exc:
                return [[str(exc).strip()]]
        result = str(session.query(statement, "TSV"))
        return [line.split("\t") for line in result.splitlines()]

    return rows


def main() -> None:
    """Execute the statements of the standard input."""
    rows = {"duckdb": duckdb_rows, "clickhouse": clickhouse_rows}[sys.argv[1]]()
    output = [rows(statement) for statement in json.load(sys.stdin)]
    json.dump(output, sys.stdout)


if __name__ == "__main__":
    main()
