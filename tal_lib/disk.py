"""Folders that are made and removed again if they stay empty, and errors of the disk in one line: full,
read-only, a file in place of a folder, a name that is too long."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from tal_lib.errors import TalError

LEAST_FREE = 2**20  # bytes: if less is free, a failure without a reason is blamed on the disk
FULL = "the disk is full"
LIST = ".tal-files.jsonl"  # the list of the files that this program wrote into a folder: see `writing`
BROKEN_LINK = "a symbolic link that leads nowhere, or to itself"
FULL_CODES = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.EIO,
    errno.ELOOP,
    errno.EFBIG,
    errno.EINVAL,
)
_NOT_A_FOLDER = (errno.ENOTDIR, errno.EEXIST)
_OTHER_FOLDER = "Name another folder."
_made: ContextVar[list[Path] | None] = ContextVar("made", default=None)  # by the current block


@contextmanager
def no_empty_folders() -> Iterator[None]:
    """At the end of the block, also after an error, folders that `make_folder` made in it and that are empty,
    or have only a list of files, are removed. A refused or interrupted command then leaves no folder."""
    outer, folders = _made.get(), []
    token = _made.set(folders)
    try:
        yield
    finally:
        _made.reset(token)
        for folder in reversed(folders):
            with suppress(OSError):  # not empty, or removed already
                if os.listdir(folder) == [LIST]:
                    (folder / LIST).unlink()
                folder.rmdir()
        if outer is not None:  # a folder that was needed here may be empty later
            outer.extend(folders)


def make_folder(folder: str | Path) -> Path:
    """Make a folder, and those above it, if they do not exist.

    Raises:
        OSError: it cannot be made. Those above it that were made are removed again.
    """
    folder = Path(folder)
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    made = _made.get()
    folders = [part.absolute() for part in reversed(missing)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except BaseException:
        for part in reversed(folders):
            with suppress(OSError):
                part.rmdir()
        raise
    if made is not None:
        made.extend(folders)
    return folder


def writable_folder(folder: str | Path, remedy: str | None = None) -> Path:
    """Make a folder if it does not exist. `TalError` if no file can be written into it."""
    folder = Path(folder)
    with disk_errors(folder, remedy):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
    return folder


@contextmanager
def disk_errors(path: str | Path, remedy: str | None = None) -> Iterator[None]:
    """Within the block, an error of the disk or the operating system about `path` becomes a `TalError`."""
    try:
        yield
    except TalError:
        raise
    except Exception as error:
        refusal = disk_error(error, path, remedy)
        if refusal is None:
            raise
        raise refusal from error


def disk_error(error: Exception, path: str | Path, remedy: str | None = None) -> TalError | None:
    """The one-line error for an exception raised while writing `path`. None if the disk is not its cause."""
    path, code = Path(path), getattr(error, "errno", None)
    if code in FULL_CODES or disk_is_full(path, str(error), failed_without_reason=code is None):
        return full_disk(path)
    if isinstance(error, ValueError) and "null byte" in str(error):
        return TalError("has a null character in its name", where=repr(str(path)), remedy=_OTHER_FOLDER)
    if not isinstance(error, OSError) or not _concerns(error, path):
        return None
    if code in _NOT_A_FOLDER:
        blocking = next((part for part in (path, *path.parents) if os.path.lexists(part)), path)
        if blocking.is_symlink() and not blocking.exists():
            return TalError(f"is {BROKEN_LINK}", where=blocking, remedy=remedy or _OTHER_FOLDER)
        return TalError("is a file, not a folder", where=blocking, remedy=remedy or _OTHER_FOLDER)
    if code in _REFUSED:
        return TalError(
            f"cannot be written ({error.strerror})",
            where=_shortened(path),
            remedy=remedy or "Name another folder, or change its permissions.",
        )
    return None


def refuse_link_loop(path: str | Path) -> None:
    """Raise `TalError` if a path leads through a symbolic link that leads to itself."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise _link_loop(path) from None


def link_loop_error(error: Exception) -> TalError | None:
    """The one-line error for an exception because of such a link. None if it has another cause."""
    if isinstance(error, OSError) and error.errno == errno.ELOOP and error.filename is not None:
        return _link_loop(os.fsdecode(error.filename))
    match = re.fullmatch(r"Symlink loop from (['\"])(.*)\1", str(error), re.DOTALL)  # of `Path.resolve`
    return _link_loop(match[2]) if match and isinstance(error, RuntimeError) else None


def _link_loop(path):
    return TalError(
        "leads through a symbolic link that leads to itself",
        where=_shortened(path),
        remedy="Remove the link, or give another path.",
    )


def no_folder(path: str | Path) -> TalError:
    """The error for a path that should be an existing folder."""
    problem = "is a file, not a folder" if Path(path).is_file() else "folder not found"
    return TalError(problem, where=path, remedy="Check the path.")


def full_disk(path: str | Path) -> TalError:
    """The error of a full disk."""
    return TalError(
        FULL,
        where=path,
        remedy="Free some space. Finished work is kept. Run the same command to continue.",
    )


def disk_is_full(path: str | Path, reason: str, *, failed_without_reason: bool = True) -> bool:
    """Whether a full disk caused a failure: by its message, or because almost no space is free."""
    if any(text in reason for text in ("No space left", "Disk quota exceeded", FULL)):
        return True
    try:
        existing = next(part for part in (Path(path), *Path(path).parents) if part.exists())
        return failed_without_reason and shutil.disk_usage(existing).free < LEAST_FREE
    except (OSError, ValueError, StopIteration):
        return False


def _concerns(error, path):
    """Whether an OSError is about `path`, its folder or a file in it, rather than a file that was read."""
    if error.filename is None:
        return True
    about, path = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return about.is_relative_to(path.parent) or path.is_relative_to(about)


def _shortened(path):
    text = str(path)
    return text if len(text) <= 300 else f"{text[:200]}…{text[-80:]}"
