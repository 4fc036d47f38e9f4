"""Notebooks as a person opens them: in their own folder, with commented parameters, progress bars, plain
messages."""

import ast
import json
import re
import sys
import types
from pathlib import Path
from typing import Literal, get_args, get_origin

import matplotlib
import nbformat
import pytest

from tal_lib import TalError, models
from tal_lib.data import synthetic
from tal_lib.files import REPOSITORY, upwards
from tal_lib.process import progress
from tal_lib.reports import pages
from tal_lib.reports.figures.diagnosis import ERRORS
from tal_lib.reports.layout import Layout
from tal_lib.sweeps.notebook import code_cells, read_notebook
from tal_lib.sweeps.parameters import CHOICES, MEANINGS
from tal_lib.training import fit, recipe_for
from tal_lib.video.backbones import backbones

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
CELL_COLUMNS = 99  # of a code cell that shows without a scroll bar
EMPTY = "000000_no_results"  # a folder that no study has
COMMENT = re.compile(r"(\w+): (\w+) = (.+?)  # (.+)")
QUANTITY = re.compile(
    r"from 0|\d, 2|up to 1|: \d|\b(steps|seconds|s|GB|pixels|recordings|epochs|frames)\b|seeds|fractions"
)


def commented(path):
    """(name, default, comment) of each parameter of a notebook."""
    (source,) = (source for source, tags in code_cells(path) if "parameters" in tags)
    for line in source.splitlines():
        name, _, value, comment = COMMENT.fullmatch(line).groups()
        yield name, ast.literal_eval(value), comment


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_comment_says_what_a_parameter_accepts(path):
    for name, default, comment in commented(path):
        place = f"{path.stem}, {name}: {comment}"
        if default == "":
            assert "empty:" in comment, place
        elif isinstance(default, bool):
            assert "True:" in comment and "False:" in comment, place
        elif isinstance(default, dict):
            assert "name -> value" in comment or "stream -> weight" in comment, place
        elif isinstance(default, int | float):
            assert QUANTITY.search(comment), place
            assert default != -1 or "-1:" in comment, place
        elif isinstance(default, list) and default and not isinstance(default[0], str):
            assert QUANTITY.search(comment), place
        if name == "preset":
            assert {"compact", "paper"} <= set(re.findall(r"\w+", comment)), place
        if name in ("model", "model_names"):
            assert "`tal models`" in comment or set(re.findall(r"\w+_\w+|stale", comment)) <= {
                *models.names()
            }, place
        if name == "backbone":
            assert set(re.findall(r"[a-z]\w+-[\w-]+|\w+_\w+_v2", comment)) <= set(backbones()), place


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_parameter_and_its_comment_fit_in_a_cell(path):
    """A cell of JupyterLab in a window of 1280 pixels, with the list of files open, cuts longer lines."""
    (source,) = (source for source, tags in code_cells(path) if "parameters" in tags)
    assert [line for line in source.splitlines() if len(line) > CELL_COLUMNS] == []


def test_a_page_says_how_to_open_the_notebooks():
    text = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    assert (
        "'.[notebooks]'" in text
        and "jupyter lab --LabApp.default_url=/lab/tree/notebooks" in text
        and "Run All Cells" in text
    )


# docs/notebooks.md


ROW = re.compile(r"^\| `(\w+)` \| (?:`(.+?)` \| )?(.+) \|$", re.M)
SPECIAL = re.compile(r"(?<![\w.])(-?\d+|empty|True|False):")  # a value that the comment explains


def explained():
    """Parameters of docs/notebooks.md. Section → (name → default), and section → (name → meaning)."""
    text = (REPOSITORY / "docs" / "notebooks.md").read_text("utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    shared = {name: meaning for name, _, meaning in ROW.findall(sections.pop("In several notebooks"))}
    defaults, meanings = {}, {}
    for section, content in sections.items():
        given = re.findall(r"`(\w+) = (.+?)`", re.sub(ROW, "", content))
        rows = ROW.findall(content)
        assert not {name for name, _, _ in rows} & shared.keys(), section
        pairs = [*given, *((name, default) for name, default, _ in rows)]
        assert len(dict(pairs)) == len(pairs), section
        defaults[section] = {name: ast.literal_eval(default) for name, default in pairs}
        meanings[section] = {name: shared[name] for name, _ in given} | {name: text for name, _, text in rows}
    return shared, defaults, meanings


def test_the_page_explains_every_parameter():
    shared, defaults, meanings = explained()
    cells = {path.stem: list(commented(path)) for path in NOTEBOOKS}
    assert defaults == {
        notebook: {name: default for name, default, _ in cell} for notebook, cell in cells.items()
    }
    users = [name for cell in cells.values() for name, _, _ in cell]
    assert all(users.count(name) > 1 for name in shared)
    for notebook, cell in cells.items():
        for name, _, comment in cell:
            meaning = meanings[notebook][name]
            assert len(meaning.split()) >= 5, name
            for value in SPECIAL.findall(comment):
                written = ("empty", "`[]`", "`{}`") if value == "empty" else (f"`{value}`",)
                assert any(f"{text}: " in meaning for text in written), f"{notebook}, {name}: {value}"


def test_the_page_names_every_value_that_a_grid_accepts():
    _, defaults, meanings = explained()
    for notebook, names in defaults.items():
        for name in names:
            accepted = CHOICES.get((f"{notebook}.ipynb", name), MEANINGS.get(name))
            for value in get_args(accepted) if get_origin(accepted) is Literal else ():
                assert f"`{value}`" in meanings[notebook][name], f"{notebook}, {name}: {value}"
    assert "](notebooks.md)" in (REPOSITORY / "docs" / "commands.md").read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_depends_on_the_working_folder(path):
    """Each folder of results goes through `files.upwards`, directly or through the library."""
    defaults, _ = read_notebook(path)
    sources = [source for source, tags in code_cells(path) if "parameters" not in tags]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(\.\./)?(results|runs|figures|build)\b/", node.value) or (
                    f'upwards(results or "{node.value}")' in source
                ), node.value
    code = "\n".join(sources)
    assert "REPOSITORY" not in code and "chdir" not in code and not re.search(r"[(\"']/\w+/", code)
    if "results" in defaults:
        assert re.search(r"nearest\(results\)|measured\(results\b|upwards\(results ", code)


def test_folders_are_found_upwards(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert upwards("runs") == tmp_path / "runs"
    assert upwards(tmp_path / "else") == tmp_path / "else" and str(upwards(EMPTY)) == EMPTY
    (tmp_path / "notebooks" / "runs").mkdir()
    assert upwards("runs") == tmp_path / "notebooks" / "runs"
    (tmp_path / "runs" / "tables").mkdir()
    assert upwards("runs", holds="tables") == tmp_path / "runs"


def run_all(name, monkeypatch, **parameters):
    """Run a notebook's code in this process, in its own folder. Returns what it displays, as text."""
    matplotlib.use("agg")
    monkeypatch.chdir(REPOSITORY / "notebooks")
    displayed, names = [], {"__name__": "__main__"}
    monkeypatch.setattr("IPython.display.display", lambda shown: displayed.append(getattr(shown, "data", "")))
    for source, tags in code_cells(REPOSITORY / "notebooks" / f"{name}.ipynb"):
        exec(source, names)
        if "parameters" in tags:
            names |= parameters
    return "\n".join(map(str, displayed))


def test_the_findings_without_any_results_name_tables_and_commands(monkeypatch):
    text = run_all("00_findings", monkeypatch, results=EMPTY)
    for table in ("data_efficiency.csv", "inference_cost.csv"):
        assert text.count(table) == 1
    assert "make study" in text and "tal report" in text and "no equal comparison" in text
    assert "by topic" not in text  # there are none


def test_findings_without_results_say_so_in_every_section(monkeypatch):
    text = run_all("00_findings", monkeypatch, results=EMPTY)
    assert text.count("have nothing for this section") == 4
    assert f"There is no folder `{EMPTY}` with `tables`" in text.replace("\\", "")
    assert "Accuracy against the label fraction" not in text  # nothing to show: no heading


def test_the_rehearsal_page_says_that_there_is_none(monkeypatch):
    monkeypatch.setattr("tal_lib.files.upwards", lambda folder: Path(EMPTY))
    text = run_all("10_rehearsal", monkeypatch)
    assert "No rehearsal in `build/rehearsal`" in text and "`make rehearsal` makes one" in text


def test_the_data_without_published_results_name_their_table(monkeypatch, tmp_path):
    monkeypatch.setattr(Layout, "prior", tmp_path)
    text = run_all("01_data", monkeypatch, fractions=[1.0])
    assert "No table `published.csv`" in text and "`results/prior` of the repository" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("03_inference_cost", r"inference_cost\.csv: no measured cost.*`tal sweep inference_cost`"),
        ("10_rehearsal", r"rehearsal\.json: .*`make rehearsal`"),
    ],
)
def test_what_shows_tables_alone_names_the_missing_one(monkeypatch, name, message):
    with pytest.raises(TalError, match=message) as caught:
        run_all(name, monkeypatch, results=EMPTY)
    (shown,) = caught.value._render_traceback_()  # what IPython prints: no traceback
    assert shown == f"TalError: {caught.value}" and "\n" not in shown


def test_the_diagnosis_of_several_seeds_says_so_below_its_figures(monkeypatch):
    notes = []
    monkeypatch.setattr("tal_lib.reports.theme.show", lambda ax: notes.append(ax.figure.get_supxlabel()))
    quick = {"model": "window_cnn", "fraction": 0.1, "recipe": {"epochs": 1, "min_steps": 4}}
    run_all("09_diagnosis", monkeypatch, seeds=[0, 1], **quick)
    profile, sensitivity = notes
    assert "Mean of 2 seeds" in profile and "Mean of 2 seeds" in sensitivity


def test_the_diagnosis_explains_the_names_of_its_errors():
    text = nbformat.read(REPOSITORY / "notebooks" / "09_diagnosis.ipynb", as_version=4)
    words = " ".join(" ".join(cell.source for cell in text.cells if cell.cell_type == "markdown").split())
    assert not [name for name in ERRORS if name not in words.lower()]


# progress bars


@pytest.fixture
def kernel(monkeypatch):
    """This process looks like the kernel of a notebook."""
    ipython = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(config={"IPKernelApp": {}}))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.delenv(progress.VARIABLE, raising=False)


def test_a_bar_is_shown_where_a_person_looks(kernel, monkeypatch):
    assert progress.shown(None) and progress.shown(True) and not progress.shown(False)
    for name, value in progress.OFF.items():  # a sweep, a rendered page
        monkeypatch.setenv(name, value)
    assert not progress.shown(None) and progress.shown(True)


@pytest.mark.parametrize("open_notebook", [True, False])
def test_training_in_a_notebook_shows_epochs(open_notebook, request, capsys):
    if open_notebook:
        request.getfixturevalue("kernel")
    data = synthetic.load(synthetic.SyntheticConfig(train_recordings=2, test_recordings=1))
    model = models.build("window_cnn", input_dim=data.feature_spec.dim, num_classes=len(data.classes))
    fit(model, data, data.recordings("train"), recipe_for("window_cnn", epochs=2, min_steps=1), 0)
    assert ("2/2" in capsys.readouterr().err) == open_notebook


def test_a_rendered_page_holds_no_bar():
    cell = nbformat.v4.new_code_cell("fit()", id="fit")  # a random id may hold a 30
    bar = {pages.WIDGET: {"model_id": "1"}, "text/plain": "  0%|          | 0/30"}
    cell.outputs = [
        nbformat.v4.new_output("display_data", bar),
        nbformat.v4.new_output("stream", name="stderr", text="\r10%|█ | 3/30"),
        nbformat.v4.new_output("display_data", {"text/plain": "42"}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {"1": {}}}})
    text = json.dumps(pages.clean(notebook))
    assert "42" in text and "30" not in text and "widget" not in text
