"""Rendered notebooks: executed copies that are equal for equal numbers, at any time and on any machine."""

import base64
import os
import re
import tempfile
from pathlib import Path

import nbformat

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, work_folder
from tal_lib.process.fork_server import Failed
from tal_lib.reports.figures import described
from tal_lib.reports.pictures import small_png
from tal_lib.reports.tables.files import keep
from tal_lib.sweeps.local import RUN_PAGE, warm_processes

WHERE = ("out_dir", "results", "figures")  # parameters for the place of the output
NOTE = "about-this-page"  # tag and id of the note at the top of a page
FUNCTION = re.compile(r"^def (\w+)\(.*?(?=^\S|\Z)", re.M | re.S)  # of a notebook's cell, with its body
LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")  # to another file of the repository
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # an object's address in memory


def execute(notebook: str | Path, target: str | Path, parameters: dict, note: str = "") -> Path:
    """Run a notebook and write its executed copy, with a note at its top. No partial copy is left."""
    with tempfile.TemporaryDirectory(prefix="tal-page-") as folder:
        executed = Path(folder) / "page.ipynb"
        texts = {name: str(value) for name, value in parameters.items()}
        try:
            warm_processes(threads=1).execute(
                notebook, RUN_PAGE, target=str(executed), parameters=texts, cwd=str(work_folder())
            )
        except Failed as failed:
            raise TalError(
                f"the notebook failed ({failed})",
                where=notebook,
                remedy="Open it in Jupyter and run it cell by cell.",
            ) from None
        page = relinked(clean(nbformat.read(executed, as_version=4)), Path(target).resolve())
        return write(with_note(page, note), target)


def write(page: nbformat.NotebookNode, target: str | Path) -> Path:
    """Write a page, if its content has changed."""
    return keep(target, nbformat.writes(page) + "\n")


def with_note(page: nbformat.NotebookNode, text: str) -> nbformat.NotebookNode:
    """The page with this note (Markdown) below its first cell, instead of another; empty: without a note."""
    page.cells = [cell for cell in page.cells if NOTE not in cell.metadata.get("tags", [])]
    if text:
        page.cells.insert(1, nbformat.v4.new_markdown_cell(f"> {text}", id=NOTE, metadata={"tags": [NOTE]}))
    return page


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what differs from run to run: times, versions, paths, addresses. Also compress pictures."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    notebook.cells = [cell for cell in notebook.cells if not _empty_parameters(cell)]
    functions = {match[1]: match[0] for cell in notebook.cells for match in FUNCTION.finditer(cell.source)}
    for number, cell in enumerate(notebook.cells):
        for key in ("papermill", "execution", "trusted"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = "\n".join(_what_was_run(cell))
            cell["id"] = f"parameters-{number}"  # papermill's id is random
        if cell.cell_type == "code":
            called = [
                body for name, body in functions.items() if re.search(rf"(?<![\w.]){name}\(", cell.source)
            ]
            description = described("\n".join([cell.source, *called]))
            cell.outputs = [
                _clean_output(output, description) for output in cell.outputs if not _passing(output)
            ]
    return notebook


def relinked(notebook: nbformat.NotebookNode, target: Path) -> nbformat.NotebookNode:
    """Links to files of the repository, changed from the notebook's folder to that of the page `target`."""
    if not target.is_relative_to(REPOSITORY):
        return notebook

    def moved(match):
        linked = (REPOSITORY / "notebooks" / match[1]).resolve()
        return (
            f"]({os.path.relpath(linked, target.parent)})" if linked.is_relative_to(REPOSITORY) else match[0]
        )

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(moved, cell.source)
    return notebook


def _passing(output):
    """Whether an output was for the time of the run alone: warnings, or a progress bar."""
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def _clean_output(output, description):
    data = output.get("data", {})
    if "image/png" in data:
        if description:  # pages show it to those who do not see the picture
            output.metadata["image/png"] = dict(output.metadata.get("image/png", {}), alt=description)
        small = small_png(base64.b64decode(data["image/png"]))
        data["image/png"] = base64.b64encode(small).decode()
    if "text/plain" in data:
        data["text/plain"] = ADDRESS.sub("", data["text/plain"])
    return output


def _what_was_run(cell):
    """The injected parameter lines, without the output paths."""
    return [line for line in cell.source.splitlines() if not line.startswith(WHERE)]


def _empty_parameters(cell):
    return "injected-parameters" in cell.metadata.get("tags", []) and _what_was_run(cell) in (
        [],
        ["# Parameters"],
    )


def title_of(content: nbformat.NotebookNode, path: str | Path) -> str:
    """A notebook's first heading, or its file name if it has no heading."""
    lines = (line for cell in content.cells for line in cell.source.splitlines())
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), Path(path).stem)
