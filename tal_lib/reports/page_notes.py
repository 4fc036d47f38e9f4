"""The note at the top of a rendered notebook that shows one of many runs, or that older code made.

A page is a run that happened. Its numbers stay as they are, so what a reader must know is said above them.
"""

import os
from pathlib import Path

import nbformat

from tal_lib.files import study_folder
from tal_lib.reports.layout import Layout
from tal_lib.reports.pages import relinked
from tal_lib.reports.tables.files import keep

TAG = "about-this-page"
NOT_COMPARED = {TAG, "parameters", "injected-parameters"}  # tags
ALL_RUNS = {  # notebook → topic and name of a table of all its runs
    "02_train_evaluate": ("accuracy", "data_efficiency_{benchmark}"),
    "03_inference_length": ("length", "inference_length_map_{benchmark}"),
    "04_open_set": ("open_set", "open_set_{benchmark}"),
    "05_streams_and_distillation": ("streams", "{study}_{benchmark}_{percent}"),
    "06_training_cost": ("training", "training_{benchmark}"),
    "07_quantization": ("quantization", "quantization_{benchmark}"),
    "08_export": ("export", "export_parity"),
    "09_diagnosis": ("diagnosis", "errors_{benchmark}"),
}


def note(layout: Layout, path: Path, records: list[dict], page: nbformat.NotebookNode | None = None) -> None:
    """Write a page with its note anew; a page that needs none gets none.

    Args:
        path: the page, `results/notebooks/NAME.ipynb`.
        records: the runs that the page could show; the one that it shows is the first.
        page: its new contents; None: those of the file.
    """
    page = page or nbformat.read(path, as_version=4)
    page.cells = [cell for cell in page.cells if TAG not in _tags(cell)]
    if text := " ".join([*_of_one_run(layout, path, records), *_of_older_code(path, page)]):
        cell = nbformat.v4.new_markdown_cell(f"> {text}", id=TAG, metadata={"tags": [TAG]})
        page.cells.insert(1, cell)
    keep(path, nbformat.writes(page) + "\n")


def _of_one_run(layout, path, records):
    """Sentences on the number of runs, and a link to the table of all of them, if there are several."""
    if len(records) < 2 or (notebook := Path(records[0]["notebook"]).stem) not in ALL_RUNS:
        return
    yield f"**One of {len(records):,} runs.** One run does not show which model or variant is better."
    (topic, name), given = ALL_RUNS[notebook], records[0]["parameters"]
    percent = f"{100 * given.get('fraction', 1):g}"
    table = layout.reader(topic, name.format(**given | {"percent": percent}))
    if table.is_file():
        yield f"All runs: [{table.stem}]({os.path.relpath(table, path.parent)})."


def _of_older_code(path, page):
    """A sentence if the page's notebook has other cells today; parameters do not count."""
    sources = [
        source
        for source in study_folder().glob("*.ipynb")
        if path.stem == source.stem or path.stem.startswith(f"{source.stem}_")
    ]
    if sources:
        today = nbformat.read(max(sources, key=lambda source: len(source.stem)), as_version=4)
        if _cells(relinked(today, path.resolve())) != _cells(page):
            yield "An earlier form of this notebook made the page. Code and words are those of the run."


def _cells(notebook):
    return [cell.source for cell in notebook.cells if not NOT_COMPARED & _tags(cell)]


def _tags(cell):
    return set(cell.metadata.get("tags", []))
