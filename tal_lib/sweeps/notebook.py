"""A notebook as a sweep sees it: its default parameters, and the code that makes its numbers."""

import ast
import re
from functools import cache
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.reading import read_json

PARAMETERS = "parameters"  # tag of the cell with the parameters
RESTORE = "Restore it from git."
RECORDS = re.compile(r"^ *record\(", re.MULTILINE)


def code_cells(path: str | Path) -> list[tuple[str, list[str]]]:
    """Source and tags of each code cell of a notebook, in order.

    It is read as plain JSON: the import of nbformat takes longer than most commands.

    Raises:
        TalError: the file cannot be read, or it is not a notebook of format 4.
    """
    content = read_json(path, what="notebook", remedy=RESTORE)
    try:
        if content["nbformat"] != 4:
            raise TalError(
                f"notebook of format {content['nbformat']!r}, not 4",
                where=path,
                remedy="Open it in Jupyter and save it again.",
            )
        return [
            ("".join(cell["source"]), list(cell.get("metadata", {}).get("tags", [])))
            for cell in content["cells"]
            if cell["cell_type"] == "code"
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise TalError(f"not a notebook ({type(error).__name__})", where=path, remedy=RESTORE) from None


def read_notebook(path: Path) -> tuple[dict, list[str]]:
    """Default parameters (from the cell tagged `parameters`), and the sources of the other code cells.

    The last of these is the cell that records; later cells only show the tables. Parameters count by their
    values. The source of their cell does not count.

    Raises:
        TalError: there is no such file, or it is not a notebook with one valid parameters cell.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        raise TalError(
            "notebook not found", where=path, remedy="Name one of the files in notebooks/."
        ) from None
    defaults, cells = _read(path, (status.st_mtime_ns, status.st_size))
    return dict(defaults), list(cells)


@cache
def _read(path, changed):
    code = code_cells(path)
    tagged = [source for source, tags in code if PARAMETERS in tags]
    if len(tagged) != 1:
        raise TalError(f"has {len(tagged)} cells tagged `parameters`", where=path, remedy="Tag exactly one.")
    defaults = {}
    try:
        for statement in ast.parse(tagged[0]).body:
            annotated = isinstance(statement, ast.AnnAssign)
            target = statement.target if annotated else statement.targets[0]  # pyright: ignore
            defaults[target.id] = ast.literal_eval(statement.value)  # pyright: ignore
    except (SyntaxError, ValueError, AttributeError) as error:
        raise TalError(
            f"the cell tagged `parameters` holds more than `name = value` ({str(error).splitlines()[0]})",
            where=path,
            remedy="Write plain values there.",
        ) from None
    recorded = [number for number, (source, _) in enumerate(code) if RECORDS.search(source)]
    until = recorded[-1] + 1 if recorded else None
    return defaults, [source for source, tags in code[:until] if PARAMETERS not in tags]
