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
    """A page of a run of notebook 04 on the benchmark `made`, its layout, and a table for readers."""
    layout = Layout(tmp_path / "results")
    layout.notebooks.mkdir(parents=True)
    page = layout.notebooks / "04_open_set_made.ipynb"
    keep(page, (study_folder() / "04_open_set.ipynb").read_text(encoding="utf-8"))
    (table := layout.reader("open_set", "open_set_made")).parent.mkdir(parents=True)
    table.write_text("A caption")
    return layout, page


def give(page, **parameters):
    """Let a page be that of a run with these parameters."""
    content = nbformat.read(page, as_version=4)
    source = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]}, id="given")
    content.cells = [cell for cell in content.cells if cell.id != "given"]
    content.cells.insert(2, cell)
    keep(page, nbformat.writes(content))


def runs(count, model="stale", **given):
    """Runs of class splits 0, 1, …: the avg mAP (%) of unseen classes is twice the number of the split."""
    return [
        {
            "notebook": "04_open_set.ipynb",
            "parameters": {"benchmark": "made", "model": model, "split": split, "options": {}} | given,
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


def test_one_of_many_runs_names_those_like_it_and_the_table_of_all(page):
    """The page is not that of the first record: it shows the run that was rendered."""
    layout, path = page
    give(path, benchmark="made", model="stale", split=1, options={})
    others = runs(3, "text_pyramid") + runs(2, options={"width": 8})
    before = sources(path)
    page_notes.note(layout, path, others + runs(1200))
    assert sources(path)[1] == (
        "> **One of 1,200 runs of this model and setting.** Their mean avg mAP (%): unseen 1199.0; unseen, "
        "wrong names 599.5. One run does not show which model or variant is better. "
        "All models: [open_set_made](../readers/open_set/open_set_made.md)."
    )
    page_notes.note(layout, path, others + runs(2)[1:])  # written anew, not added
    assert sources(path)[1].startswith("> **The only run of this model and setting.** One run")
    assert len(sources(path)) == len(before) + 1
    page_notes.note(layout, path, others)  # of a run that the ledger has no more
    assert sources(path)[1].startswith("> **One of 5 runs.** One run does not show")
    page_notes.note(layout, path, runs(1))
    assert sources(path) == before


@pytest.mark.parametrize(
    ("fold", "linked", "absent"),
    [
        (2, "All models: [folds_made_10](../readers/accuracy/folds_made_10.md).", "not a fold"),
        (-1, "not a fold. Means over folds: [folds_made_10](../readers/accuracy/folds_made_10.md).", "All"),
    ],
)
def test_a_run_has_those_of_other_seeds_and_folds_beside_it(page, fold, linked, absent):
    layout, path = page
    (table := layout.reader("accuracy", "folds_made_10")).parent.mkdir(parents=True)
    table.write_text("A caption")

    def run(value, fold, seed, **given):
        rows = [{"tiou": tiou, "map": value + change} for tiou, change in ((0.3, 0.01), (0.5, -0.01))]
        given = {"benchmark": "made", "model": "bsn", "fraction": 0.1, "fold": fold, "seed": seed} | given
        return {
            "notebook": "02_train_evaluate.ipynb",
            "parameters": given,
            "tables": {"data_efficiency": rows},
        }

    records = [run(0.2, fold, 0), run(0.4, fold, 1), run(0.9, -1 if fold >= 0 else 0, 0)]
    records += [run(0.9, fold, 0, model="gaf"), run(0.9, fold, 1, recipe={"lr": 1})]
    give(path, benchmark="made", model="bsn", fraction=0.1, fold=fold, seed=1)
    page_notes.note(layout, path, records)
    assert "**One of 2 runs of this model and setting.** Their mean avg mAP (%): 30.0." in sources(path)[1]
    assert linked in sources(path)[1] and absent not in sources(path)[1]


def test_a_page_of_several_trainings_says_so(page):
    layout, path = page
    given = {"benchmark": "made", "seeds": [0, 1, 2]}
    records = [{"notebook": "09_diagnosis.ipynb", "parameters": given | {"model": name}} for name in "ab"]
    give(path, **given, model="b")
    page_notes.note(layout, path, records)
    assert sources(path)[1].startswith("> **Means of 3 trainings.**")
    assert "One run" not in sources(path)[1]


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
    assert OLDER in sources(path)[1] and "**One of 2 runs.**" in sources(path)[1]


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
