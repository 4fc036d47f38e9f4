"""Annotations of other programs, as the library's annotation form.

One file a tool. A module has `NAME`, `matches(path, start)` and `read(path, options)`. Data sets of other
libraries, with their features, are in `opentad` and `actionformer`.
"""

from collections.abc import Iterable
from pathlib import Path

from tal_lib.data.annotations import AnnotationFile
from tal_lib.data.importing import boris, cvat, elan, label_studio, via
from tal_lib.data.importing.collect import Annotated, Options, as_tables
from tal_lib.errors import TalError
from tal_lib.reading import read_bytes
from tal_lib.validation import unknown_name

FORMATS = {"elan": elan, "via": via, "boris": boris, "label_studio": label_studio, "cvat": cvat}
SEEN = 64 * 2**10  # bytes that show the format


def format_of(path: str | Path, kind: str | None = None):
    """The module that reads a file: of the format named, else the one whose marks the file has.

    Raises:
        TalError: an unknown format, a file that cannot be read, or one that no format matches.
    """
    path = Path(path)
    if kind is not None:
        if kind not in FORMATS:
            raise unknown_name(kind, FORMATS, name="format")
        return FORMATS[kind]
    start = read_bytes(path, what="annotation file")[:SEEN]
    start = start.removeprefix(b"\xef\xbb\xbf")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        start = start.decode("utf-16", errors="replace").encode()
    for module in FORMATS.values():
        if module.matches(path, start):
            return module
    names = ", ".join(module.NAME for module in FORMATS.values())
    raise TalError(
        f"not a file of {names}", where=path, remedy=f"Name its format with --as ({', '.join(FORMATS)})."
    )


def import_files(
    paths: Iterable[str | Path], options: Options | None = None, *, kind: str | None = None
) -> AnnotationFile:
    """The annotations in files of ELAN, VIA, BORIS, Label Studio or CVAT.

    Args:
        options: what the files do not say: frame rate, durations, which tier or attribute holds the label.
        kind: the format (a key of `FORMATS`); by default the files' contents tell it.

    Raises:
        TalError: for the first thing that does not fit. It names the file, the item and the remedy.
    """
    options, paths = options or Options(), [Path(path) for path in paths]
    exported: list[tuple[Path, Annotated]] = []
    for path in paths:
        exported += [(path, item) for item in format_of(path, kind).read(path, options)]
    if not exported:
        raise TalError("no recording in it", where=", ".join(map(str, paths)), remedy="Annotate one first.")
    return as_tables(exported, options)


__all__ = ["FORMATS", "Annotated", "Options", "format_of", "import_files"]
