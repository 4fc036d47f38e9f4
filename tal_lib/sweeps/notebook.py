"""A notebook as a sweep sees it: its default parameters, and the code that makes its numbers."""

import ast
import re
from functools import cache
from pathlib import Path

import nbformat

from tal_lib.errors import TalError

RECORDS = re.compile(r"^record\(", re.MULTILINE)


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
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        raise TalError(
            f"not a notebook ({type(error).__name__})", where=path, remedy="Restore it from git."
        ) from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise TalError(f"has {len(tagged)} cells tagged `parameters`", where=path, remedy="Tag exactly one.")
    defaults = {}
    try:
        for statement in ast.parse(tagged[0].source).body:
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            defaults[target.id] = ast.literal_eval(  # pyright: ignore[reportAttributeAccessIssue]
                statement.value  # pyright: ignore[reportArgumentType]
            )
    except (SyntaxError, ValueError, AttributeError) as error:
        raise TalError(
            f"the cell tagged `parameters` holds more than `name = value` ({str(error).splitlines()[0]})",
            where=path,
            remedy="Write plain values there.",
        ) from None
    recorded = [number for number, cell in enumerate(code) if RECORDS.search(cell.source)]
    until = recorded[-1] + 1 if recorded else None
    return defaults, [cell.source for cell in code[:until] if cell is not tagged[0]]
