"""`make test` fetches no reader that is large."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_empty_cache_leaves_only_small_readers(tmp_path: Path) -> None:
    options = ("--collect-only", "--quiet", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/readers", "--readers=cached"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    names = {
        Path(line.partition("::")[0]).stem
        for line in done.stdout.splitlines()
        if "::" in line
    }
    assert names == {"test_java", "test_kcat", "test_python"}
    assert list(tmp_path.iterdir()) == []
