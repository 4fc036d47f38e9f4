"""Rendered notebooks: the most informative cell of each notebook and condition."""

from pathlib import Path

import nbformat

from tal_lib.files import study_folder
from tal_lib.reports import pages
from tal_lib.reports.costs import page as cost_page
from tal_lib.reports.layout import Layout, file_stem
from tal_lib.reports.page_notes import note

SHOWN = (
    "01_data.ipynb",
    "02_train_evaluate.ipynb",
    "03_inference_length.ipynb",
    "04_open_set.ipynb",
    "05_streams_and_distillation.ipynb",
    "06_training_cost.ipynb",
    "07_quantization.ipynb",
    "08_export.ipynb",
    "09_diagnosis.ipynb",
)
CONDITIONS = ("study", "benchmark")  # parameters at the end of a page's name


def render_notebooks(layout: Layout, runs: Path, records: list[dict]) -> list[Path]:
    """Write the pages of all run folders that exist here, and the pages that read the tables alone.

    These are the findings and the costs of inference and of videos, which several cells have measured. Pages
    of other runs stay, but for their notes.
    """
    of_pages = {}
    for record in records:
        if record["notebook"] in SHOWN:
            of_pages.setdefault(_page_name(record), []).append(record)
    for name, of_page in sorted(of_pages.items()):
        of_page.sort(key=_worth_showing, reverse=True)
        page = layout.notebooks / f"{name}.ipynb"
        folders = [runs / record["sweep"] / record["id"] / "notebook.ipynb" for record in of_page]
        if executed := next(filter(Path.is_file, folders), None):
            shown = pages.clean(nbformat.read(executed, as_version=4))
            note(layout, page, of_page, pages.relinked(shown, page.resolve()))
        elif page.is_file():
            note(layout, page, of_page)
    where = {"results": str(layout.results.resolve())}
    of_tables = cost_page.pages(layout) | {"00_findings": ("00_findings.ipynb", {})}
    notes = cost_page.notes(layout)
    for name, (notebook, parameters) in of_tables.items():
        page, about = layout.notebooks / f"{name}.ipynb", notes.get(name, "")
        pages.execute(study_folder() / notebook, page, parameters | where, about)
    every = sorted(layout.notebooks.glob("*.ipynb"))
    for page in every:
        of_study = (study_folder() / page.name).is_file()
        if of_study and page.stem not in of_pages | of_tables:  # made by another command: `make rehearsal`
            note(layout, page, [])
    return every


def _page_name(record):
    given = [record["parameters"].get(name, "") for name in CONDITIONS]
    return file_stem("_".join([Path(record["notebook"]).stem, *filter(None, given)]))


def _worth_showing(record):
    """Sort key among the runs of one page; the largest is shown.

    It prefers the default options and recipe, then the most data, then the study's models, true names, one
    thread, the first split and seed, and the newest run.
    """
    given = record["parameters"].get
    plain = not given("options") and given("subset_seed", -1) < 0
    return (
        plain,
        not given("recipe"),
        given("fraction", 0),
        given("model") in ("local_global", "text_pyramid"),
        not given("misnamed"),
        given("seen", 0),
        given("threads") == [1],
        -given("split", 0),
        -given("seed", 0),
        given("model") == "local_global",
        record["provenance"]["utc"],
    )
