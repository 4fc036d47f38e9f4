"""Where things lie, and how a file is written so that it is either whole or absent."""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent  # in an installed package: the folder it is installed in
INSTALLED_STUDY = Path(__file__).resolve().parent / "carried"  # what setup.py copies into the wheel


def in_checkout() -> bool:
    """Whether this library runs from a checkout of the repository, not from an installed wheel."""
    return not INSTALLED_STUDY.is_dir()


def study_root() -> Path:
    """Folder with the study's `notebooks/` and `results/prior/`: the checkout, or their copy in the installed package."""
    return REPOSITORY if in_checkout() else INSTALLED_STUDY


def study_folder() -> Path:
    """Folder of the study's notebooks, with the grids in `sweeps/`."""
    return study_root() / "notebooks"


def work_folder() -> Path:
    """Folder that notebooks run in: the checkout, so that their relative paths hold; else the current folder."""
    return REPOSITORY if in_checkout() else Path.cwd()


def data_root() -> Path:
    """Folder of the benchmarks' data.

    `$TAL_DATA`, else `data/` in the checkout, else `../shared/data`. An installed package keeps data in the user's folder,
    `$XDG_DATA_HOME/efficient-tal` (`~/.local/share/efficient-tal`).
    """
    if os.environ.get("TAL_DATA"):
        return Path(os.environ["TAL_DATA"]).expanduser()
    if not in_checkout():
        home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(home) / "efficient-tal"
    beside = REPOSITORY.parent / "shared" / "data"
    own = REPOSITORY / "data"
    return beside if beside.is_dir() and not own.is_dir() else own


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
