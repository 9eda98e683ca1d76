"""Schemas in a new process: the import, and equal texts."""

import subprocess
import sys

from fnm_bus.avro import schema


def test_a_text_is_the_same_in_another_process() -> None:
    code = (
        "from fnm_bus.avro import schema; print(schema.text('fastnetmon.StatusEvent'))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    assert other.stdout.rstrip("\n") == schema.text("fastnetmon.StatusEvent")


def test_the_import_brings_no_avro_library() -> None:
    code = "import sys, fnm_bus.avro.schema; sys.exit('fastavro' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
