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


def runs(count):
    given = {"benchmark": "made"}
    return [{"notebook": "04_open_set.ipynb", "parameters": given | {"split": n}} for n in range(count)]


def test_one_of_many_runs_names_the_table_of_all(page):
    layout, path = page
    before = sources(path)
    page_notes.note(layout, path, runs(1200))
    assert sources(path)[1] == (
        "> **One of 1,200 runs.** One run does not show which model or variant is better. "
        "All runs: [open_set_made](../readers/open_set/open_set_made.md)."
    )
    page_notes.note(layout, path, runs(2))  # written anew, not added
    assert sources(path)[1].startswith("> **One of 2 runs.**") and len(sources(path)) == len(before) + 1
    page_notes.note(layout, path, runs(1))
    assert sources(path) == before


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
    assert OLDER in sources(path)[1] and "One of 2 runs" in sources(path)[1]


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
    is_older = bool(list(page_notes._of_older_code(path, nbformat.read(path, as_version=4))))
    assert (OLDER in "".join(sources(path))) == is_older
