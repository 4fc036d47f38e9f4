"""Rendered notebooks: executed, and as light HTML pages that need nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, atomic_path, work_folder, write_text

LONG_TEXT = 45  # characters

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
pre{background:#f6f6f4;padding:.6rem .8rem;overflow-x:auto;font-size:13px;line-height:1.4;border-radius:4px}
div.output_area,div.jp-OutputArea-output{overflow-x:auto}
table{border:0;border-collapse:collapse;font-size:13.5px;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border:0;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}thead th{border-bottom-color:#888}
th:first-child,td:first-child{text-align:left}tbody th{white-space:normal;min-width:8rem}
td.long{white-space:normal;min-width:16rem}.words{text-align:left}img{max-width:100%;height:auto}.prompt,.jp-InputPrompt,.jp-OutputPrompt{display:none}
summary{color:#777;font-size:13px;cursor:pointer}h1{line-height:1.2}.linenos{display:none}
.k,.kn,.kc,.ow{color:#0b5394}.s1,.s2,.sa,.si{color:#7a3e00}.c1{color:#5a6a5a;font-style:italic}.mi,.mf{color:#8a1c5b}"""


def execute(notebook: str | Path, target: str | Path, parameters: dict) -> Path:
    """Run a notebook and keep its executed copy, whole or not at all."""
    with atomic_path(target) as temporary:
        given = [part for name, value in parameters.items() for part in ("-r", name, str(value))]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "papermill",
                str(notebook),
                str(temporary),
                "--no-progress-bar",
                "--cwd",
                str(work_folder()),
                *given,
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": str(REPOSITORY)},
        )
        if done.returncode:
            raise TalError(
                f"the notebook failed ({(done.stderr.strip().splitlines() or ['no message'])[-1]})",
                where=notebook,
                remedy="Open it in Jupyter and run it cell by cell.",
            )
        clean(temporary)
    return Path(target)


def clean(path: str | Path) -> None:
    """Take what differs from run to run, and machine paths, out of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.cells = [cell for cell in notebook.cells if not _empty_parameters(cell)]
    for cell in notebook.cells:
        for key in ("papermill", "execution", "trusted"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = "\n".join(_own_parameters(cell))
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def _own_parameters(cell):
    """The injected lines that say what was run, without where it was written."""
    return [
        line for line in cell.source.splitlines() if not line.startswith(("out_dir", "results", "figures"))
    ]


def _empty_parameters(cell):
    return "injected-parameters" in cell.metadata.get("tags", []) and _own_parameters(cell) in (
        [],
        ["# Parameters"],
    )


def render(notebook: str | Path, target: str | Path) -> Path:
    """Write an executed notebook as one HTML page with its pictures in it and its code folded away."""
    content = nbformat.read(notebook, as_version=4)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(content)
    soup = folded(BeautifulSoup(body, "html.parser"))
    title = title_of(content, notebook)
    return write_text(
        target,
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'><style>{STYLE}</style></head>"
        f"<body>{soup}</body></html>\n",
    )


def folded(soup: BeautifulSoup) -> BeautifulSoup:
    """The page with its code folded away, without the marks beside headings, and with tables that can be read."""
    for cell in soup.select("td"):
        if len(cell.get_text()) > LONG_TEXT:
            cell["class"] = ["long"]
    for mark in soup.select(
        "a.anchor-link, style[scoped]"
    ):  # pandas brings a style of its own with every table
        mark.decompose()
    for table in soup.select("table.dataframe"):
        _one_row(table.select_one("thead"))
        _words_from_the_left(table)
    for code in soup.select("div.cell div.input, div.jp-CodeCell div.jp-Cell-inputWrapper"):
        details = soup.new_tag("details")
        details.append(soup.new_tag("summary", string="code"))
        code.wrap(details)
    return soup


def _one_row(head):
    """pandas writes the names of a table's rows into a second row of its head; they fit into the empty places of the first."""
    rows = head.select("tr") if head else []
    if len(rows) != 2:
        return
    above, below = (row.select("th") for row in rows)
    if len(above) == len(below) and all(
        not (first.get_text(strip=True) and second.get_text(strip=True))
        for first, second in zip(above, below)
    ):
        for first, second in zip(above, below):
            if second.get_text(strip=True):
                first.string = second.get_text()
        rows[1].decompose()


def _words_from_the_left(table):
    """Columns of words are read from the left, under a heading that stands there too."""
    rows = [row.select("td") for row in table.select("tbody tr")]
    headings = table.select("thead tr:last-child th")
    for place, column in enumerate(zip(*rows)):
        texts = [cell.get_text(strip=True) for cell in column]
        if all(
            sum(map(str.isalpha, text)) > 0.4 * len(text) and text not in ("NaN", "True", "False")
            for text in texts
        ):
            for cell in (*column, headings[place - len(rows[0])]):
                cell["class"] = [*(cell.get("class") or []), "words"]


def title_of(content, path: str | Path) -> str:
    """A notebook's first heading; its file's name if it has none."""
    return next(
        (
            line.lstrip("# ").strip()
            for cell in content.cells
            for line in cell.source.splitlines()
            if line.startswith("# ")
        ),
        Path(path).stem,
    )
