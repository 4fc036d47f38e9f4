"""What may be written where: one rule for every file that this program writes.

- A file that this program did not write, or that was changed since, is not replaced. `--overwrite` allows it.
- A folder is never emptied: a file is removed only if this program wrote it and nobody changed it.
- A source is never the target, whatever name it is given by.

How it knows its own files: each folder that it writes to has a list, `.tal-files.jsonl`. A line of it holds a file's
name, bytes and SHA-256. It is added before the file is put in place, so that a killed process leaves no file unlisted.
In this project's own checkout a file that git has unchanged counts as its own too: it cannot be lost.
"""

import errno
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tal_lib.disk import disk_errors, writable_folder
from tal_lib.errors import TalError

REPOSITORY = Path(__file__).resolve().parent.parent
LIST = ".tal-files.jsonl"
HEADER = '{"tal": "the files that this program wrote here"}\n'  # the list's first line
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_OVERWRITE = "Name another folder, or allow it with --overwrite."

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
    """Whether files of others may be replaced here."""
    return _overwrite.get()


def claim(folder: str | Path, names: Iterable[str] = (), *, sources: Iterable[str | Path] = ()) -> Path:
    """Check, before any work, that files can be written into a folder; the folder, which is made.

    Args:
        names: files to be written, below the folder; sources: files that are read, which are never replaced.

    Raises:
        TalError: it cannot be written; a name leads outside of it or is a source; somebody else's file has a name.
    """
    folder, sources = writable_folder(folder), list(sources)
    _refuse_foreign_list(folder / LIST)
    inside = folder.resolve()
    for path in (folder / name for name in names):
        if not path.parent.resolve().is_relative_to(inside):
            raise TalError("leads outside of the folder", where=path, remedy="Use plain names.")
        refuse_source(path, sources)
        check_replaceable(path)
    return folder


def refuse_source(target: str | Path, sources: Iterable[str | Path]) -> None:
    """Raise `TalError` if a file to be written is one that is read, also by a link, `..` or another spelling."""
    for source in sources:
        if same_file(target, source):
            raise TalError(
                "would be replaced by what is made from it",
                where=source,
                remedy="Name another folder with --out.",
            )


def same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two names lead to one file or folder."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return Path(first).resolve() == Path(second).resolve()


def check_replaceable(path: str | Path) -> None:
    """Raise `TalError` if a file is there that may not be replaced."""
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
    """Whether this program wrote a file as it is, or git has it as it is in the project's own checkout."""
    path = Path(path)
    if path.is_symlink() or not path.is_file():
        return False
    known = listed_in(path.parent).get(path.name, {})
    return (path.stat().st_size in known.values() and measure(path)[1] in known) or _committed(path)


def listed(path: str | Path) -> bool:
    """Whether this program wrote a file of this name and size: quick, and enough for a file that is kept."""
    path = Path(path)
    with disk_errors(path):
        return path.is_file() and path.stat().st_size in listed_in(path.parent).get(path.name, {}).values()


def remove_replaceable(path: str | Path) -> None:
    """Remove a file that may be replaced: the program's own, or with `overwriting` any."""
    if os.path.lexists(path) and (may_overwrite() or is_ours(path)):
        Path(path).unlink()


def measure(path: str | Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a whole file to its name, by the rule, and list it. A file that holds the same is left as it is."""
    size, sha = measure(temporary)
    if path.is_file() and path.stat().st_size == size and measure(path)[1] == sha:
        return
    check_replaceable(path)
    _add_to_list(path, size, sha)
    os.replace(temporary, path)


@contextmanager
def staged(folder: str | Path, list_name: str, what: str) -> Iterator[Path]:
    """Yield an empty folder inside `folder`, for files that belong together; in the end they are put in place.

    All are checked before the first one is. Files of the last time that are no longer among them are removed, if
    nobody changed them.

    Args:
        list_name: file that lists them; what: which folder may be written anew, for the message.

    Raises:
        TalError: the folder holds something else, or one of the files would replace somebody else's.
    """
    folder = Path(folder)
    known = folder / list_name
    if any(folder.iterdir()) and not known.is_file() and not may_overwrite():
        raise TalError(
            "the folder holds something else",
            where=folder,
            remedy=f"Name an empty folder, or that of {what}; --overwrite writes into it all the same.",
        )
    with disk_errors(folder), tempfile.TemporaryDirectory(prefix=".tal-", dir=folder) as name:
        with disk_errors(folder):  # while what was written still takes its place
            yield Path(name)
            files = [path for path in Path(name).rglob("*") if path.is_file() and path.name != LIST]
            names = sorted(str(path.relative_to(name)) for path in files)
            (Path(name) / list_name).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
        before = _listed_names(known) if is_ours(known) else []
        for part in names:
            check_replaceable(folder / part)
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
        for part in [*names, list_name]:
            put_in_place(Path(name) / part, folder / part)
        for part in set(before) - set(names):
            remove_replaceable(folder / part)


def _listed_names(path):
    return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]


def listed_in(folder: str | Path) -> dict[str, dict[str, int]]:
    """The files that this program wrote into a folder: name -> {SHA-256: bytes} of all that it wrote by that name."""
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
            except (ValueError, KeyError, TypeError):  # the header, or a line cut by a full disk
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
        end = os.fstat(handle).st_size
        if not end:
            line = HEADER + line
        elif os.pread(handle, 1, end - 1) != b"\n":  # cut by a full disk
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
            raise TalError("is somebody else's file, by its contents", where=path, remedy="Move it away.")


def _committed(path):
    """Whether the project's own checkout has this file as it is."""
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
