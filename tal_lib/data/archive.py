"""Tables of numbers in a zip archive, in any of its folders. Damaged and oversized archives are refused."""

import hashlib
import io
import lzma
import zipfile
import zlib
from pathlib import Path

import pandas as pd

from tal_lib.data.limits import check_zip
from tal_lib.errors import TalError

# raised for damaged archives: encrypted or truncated members, unknown compression
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError)


def open_zip(path: str | Path, name: object, remedy: str) -> zipfile.ZipFile:
    """An open zip file. `TalError`, naming `name`, if it is none."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, ValueError, *ZIP_ERRORS) as error:
        problem = "not a zip archive, or a truncated one"
        if isinstance(error, OSError):
            problem = f"cannot be read ({error.strerror or error})"
        raise TalError(problem, where=name, remedy=remedy) from None


class Archive:
    """A zip archive of text tables. Use it in a `with` block.

    Args:
        path: the file; name: its name in errors, if `path` is only a copy.
        remedy: what to do about a damaged or incomplete archive.
    """

    def __init__(self, path: str | Path, name: object = None, *, remedy: str):
        self.path, self.name, self.remedy = Path(path), name or path, remedy
        if not self.path.is_file():
            raise self.error("file not found")
        self.zip = open_zip(self.path, self.name, remedy)
        try:
            check_zip(self.zip, self.path, name=self.name)
        except TalError:
            self.zip.close()
            raise
        self._members = {}
        for entry in self.zip.namelist():
            parts = entry.split("/")
            for first in range(len(parts)):  # by every end of its path
                self._members.setdefault("/".join(parts[first:]), entry)
        self.hash = hashlib.sha256()  # of the contents read, independent of packing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.zip.close()

    def error(self, problem: str) -> TalError:
        """An error that names the archive."""
        return TalError(problem, where=self.name, remedy=self.remedy)

    def member(self, name: str) -> str:
        """The member that is `name`, or ends in `/name`. `TalError` if there is none."""
        if name not in self._members:
            raise self.error(f"{name} is missing")
        return self._members[name]

    def content(self, name: str) -> bytes:
        """The bytes of a member."""
        member = self.member(name)
        try:
            content = self.zip.read(member)
        except (OSError, ValueError, *ZIP_ERRORS) as error:
            raise self.error(f"{name} cannot be read ({error})") from None
        self.hash.update(name.encode() + content)
        return content

    def table(self, name: str, columns: list[str], dtype, *, sep: str | None = None) -> pd.DataFrame:
        """A text table without header. `TalError` if a value is missing or of another kind.

        Args:
            columns: names of its columns; dtype: of all values; sep: blanks if None.
        """
        return self.parse(self.content(name), name, columns, dtype, sep=sep)

    def parse(self, content: bytes, name: str, columns: list[str], dtype, *, sep: str | None = None):
        """The text table in some bytes; as `table`."""
        try:
            table = pd.read_csv(
                io.BytesIO(content),
                sep=sep or (r"\s+" if dtype is str else " "),
                header=None,
                names=columns,
                index_col=False,
                dtype=dtype,
                skipinitialspace=True,
            )
        except (OSError, ValueError) as error:
            raise self.error(f"{name} cannot be read ({' '.join(str(error).split())})") from None
        if table.isna().any().any():
            raise self.error(f"{name} has missing values")
        return table
