"""The note at the top of a rendered notebook that shows one of many runs, or that an older notebook made.

A page is a run that happened. Its numbers stay as they are, so what a reader must know is said above them.
"""

import ast
import os
from pathlib import Path

import nbformat
import pandas as pd

from tal_lib.data.registry import BENCHMARKS
from tal_lib.files import study_folder
from tal_lib.reports import folds
from tal_lib.reports.layout import Layout
from tal_lib.reports.pages import NOTE, relinked, with_note, write
from tal_lib.reports.tables.summaries import SHOWN_VARIANT

NOT_COMPARED = {NOTE, "parameters", "injected-parameters"}  # tags
REPEATED = {"fold", "seed", "seeds", "subset_seed", "split"}  # parameters that tell repeated runs apart
ALL_RUNS = {  # notebook → topic and name of a table of all its runs
    "02_train_evaluate": ("accuracy", "data_efficiency_{benchmark}"),  # of a fold: that of `folds`
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


def note(layout: Layout, path: Path, records: list[dict], page: nbformat.NotebookNode | None = None) -> None:
    """Write a page with its note anew; a page that needs none gets none.

    Args:
        path: the page, `results/notebooks/NAME.ipynb`.
        records: the runs that the page could show, the most informative first.
        page: its new contents; None: those of the file.
    """
    page = page or nbformat.read(path, as_version=4)
    sentences = [*_of_runs(layout, path, records, page), *_of_older_notebook(path, page)]
    write(with_note(page, " ".join(sentences)), path)


def _of_runs(layout, path, records, page):
    """Sentences on the run that the page shows and on those like it, with a link to the table of all runs."""
    if len(records) < 2 or (notebook := Path(records[0]["notebook"]).stem) not in ALL_RUNS:
        return
    shown = _shown(page, records)
    given = (shown or records[0])["parameters"]
    fraction, on_a_fold = given.get("fraction", 1), given.get("fold", -1) >= 0
    alike = _alike(shown, records) if shown else records
    if len(given.get("seeds", ())) > 1:
        yield f"**Means of {len(given['seeds'])} trainings.**"
    else:
        several = f"One of {len(alike):,} runs{' of this model and setting' if shown else ''}"
        yield f"**{several if len(alike) > 1 else 'The only run of this model and setting'}.**"
        if shown and len(alike) > 1 and (means := _means(notebook, alike)):
            texts = [f"{name} {value:.1f}".strip() for name, value in means.items()]
            yield f"Their mean avg mAP (%): {'; '.join(texts)}."
        yield "One run does not show which model or variant is better."
    known = BENCHMARKS.get(given.get("benchmark", ""))
    if notebook == "04_open_set" and known and known.supervised:
        yield "Not strictly zero-shot: the features of this benchmark were trained with all classes."
    of_folds = layout.reader("accuracy", folds.table_name(given.get("benchmark", ""), fraction))
    if notebook == "02_train_evaluate" and on_a_fold:
        yield from _link("All models", of_folds, path)
        return
    topic, name = ALL_RUNS[notebook]
    table = layout.reader(topic, name.format(**given | {"percent": f"{100 * fraction:g}"}))
    yield from _link("All models", table, path)
    if not on_a_fold and notebook != "04_open_set" and of_folds.is_file():
        yield "This run has the split of the benchmark, not a fold."
        yield from _link("Means over folds", of_folds, path)


def _shown(page, records):
    """The run that has the parameters of the page; None if no run has them."""
    cells = [cell.source for cell in page.cells if "injected-parameters" in _tags(cell)]
    lines = ast.parse("\n".join(cells)).body
    given = {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    fits = lambda record: all(record["parameters"].get(name) == value for name, value in given.items())
    return next(filter(fits, records), None) if given else None


def _alike(shown, records):
    """The runs that differ from one in nothing but seed, class split or fold; a run without fold has no fold
    beside it.
    """

    def setting(record):
        given = record["parameters"]
        fixed = {name: value for name, value in given.items() if name not in REPEATED}
        return fixed | {"on a fold": given.get("fold", -1) >= 0}

    return [record for record in records if setting(record) == setting(shown)]


def _means(notebook, records):
    """avg mAP (%), mean over runs, of each variant; without variants under an empty name."""
    if notebook not in MEANS:
        return {}
    given, (name, variant) = records[0]["parameters"], MEANS[notebook]
    rows = pd.DataFrame([row for record in records for row in record["tables"][name.format(**given)]])
    if "benchmark" in rows:  # also tested on others
        rows = rows[rows.benchmark == given["benchmark"]]
    names = rows[variant].replace(SHOWN_VARIANT) if variant else pd.Series("", rows.index)
    return (100 * rows.groupby(names, sort=False).map.mean()).to_dict()


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
