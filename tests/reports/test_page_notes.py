"""Pages of one run say so, and pages of older notebooks too."""

import nbformat
import pytest

from tal_lib.files import study_folder
from tal_lib.reports import page_notes
from tal_lib.reports.layout import Layout
from tal_lib.reports.rendered import render_notebooks
from tal_lib.reports.tables.files import keep

OLDER = "An earlier form of this notebook made the page"
COMMITTED = sorted(Layout().notebooks.glob("*.ipynb"))


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


@pytest.fixture
def page(tmp_path):
    layout = Layout(tmp_path / "results")
    layout.notebooks.mkdir(parents=True)
    page = layout.notebooks / "04_open_set_made.ipynb"
    keep(page, (study_folder() / "04_open_set.ipynb").read_text(encoding="utf-8"))
    (table := layout.reader("open_set", "open_set_made")).parent.mkdir(parents=True)
    table.write_text("A caption")
    return layout, page


def runs(count, model="stale"):
    """Runs of class splits 0, 1, …: half of the avg mAP of unseen classes is the number of the split."""
    return [
        {
            "notebook": "04_open_set.ipynb",
            "parameters": {"benchmark": "made", "model": model, "split": split},
            "tables": {
                "open_set": [
                    {"part": part, "tiou": tiou, "map": (split + change) / scale}
                    for part, scale in (("unseen", 50), ("unseen, wrong names", 100))
                    for tiou, change in ((0.3, 1), (0.5, -1))
                ]
            },
        }
        for split in range(count)
    ]


def test_one_of_many_runs_names_the_table_of_all(page):
    layout, path = page
    before = sources(path)
    page_notes.note(layout, path, runs(1200) + runs(3, "text_pyramid"))
    assert sources(path)[1] == (
        "> **One of 1,200 runs of this model and setting.** Their mean avg mAP (%): unseen 1199.0; unseen, "
        "wrong names 599.5. One run does not show which model or variant is better. "
        "All models: [open_set_made](../readers/open_set/open_set_made.md)."
    )
    page_notes.note(layout, path, runs(1) + runs(3, "text_pyramid"))  # written anew, not added
    assert sources(path)[1].startswith("> **The only run of this model and setting.** One run")
    assert len(sources(path)) == len(before) + 1
    page_notes.note(layout, path, runs(1))
    assert sources(path) == before


@pytest.mark.parametrize(
    ("fold", "linked", "means"),
    [
        (2, "All models: [folds_made]", "(%): 2.0."),
        (-1, "Means over cross-validation folds: [folds_made]", ""),
    ],
)
def test_a_fold_names_the_table_of_folds_and_the_official_split_says_so(page, fold, linked, means):
    layout, path = page
    (table := layout.reader("accuracy", "folds_made")).parent.mkdir(parents=True)
    table.write_text("A caption")
    rows = [{"tiou": tiou, "map": value} for tiou, value in ((0.3, 0.03), (0.5, 0.01))]
    given = {"benchmark": "made", "model": "bsn", "fold": fold}
    record = {"notebook": "02_train_evaluate.ipynb", "tables": {"data_efficiency": rows}}
    of_seeds = [record | {"parameters": given | {"seed": seed}} for seed in range(2)]
    page_notes.note(layout, path, of_seeds)
    assert "**One of 2 runs of this model and setting.**" in sources(path)[1]
    assert linked in sources(path)[1] and means in sources(path)[1]
    assert ("official split" in sources(path)[1]) == (fold < 0)
    assert "data_efficiency_made" not in sources(path)[1]  # no such table


def test_a_page_of_an_older_notebook_says_so(page):
    layout, path = page
    content = nbformat.read(path, as_version=4)
    content.cells[1].source += "  # another value"  # parameters are those of the run
    keep(path, nbformat.writes(content))
    page_notes.note(layout, path, runs(1))
    assert OLDER not in "".join(sources(path))
    content.cells[-1].source += "\n"
    keep(path, nbformat.writes(content))
    page_notes.note(layout, path, runs(2))
    assert OLDER in sources(path)[1] and "One of 2 runs of" in sources(path)[1]


def test_a_page_of_another_command_says_so_too(page, monkeypatch):
    """`make rehearsal` writes the page 10_rehearsal; no run in a ledger names it."""
    layout, path = page
    content = nbformat.read(path, as_version=4)
    content.cells[-1].source += "\n"
    keep(path.with_name("10_rehearsal.ipynb"), nbformat.writes(content))
    path.unlink()
    monkeypatch.setattr("tal_lib.reports.pages.execute", lambda *_: None)
    (page,) = render_notebooks(layout, layout.results / "runs", [])
    assert OLDER in sources(page)[1]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_pages_say_whether_they_are_older(path):
    is_older = bool(list(page_notes._of_older_notebook(path, nbformat.read(path, as_version=4))))
    assert (OLDER in "".join(sources(path))) == is_older
