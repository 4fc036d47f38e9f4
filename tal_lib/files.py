"""Locations of files, and atomic writing: a file is complete or absent."""

import atexit
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tal_lib.disk import disk_errors, make_folder, no_empty_folders
from tal_lib.errors import TalError, short
from tal_lib.writing import REPOSITORY, put_in_place

LONGEST_SUFFIX = 16  # characters; a temporary file keeps the suffix, because writers choose the format by it
INSTALLED_STUDY = (
    Path(__file__).resolve().parent / "carried"
)  # setup.py copies the study there, into the wheel


def in_checkout() -> bool:
    """Whether this library runs from a checkout of the repository, not from an installed wheel."""
    return not INSTALLED_STUDY.is_dir()


def study_root() -> Path:
    """Folder with the study's `notebooks/` and `results/prior/`: the checkout, or the copy in the installed
    package."""
    return REPOSITORY if in_checkout() else INSTALLED_STUDY


def study_folder() -> Path:
    """Folder of the study's notebooks, with the grids in `sweeps/`."""
    return study_root() / "notebooks"


def work_folder() -> Path:
    """Working folder of notebooks: the checkout, so that relative paths work; else the current folder."""
    return REPOSITORY if in_checkout() else Path.cwd()


def upwards(folder: str | Path, holds: str = "") -> Path:
    """A folder of the study that may lie above the working folder: a notebook runs in its own folder.

    A relative path is looked for in the working folder, in each folder above it, then in the study's working
    folder. If it is nowhere, the path itself.

    Args:
        holds: a folder that must be in it, such as `tables` in `results`; empty: none.
    """
    folder = Path(folder)
    places = [Path.cwd(), *Path.cwd().parents, work_folder()] if not folder.is_absolute() else []
    existing = (place / folder for place in places if (place / folder / holds).is_dir())
    return next(existing, folder)


def data_root() -> Path:
    """Folder of the benchmarks' data.

    `$TAL_DATA`, else `data/` in the checkout, else `../shared/data`. A `data/` without any file does not
    count, unless there is no other. An installed package uses `$XDG_DATA_HOME/efficient-tal`
    (`~/.local/share/efficient-tal`).
    """
    if os.environ.get("TAL_DATA"):
        return Path(os.environ["TAL_DATA"]).expanduser()
    if not in_checkout():
        home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(home) / "efficient-tal"
    shared = REPOSITORY.parent / "shared" / "data"
    in_repository = REPOSITORY / "data"
    return shared if shared.is_dir() and not _holds_files(in_repository) else in_repository


def _holds_files(folder):
    """Whether a folder or one below it has a file or a link. Hidden files, such as incomplete downloads, do
    not count."""
    return any(
        any(not name.startswith(".") for name in names)
        or any(os.path.islink(os.path.join(place, name)) for name in folders)
        for place, folders, names in os.walk(folder)
    )


def cache_root() -> Path:
    """Folder of files that can be recomputed: `$TAL_CACHE`, else `~/.cache/tal`."""
    return Path(os.environ.get("TAL_CACHE") or Path.home() / ".cache" / "tal").expanduser()


@contextmanager
def atomic_path(path: str | Path, *, state: bool = False):
    """Yield a temporary path in the same folder; rename it to `path` only if the block succeeds.

    Args:
        state: the file is the program's state, which is read before it is rewritten (a ledger, a cache). All
            other files follow the rule of `tal_lib.writing`: a file that this program did not write is not
            replaced.

    Raises:
        TalError: a file that this program did not write is there, the disk is full, or the path cannot be
            written.
    """
    path = Path(path)
    with no_empty_folders(), disk_errors(path):
        make_folder(path.parent)
        suffix = path.suffix if len(path.suffix) <= LONGEST_SUFFIX else ""
        handle, name = tempfile.mkstemp(prefix=".tal-", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            with disk_errors(path):  # the temporary file exists until it is renamed
                yield temporary
                with open(temporary, "rb") as written:
                    os.fsync(written.fileno())
            temporary.chmod(0o644)
            if state:
                os.replace(temporary, path)
            else:
                put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"tal-[a-z]+-[a-z0-9_]{8}")  # a name of `tempfile`: tal-export-a1b2c3_d


def remove_at_exit(folder: str | Path) -> None:
    """Remove a folder that `tempfile.mkdtemp` made for a notebook when this process ends.

    A folder is removed only if it is empty now, this user alone may read it, it lies in the system's folder
    for temporary files, and it has such a name. Any other folder is kept.
    """
    folder, process = Path(os.path.abspath(folder)), os.getpid()
    if not _TEMPORARY.fullmatch(folder.name) or str(folder.parent) != os.path.abspath(tempfile.gettempdir()):
        return
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_mode & 0o077 or any(folder.iterdir()):
        return

    def remove():
        if os.getpid() == process:  # not in a fork, which ends earlier
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def file_state(path: str | Path) -> tuple[int, int, int] | None:
    """What differs after a file was written: inode, size and time (ns). None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def write_text(path: str | Path, text: str, *, state: bool = False) -> Path:
    """Write `text` to `path`; the file is complete or absent. Undecodable bytes of file names are escaped."""
    with atomic_path(path, state=state) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def write_torch(path: str | Path, content) -> Path:
    """Write `value` with `torch.save`; the file is complete or absent.

    The value is serialised in memory first, because torch ends the process if a full disk cuts its file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return Path(path)


def write_json(path: str | Path, value, indent: int | None = 1) -> Path:
    """Write `value` as JSON; the file is complete or absent."""
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


NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
LONGEST_NAME = 100  # characters: file systems allow 255 bytes, and suffixes are added
RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)  # device names of Windows


def checked_name(name: str, *, what: str = "name", where: object = None, whole: bool = True) -> str:
    """A name that becomes part of a file's name: letters, digits and `_ . -`, at most 100, no dot first.

    Args:
        what: what the name stands for; where: the file or command that it comes from.
        whole: whether the name is a complete file name without suffix. It must then not be a Windows device
            name.

    Raises:
        TalError: another character, such as a slash; an empty or too long name; a device name.
    """
    plain = isinstance(name, str) and NAME.fullmatch(name) and len(name) <= LONGEST_NAME
    if not plain or name.endswith(".") or (whole and RESERVED.fullmatch(name)):
        raise TalError(
            f"{what} {short(name)} cannot be part of a file's name",
            where=where,
            remedy=f"Use at most {LONGEST_NAME} letters, digits, _ . - (no dot at its ends, no device name).",
        )
    return name
