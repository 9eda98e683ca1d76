"""Record `make demo-bgp` as docs/demo-bgp.svg; `make picture` runs it."""

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "demo-bgp.svg"
_COLUMNS = 96
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FONT_FACES = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""They load fonts from a foreign host; the viewer has a monospace font of its own."""


def main() -> None:
    """Run the demonstration and write the picture.

    Raises:
        CalledProcessError: the demonstration failed; its output has the cause.
    """
    done = subprocess.run(
        [sys.executable, "-m", "fnm_bus", "demo-bgp"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    console = Console(record=True, width=_COLUMNS, file=sys.stderr)
    console.print(Text("$ make demo-bgp", style="bold"))
    for line in done.stdout.splitlines():
        console.print(Text(line, style="green" if " after " in line else ""))
    drawing = console.export_svg(title="fnm-bus", unique_id="demo")
    plain = _COMMENT.sub("", _FONT_FACES.sub("", drawing))
    lines = [line for line in plain.splitlines() if line.strip()]
    PICTURE.write_text("\n".join(line.rstrip() for line in lines) + "\n")


if __name__ == "__main__":
    main()
