"""Where things lie, and how a file is written so that it is either whole or absent."""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def data_root() -> Path:
    """Folder of the benchmarks' data: `$TAL_DATA`, else `data/` here, else `../shared/data`."""
    if os.environ.get("TAL_DATA"):
        return Path(os.environ["TAL_DATA"]).expanduser()
    beside = REPOSITORY.parent / "shared" / "data"
    own = REPOSITORY / "data"
    return beside if beside.is_dir() and not own.is_dir() else own


def cache_root() -> Path:
    """Folder of what can be made again: `$TAL_CACHE`, else `~/.cache/tal`."""
    return Path(os.environ.get("TAL_CACHE") or Path.home() / ".cache" / "tal").expanduser()


@contextmanager
def atomic_path(path: str | Path):
    """Yield a temporary path in the same folder; rename it to `path` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value, indent: int | None = 1) -> Path:
    """Write `value` as JSON, whole or not at all."""
    return write_text(path, json.dumps(value, indent=indent) + "\n")


def digest(*parts) -> str:
    """Short hexadecimal SHA-256 of text, bytes or JSON-able values, in order."""
    sha = hashlib.sha256()
    for part in parts:
        if not isinstance(part, bytes):
            part = (part if isinstance(part, str) else json.dumps(part, sort_keys=True)).encode()
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()[:16]
