"""Limits on the size of unpacked data: a small archive, or a false header, can stand for gigabytes.

Files that store their numbers uncompressed may have any size. Unpacked data may have `largest_unpacked()`
bytes, or the size of the file if that is more.
"""

import os
import zipfile
from pathlib import Path

import numpy as np

from tal_lib.errors import TalError

LARGEST_UNPACKED = 2**30  # bytes: two hours of both I3D streams are 0.4 GiB
VARIABLE = "TAL_LARGEST_GIB"


def largest_unpacked() -> int:
    """Limit, in bytes, on the unpacked size of one compressed file: `$TAL_LARGEST_GIB`, else 1 GiB."""
    text = os.environ.get(VARIABLE)
    if not text:
        return LARGEST_UNPACKED
    try:
        size = float(text) * 2**30
        if not 0 < size < 2**60:
            raise ValueError
    except ValueError:
        raise TalError(f"{VARIABLE}={text} is not a number of GiB", remedy="Set it to, say, 4.") from None
    return int(size)


def check_size(size: int, path: str | Path, what: str = "the file", *, name: object = None) -> None:
    """Raise `TalError` if data would unpack to more than the limit.

    Args:
        size: bytes, as the file declares them; path: the file that holds the data; name: what the error calls
            it.
    """
    on_disk = os.path.getsize(path)
    if size > max(largest_unpacked(), on_disk):
        raise TalError(
            f"{what} would need {size / 2**30:,.1f} GiB, although the file has {on_disk / 2**20:,.1f} MiB",
            where=name or path,
            remedy=f"Check that it is the right file; {VARIABLE}={-(-size // 2**30)} would allow it.",
        )


def check_zip(archive: zipfile.ZipFile, path: str | Path, *, name: object = None) -> None:
    """Raise `TalError` if the members of a zip archive would together unpack to more than the limit."""
    check_size(sum(entry.file_size for entry in archive.infolist()), path, "the archive", name=name)


def npy_header(file, size: int, path: str | Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, column-major order and type in the header of an open `.npy` file, which then stands at its data.

    `TalError` if the header declares more numbers than `size` bytes can hold.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format, which only tables with named columns need")
    shape, columns_first, dtype = readers[version](file)
    count = 1
    for length in shape:
        count *= int(length)
    if not dtype.hasobject and count * dtype.itemsize > size - file.tell():
        raise TalError(
            f"its header declares an array of {shape}, more than the file holds",
            where=path,
            remedy="Extract or copy the file again.",
        )
    return shape, columns_first, dtype


def check_npy(file, size: int, path: str | Path) -> tuple[int, ...]:
    """The shape in the header of an open `.npy` file. Errors as in `npy_header`."""
    return npy_header(file, size, path)[0]
