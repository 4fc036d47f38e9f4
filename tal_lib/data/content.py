"""The identity of data: a hash of the contents of its files, not of their names, sizes or dates.

Hashing reads every byte once. The hash is cached in `$TAL_CACHE/hashes` (else `~/.cache/tal/hashes`) by path,
size, inode and times of change. So a sweep of hundreds of cells reads its features once. If the cache is
damaged, missing or read-only, files are hashed again.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import cache_root, digest, write_text
from tal_lib.provenance import usable_cores

_CHUNK = 2**20
_SETTLED = 2e9  # ns: a younger file may change again while its times stay equal
_SHA256 = re.compile(r"[0-9a-f]{64}")


def content_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of the contents of each file.

    Raises:
        TalError: a file cannot be read, or changes while it is read.
    """
    folders: dict[str, list[tuple[Path, str]]] = {}
    for path in paths:
        real = os.path.abspath(path)
        folders.setdefault(os.path.dirname(real), []).append((path, os.path.basename(real)))
    hashes: dict[Path, str] = {}
    for folder, files in folders.items():
        cache = cache_root() / "hashes" / f"{digest(folder)}.json"
        known = _read(cache)
        marks = {path: _mark(path) for path, _ in files}
        new = []
        for path, name in files:
            if name in known and known[name][:-1] == marks[path]:
                hashes[path] = known[name][-1]
            else:
                new.append((path, name))
        if not new:
            continue
        with ThreadPoolExecutor(usable_cores()) as pool:
            fresh = dict(zip((path for path, _ in new), pool.map(_sha256, (path for path, _ in new))))
        hashes |= fresh
        now = time.time_ns()
        settled = {}
        for path, name in new:
            if _mark(path) != marks[path]:
                raise TalError(
                    "changed while it was read",
                    where=path,
                    remedy="Wait until the other program has written it.",
                )
            if now - max(marks[path][2:4]) > _SETTLED:
                settled[name] = [*marks[path], fresh[path]]
        if settled:
            _write(cache, _read(cache) | settled)  # read again: another process may have added entries
    return hashes


def _mark(path):
    """Size, inode, and times of the last write and of the last change of any kind (ns)."""
    try:
        about = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    return [about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns]


def _sha256(path):
    sha = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(_CHUNK):
                sha.update(part)
    except OSError as error:
        raise _unreadable(path, error) from None
    return sha.hexdigest()


def _unreadable(path, error):
    return TalError(
        f"cannot be read ({error.strerror})", where=path, remedy="Check the file and its permissions."
    )


def _read(cache):
    """File name → mark and hash. Empty if the cache is missing or damaged."""
    try:
        entries = json.loads(cache.read_bytes())
        return {name: entry for name, entry in entries.items() if _is_entry(entry)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _is_entry(entry):
    return (
        isinstance(entry, list)
        and len(entry) == 5
        and all(type(number) is int for number in entry[:4])
        and isinstance(entry[4], str)
        and bool(_SHA256.fullmatch(entry[4]))
    )


def _write(cache, entries):
    try:
        write_text(cache, json.dumps(entries), state=True)
    except (OSError, TalError):  # the disk is full, or the folder is not writable
        return
