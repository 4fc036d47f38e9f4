"""The note at the top of a rendered notebook that shows one of many runs, or that an older notebook made.

A page is a run that happened. Its numbers stay as they are, so what a reader must know is said above them.
"""

import os
from pathlib import Path

import nbformat
import pandas as pd

from tal_lib.files import study_folder
from tal_lib.reports.layout import Layout
from tal_lib.reports.pages import NOTE, relinked, with_note, write
from tal_lib.reports.tables.summaries import SHOWN_VARIANT

NOT_COMPARED = {NOTE, "parameters", "injected-parameters"}  # tags
REPEATED = {"fold", "seed", "seeds", "subset_seed", "split"}  # parameters that tell repeated runs apart
ON_FOLDS = ("accuracy", "folds_{benchmark}")
ALL_RUNS = {  # notebook → topic and name of a table of all its runs
    "02_train_evaluate": ("accuracy", "data_efficiency_{benchmark}"),  # with a fold: `ON_FOLDS`
    "03_inference_length": ("length", "inference_length_map_{benchmark}"),
    "04_open_set": ("open_set", "open_set_{benchmark}"),
    "05_streams_and_distillation": ("streams", "{study}_{benchmark}_{percent}"),
    "06_training_cost": ("training", "training_{benchmark}"),
    "07_quantization": ("quantization", "quantization_{benchmark}"),
    "08_export": ("export", "export_parity"),
    "09_diagnosis": ("diagnosis", "errors_{benchmark}"),
}
MEANS = {  # notebook → a table of its runs with a mAP per tIoU, and the column of its variants, if it has any
    "02_train_evaluate": ("data_efficiency", None),
    "04_open_set": ("open_set", "part"),
    "05_streams_and_distillation": ("{study}", "variant"),
}
WITHOUT_FOLDS = {"01_data", "04_open_set"}  # classes are split there, or it has the official split in words


def note(layout: Layout, path: Path, records: list[dict], page: nbformat.NotebookNode | None = None) -> None:
    """Write a page with its note anew; a page that needs none gets none.

    Args:
        path: the page, `results/notebooks/NAME.ipynb`.
        records: the runs that the page could show; the one that it shows is the first.
        page: its new contents; None: those of the file.
    """
    page = page or nbformat.read(path, as_version=4)
    sentences = [
        *_of_one_run(layout, path, records),
        *_of_the_split(layout, path, records),
        *_of_older_notebook(path, page),
    ]
    write(with_note(page, " ".join(sentences)), path)


def _of_one_run(layout, path, records):
    """Sentences on the runs of the page's model and setting, and a link to the table of all runs."""
    if len(records) < 2 or (notebook := Path(records[0]["notebook"]).stem) not in ALL_RUNS:
        return
    alike = _alike(records)
    if len(alike) > 1:
        yield f"**One of {len(alike):,} runs of this model and setting.**"
        if means := _means(notebook, alike):
            texts = [f"{name} {value:.1f}".strip() for name, value in means.items()]
            yield f"Their mean avg mAP (%): {'; '.join(texts)}."
    else:
        yield "**The only run of this model and setting.**"
    yield "One run does not show which model or variant is better."
    given = records[0]["parameters"]
    topic, name = ON_FOLDS if notebook == "02_train_evaluate" and _fold(given) >= 0 else ALL_RUNS[notebook]
    percent = f"{100 * given.get('fraction', 1):g}"
    yield from _link("All models", layout.reader(topic, name.format(**given | {"percent": percent})), path)


def _alike(records):
    """The runs that differ from the first one in nothing but what is repeated: seed, fold, class split."""
    given = {name: value for name, value in records[0]["parameters"].items() if name not in REPEATED}
    own = lambda record: {name: record["parameters"].get(name, value) for name, value in given.items()}
    return [record for record in records if own(record) == given]


def _means(notebook, records):
    """avg mAP (%), mean over runs, of each variant; without variants under an empty name."""
    if notebook not in MEANS:
        return {}
    name, variant = MEANS[notebook]
    name, benchmark = name.format(**records[0]["parameters"]), records[0]["parameters"]["benchmark"]
    rows = pd.DataFrame([row for record in records for row in record.get("tables", {}).get(name, ())])
    if rows.empty:
        return {}
    if "benchmark" in rows:  # also tested on others
        rows = rows[rows.benchmark == benchmark]
    names = rows[variant].replace(SHOWN_VARIANT) if variant else pd.Series("", rows.index)
    return (100 * rows.groupby(names, sort=False).map.mean()).to_dict()


def _of_the_split(layout, path, records):
    """A sentence if the page has the official split of a benchmark whose tables are of folds."""
    if not records or Path(records[0]["notebook"]).stem in WITHOUT_FOLDS:
        return
    given = records[0]["parameters"]
    topic, name = ON_FOLDS
    folds = layout.reader(topic, name.format(benchmark=given.get("benchmark", "")))
    if _fold(given) < 0 and folds.is_file():
        yield "The page has the official split."
        yield from _link("Means over cross-validation folds", folds, path)


def _fold(given):
    return given.get("fold", -1)


def _link(text, table, path):
    """A sentence that ends with a link to a table, if it is there."""
    if table.is_file():
        yield f"{text}: [{table.stem}]({os.path.relpath(table, path.parent)})."


def _of_older_notebook(path, page):
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
