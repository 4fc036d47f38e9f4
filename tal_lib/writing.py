"""One rule for every file that this program writes: which files it may replace or remove.

- A file that this program did not write, or that was changed since, is not replaced. `--overwrite` allows it.
- A folder is never emptied. A file is removed only if this program wrote it and nobody changed it.
- A source is never overwritten, even if it is named by another path.

Each folder that the program writes to has a list of its files, `.tal-files.jsonl`. A line holds a file's
name, bytes and SHA-256. The line is added before the file is put in place, so that a killed process leaves no
unlisted file. In the project's checkout, a file that is unchanged in git also counts as written by this
program: it cannot be lost.
"""

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tal_lib.disk import LIST, disk_errors, make_folder, writable_folder
from tal_lib.errors import TalError

REPOSITORY = Path(__file__).resolve().parent.parent
HEADER = '{"tal": "the files that this program wrote here"}\n'  # the list's first line
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_OVERWRITE = "Name another folder, or use --overwrite."

_overwrite: ContextVar[bool] = ContextVar("overwrite", default=False)
_lists: dict[str, tuple[int, int, dict[str, dict[str, int]]]] = {}  # folder -> inode, bytes read, entries


@contextmanager
def overwriting(allowed: bool = True) -> Iterator[None]:
    """Within the block, files that this program did not write may be replaced (or not)."""
    token = _overwrite.set(allowed)
    try:
        yield
    finally:
        _overwrite.reset(token)


def may_overwrite() -> bool:
    """Whether files that this program did not write may be replaced in this block."""
    return _overwrite.get()


def claim(folder: str | Path, names: Iterable[str] = (), *, sources: Iterable[str | Path] = ()) -> Path:
    """Make a folder and check, before any work, that files can be written into it; returns the folder.

    Args:
        names: files to be written, below the folder; sources: input files, which are never replaced.

    Raises:
        TalError: the folder cannot be written; a name leads outside it or is a source; or a file of that name
            exists that may not be replaced.
    """
    folder, sources = writable_folder(folder), list(sources)
    _refuse_foreign_list(folder / LIST)
    inside = folder.resolve()
    for path in (folder / name for name in names):
        if not path.parent.resolve().is_relative_to(inside):
            raise TalError("points outside the folder", where=path, remedy="Use plain names.")
        refuse_source(path, sources)
        check_replaceable(path)
    return folder


def refuse_source(target: str | Path, sources: Iterable[str | Path]) -> None:
    """Raise `TalError` if the target is one of the sources, also by a link, `..` or another spelling."""
    for source in sources:
        if same_file(target, source):
            raise TalError(
                "would be overwritten by the output",
                where=source,
                remedy="Name another folder with --out.",
            )


def same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two paths lead to the same file or folder."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return os.path.realpath(first) == os.path.realpath(second)  # `Path.resolve` refuses loops of links


def check_replaceable(path: str | Path) -> None:
    """Raise `TalError` if a file exists that may not be replaced."""
    path = Path(path)
    with disk_errors(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return
    if path.is_dir():
        raise TalError("is a folder where a file is to be written", where=path, remedy="Name another folder.")
    if may_overwrite() or is_ours(path):
        return
    listed = path.name in listed_in(path.parent)
    problem = "was changed since it was written" if listed else "was not written by this program"
    raise TalError(problem, where=path, remedy=_OVERWRITE)


def is_ours(path: str | Path) -> bool:
    """Whether this program wrote a file and it is unchanged, or it is unchanged in git in the project's
    checkout."""
    path = Path(path)
    if path.is_symlink() or not path.is_file():
        return False
    known = listed_in(path.parent).get(path.name, {})
    return (path.stat().st_size in known.values() and measure(path)[1] in known) or _committed(path)


def listed(path: str | Path) -> bool:
    """Whether this program wrote a file of this name and size. A quick check, sufficient for a file that is
    kept."""
    path = Path(path)
    with disk_errors(path):
        return path.is_file() and path.stat().st_size in listed_in(path.parent).get(path.name, {}).values()


def remove_replaceable(path: str | Path) -> None:
    """Remove a file that may be replaced: one that this program wrote, or with `overwriting` any file."""
    if os.path.lexists(path) and (may_overwrite() or is_ours(path)):
        Path(path).unlink()


def measure(path: str | Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def adopt(folder: str | Path) -> None:
    """List all files of a new folder, also those that other programs wrote into it for this one."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != LIST:
            _add_to_list(path, *measure(path))


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete temporary file to its name and list it, if the rule allows. An equal file stays
    untouched."""
    size, sha = measure(temporary)
    if path.is_file() and path.stat().st_size == size and measure(path)[1] == sha:
        return
    check_replaceable(path)
    _add_to_list(path, size, sha)
    os.replace(temporary, path)


@contextmanager
def staged(folder: str | Path, list_name: str, what: str) -> Iterator[Path]:
    """Yield an empty folder inside `folder` for files that belong together. At the end all are put in place.

    All files are checked before the first is put in place. Files of the last run that are not among them are
    removed, if nobody changed them.

    Args:
        list_name: the file that lists them; what: which folder may be written anew, for the error.

    Raises:
        TalError: the folder contains other files, or a file would replace one that this program did not
            write.
    """
    folder = Path(folder)
    known = folder / list_name
    if any(folder.iterdir()) and not known.is_file() and not may_overwrite():
        raise TalError(
            "the folder contains other files",
            where=folder,
            remedy=f"Name an empty folder, or the folder of {what}, or use --overwrite.",
        )
    with disk_errors(folder), tempfile.TemporaryDirectory(prefix=".tal-", dir=folder) as name:
        with disk_errors(folder):  # the temporary folder exists until the end
            yield Path(name)
            files = [path for path in Path(name).rglob("*") if path.is_file() and path.name != LIST]
            names = sorted(str(path.relative_to(name)) for path in files)
            (Path(name) / list_name).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
        before = _listed_names(known) if is_ours(known) else []
        for part in names:
            check_replaceable(folder / part)
            make_folder((folder / part).parent)
        for part in [*names, list_name]:
            put_in_place(Path(name) / part, folder / part)
        for part in set(before) - set(names):
            remove_replaceable(folder / part)


def _listed_names(path):
    return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]


def listed_in(folder: str | Path) -> dict[str, dict[str, int]]:
    """The files that this program wrote into a folder: name -> {SHA-256: bytes} of every version it wrote."""
    path = Path(folder) / LIST
    if path.is_symlink() or not path.is_file():
        return {}
    key, about = str(path.resolve()), path.stat()
    inode, done, entries = _lists.get(key, (0, 0, {}))
    if inode != about.st_ino or about.st_size < done:
        done, entries = 0, {}
    if about.st_size > done:
        with open(path, "rb") as file:
            file.seek(done)
            added = file.read()
        whole = added.rfind(b"\n") + 1
        for line in added[:whole].splitlines():
            try:
                entry = json.loads(line)
                entries.setdefault(entry["file"], {})[entry["sha256"]] = int(entry["bytes"])
            except (ValueError, KeyError, TypeError):  # the header, or a line truncated by a full disk
                continue
        _lists[key] = (about.st_ino, done + whole, entries)
    return entries


def _add_to_list(path, size, sha):
    if sha in listed_in(path.parent).get(path.name, {}):
        return
    line = json.dumps({"file": path.name, "bytes": size, "sha256": sha}) + "\n"
    _refuse_foreign_list(path.parent / LIST)
    handle = os.open(path.parent / LIST, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # else the end may be read while another process appends
        end = os.fstat(handle).st_size
        if not end:
            line = HEADER + line
        elif os.pread(handle, 1, end - 1) != b"\n":  # truncated by a full disk
            line = "\n" + line
        if os.write(handle, line.encode()) < len(line.encode()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)


def _refuse_foreign_list(path):
    if os.path.lexists(path):
        with disk_errors(path), open(os.open(path, os.O_RDONLY | _NO_LINK), "rb") as file:
            start = file.read(len(HEADER))
        if start != HEADER.encode()[: len(start)]:
            raise TalError(
                "was not written by this program, judging by its contents", where=path, remedy="Move it away."
            )


def _committed(path):
    """Whether a file is unchanged in git, in the project's checkout."""
    path = path.resolve()
    if not path.is_relative_to(REPOSITORY):
        return False
    try:
        return all(
            subprocess.run(
                ["git", "-C", str(REPOSITORY), *command, "--", str(path)], capture_output=True
            ).returncode
            == 0
            for command in (["ls-files", "--error-unmatch"], ["diff", "--quiet", "HEAD"])
        )
    except OSError:
        return False
