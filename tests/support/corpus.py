"""The corpus of documents that failed once: one entry a file, as the hook writes it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fnm_bus.hook import python_hook
from fnm_bus.spool.entry import decode_entry
from support.odd_documents import Call

DIRECTORY = Path(__file__).parents[1] / "unit" / "corpus" / "fuzz"


def calls() -> list[Call]:
    """Return the documents of the corpus, with their calls' arguments."""
    entries = (
        decode_entry(path.read_bytes()) for path in sorted(DIRECTORY.glob("*.entry"))
    )
    return [(content.document, content.arguments) for content in entries]


def add(call: Call) -> Path:
    """Put a document into the corpus; return the file, which is to be committed."""
    path, data = _file(call)
    path.write_bytes(data)
    return path


@contextmanager
def kept(call: Call) -> Iterator[None]:
    """Add *call* to the corpus when the body fails, or never ends."""
    path, data = _file(call)
    if path.exists():
        yield
        return
    path.write_bytes(data)
    yield
    path.unlink()


def _file(call: Call) -> tuple[Path, bytes]:
    document, arguments = call
    data = python_hook.encode_entry(arguments, document)
    return DIRECTORY / f"{hashlib.sha256(data).hexdigest()[:16]}.entry", data
