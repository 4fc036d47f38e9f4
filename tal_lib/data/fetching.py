"""Put a benchmark's archive below the data folder: download it from its owners, or copy a file."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tal_lib.data.archive import ZIP_ERRORS, open_zip
from tal_lib.data.limits import check_zip
from tal_lib.disk import FULL_CODES, disk_errors, writable_folder
from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.writing import same_file


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an archive comes from.

    `check(path, name)` raises `TalError` unless the archive is complete; `name` is its name in errors.
    """

    benchmark: str
    file: str  # below the data folder
    urls: tuple[
        str, ...
    ]  # the owners' addresses; several files are packed into one archive; empty: none known
    check: Callable[[Path, object], None]
    page: str = ""  # where a user finds the download

    @property
    def remedy(self) -> str:
        """What to do if the archive is missing or damaged."""
        plain = f"`tal data fetch {self.benchmark}` or " if self.urls else ""
        return f"Run {plain}`tal data fetch {self.benchmark} --from FILE`."


def fetch(source: Source, root: Path, given: str | Path | None = None) -> Path:
    """Put the archive below `root`: download it, or copy the file `given`. It is checked first.

    Raises:
        TalError: the download fails, or the archive is damaged, incomplete or another one.
    """
    target = Path(root) / source.file
    with disk_errors(target):
        there = target.is_file()
    if there and (given is None or same_file(given, target)):
        source.check(target, None)
        return target
    if given is not None and not Path(given).is_file():
        raise TalError(
            "is a folder" if Path(given).is_dir() else "file not found",
            where=given,
            remedy="Give the path of the downloaded archive.",
        )
    if given is None and not source.urls:
        raise TalError(
            f"{source.benchmark} cannot be downloaded by this command",
            remedy=f"Get it from {source.page} and run `tal data fetch {source.benchmark} --from FILE`.",
        )
    name = source.urls[0] if given is None else given
    writable_folder(target.parent)
    with atomic_path(target) as temporary:
        if given is not None:
            try:
                shutil.copyfile(given, temporary)
            except PermissionError as error:
                raise TalError(
                    f"cannot be read ({error.strerror})", where=given, remedy="Change its permissions."
                ) from None
        elif len(source.urls) == 1:
            with open(temporary, "wb") as out:
                _download(source, source.urls[0], out)
        else:
            _download_all(source, temporary)
        _unwrap(temporary, name, source.remedy)
        source.check(temporary, name)
    return target


def _download(source, url, out):
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            shutil.copyfileobj(reply, out)
    except (urllib.error.URLError, OSError) as error:
        if getattr(error, "errno", None) in FULL_CODES:
            raise
        raise TalError(
            f"download failed ({error})",
            where=url,
            remedy=f"Download it in a browser and run `tal data fetch {source.benchmark} --from FILE`.",
        ) from None


def _download_all(source, path):
    """Several files in one archive, each under the last part of its address."""
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for url in source.urls:
            with archive.open(url.rpartition("/")[2], "w") as member:
                _download(source, url, member)


def _unwrap(path, name, remedy):
    """UCI distributes an archive inside another archive; keep the inner one."""
    with open_zip(path, name, remedy) as outer:
        check_zip(outer, path, name=name)
        inner = [entry for entry in outer.namelist() if re.search(r"(?i)\.zip$", entry)]
        try:
            data = outer.read(inner[0]) if inner else None
        except (OSError, ValueError, *ZIP_ERRORS) as error:
            raise TalError(f"{inner[0]} cannot be read ({error})", where=name, remedy=remedy) from None
    if data is not None:
        Path(path).write_bytes(data)
