"""Pages are executed as Jupyter executes a notebook; one that fails leaves no page."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tal_lib import TalError
from tal_lib.reports import pages

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SHOWN = """import pandas as pd
if results == "fails": raise RuntimeError("told to fail")
pd.DataFrame([range(18)], columns=[f"column {number}" for number in range(18)])"""


@pytest.fixture
def notebook(tmp_path):
    cells = [
        new_code_cell('results: str = "results"', metadata={"tags": ["parameters"]}, id="a"),
        new_code_cell(SHOWN, id="b"),
    ]
    about = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=about), tmp_path / "page.ipynb")
    return tmp_path / "page.ipynb"


def test_a_page_shows_what_a_kernel_of_its_own_shows(notebook, tmp_path):
    """As in a kernel that imports pandas itself: 18 columns are shown, and none is left out."""
    page = pages.execute(
        notebook, tmp_path / "out" / "page.ipynb", {"results": tmp_path}, "It measured nothing."
    )
    _, about, *_, shown = nbformat.read(page, as_version=4).cells
    assert about.source == "> It measured nothing."
    (output,) = shown.outputs
    assert "column 9" in output.data["text/plain"] and "..." not in output.data["text/plain"]
    with pytest.raises(TalError, match="the notebook failed.*told to fail"):
        pages.execute(notebook, tmp_path / "other" / "page.ipynb", {"results": "fails"})
    assert not (tmp_path / "other").exists()


def test_a_picture_that_a_function_of_the_notebook_draws_has_words():
    """Its cell calls the function; the function's cell names what is drawn."""
    drawn = new_output("display_data", data={"image/png": PIXEL})
    drawing = "def against_length(column):\n    if column:\n        figures.loss_curve(column)\n\nother = 1"
    cells = [new_code_cell(drawing), new_code_cell("against_length(1)", outputs=[drawn])]
    cells.append(new_code_cell("other", outputs=[new_output("display_data", data={"image/png": PIXEL})]))
    _, called, silent = pages.clean(new_notebook(cells=cells)).cells
    assert called.outputs[0].metadata["image/png"]["alt"] == "Training loss by epoch."
    assert "image/png" not in silent.outputs[0].metadata
