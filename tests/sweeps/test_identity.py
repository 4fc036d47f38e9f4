"""A cell's identity: what makes another cell of it, what makes it stale, and what changes nothing."""

import ast
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import sweeps
from tal_lib.files import REPOSITORY
from tal_lib.fingerprint import fingerprint
from tal_lib.sweeps.areas import LIBRARY, Areas, models_in
from tal_lib.sweeps.identity import (
    Code,
    current_code,
    differences,
    is_uncommitted,
    stale_records,
    uncommitted_records,
)
from tal_lib.sweeps.ledger import cell_key, read_ledger, recency
from tal_lib.sweeps.states import states_of
from tal_lib.sweeps.versions import Declared, Versions, read_versions

NOTEBOOK = REPOSITORY / "notebooks" / "02_train_evaluate.ipynb"
CELL = {"benchmark": "synthetic", "model": "tridet", "preset": "compact", "seed": 0}
AP = "evaluation/average_precision"


class Copied:
    """A copy of the library and of a notebook, in which files can be edited; `code()` is the code as it is
    now.
    """

    def __init__(self, folder):
        self.library, self.notebook = folder / "tal_lib", folder / "notebooks" / NOTEBOOK.name
        shutil.copytree(
            LIBRARY, self.library, ignore=shutil.ignore_patterns("__pycache__", "templates", "static")
        )
        self.notebook.parent.mkdir()
        shutil.copy(NOTEBOOK, self.notebook)
        self.declared = Versions()
        self.known = {}  # what the files hold -> the areas, with what is known of them
        first = self.code()
        for area in first.needs(self.notebook, CELL):
            self.declared.areas[area] = Declared(1, first.fingerprint(area, self.notebook.parent))

    def files(self):
        """What the files of the library hold."""
        return {path: path.read_bytes() for path in self.library.rglob("*.py")}

    def code(self):
        """The code as it is now. Equal files are looked at once for all tests."""
        code = Code(self.library, self.declared)
        if not self.declared.moved:
            code.areas = self.known.setdefault(tuple(sorted(self.files().items())), code.areas)
        return code

    def changes(self):
        """Areas that are not at version 1."""
        return self.code().of(self.notebook, CELL)

    def id(self):
        code = self.code()
        return code.id(NOTEBOOK.name, CELL, "data", "", code.of(self.notebook, CELL))

    def edit(self, file, edit):
        text = (self.library / file).read_text()
        assert edit(text) != text, f"{file} has nothing to edit"
        (self.library / file).write_text(edit(text))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Copied(tmp_path_factory.mktemp("copied"))


@pytest.fixture
def copied(original):
    """The copy, which is as it was after each test."""
    files = original.files() | {original.notebook: original.notebook.read_bytes()}
    declared = original.declared.copy()
    yield original
    for path in {*original.library.rglob("*.py")} - files.keys():
        path.unlink()
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    original.declared = declared


def replaced(old, new):
    return lambda text: text.replace(old, new)


def other_docstrings(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            node.body[0].value.value = "In other words."
    return ast.unparse(tree)


def another_number(text):
    """The first number in the code of a function, one more."""
    return next(numbers_changed(text))


WORDING = {
    "a comment": (f"{AP}.py", replaced("\nimport numpy", "\n# a comment\nimport numpy")),
    "docstrings": (f"{AP}.py", other_docstrings),
    "an annotation": ("models/tridet.py", replaced("-> Tensor:", "-> 'Tensor | None':")),
    "a message": ("training/loop.py", replaced("Lower the learning rate", "Try a smaller one")),
    "a local variable": ("training/loop.py", lambda text: re.sub(r"\bprepared\b", "made", text)),
    "the order of imports": (
        "training/loop.py",
        replaced("import math\nimport random\n", "import random\nimport math\n"),
    ),
    "an import's spelling": (
        "training/loop.py",
        replaced("from torch import nn\n", "import torch.nn as nn\n"),
    ),
    "code of another model": ("models/actionformer.py", another_number),
    "code that only draws": ("reports/figures/accuracy.py", another_number),
    "code of another benchmark": ("data/hapt.py", another_number),
}
COMPUTES = [AP, "models/tridet", "models/parts/conv", "training/loop", "data/synthetic", "segments"]


@pytest.mark.parametrize("what", WORDING)
def test_wording_changes_no_id(copied, what):
    assert copied.changes() == {}
    copied.edit(*WORDING[what])
    assert copied.changes() == {}


@pytest.mark.parametrize("area", COMPUTES)
def test_code_that_computes_changes_the_id(copied, area):
    before = copied.id()
    copied.edit(f"{area}.py", another_number)
    assert copied.id() != before
    ((changed, version),) = copied.changes().items()
    assert changed == area and re.fullmatch(r"1\+[0-9a-f]{8}", version)


def test_a_changed_line_of_the_mean_average_precision_changes_the_id(copied):
    before = copied.id()
    copied.edit(f"{AP}.py", replaced(".mean(", ".median("))
    assert copied.id() != before


def edit_notebook(path, edit):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = edit(cell.source) if cell.cell_type == "code" else cell.source + "\nOther words."
    nbformat.write(notebook, path)


def test_a_word_in_the_parameters_cell_changes_no_id(copied):
    before = copied.id()
    edit_notebook(copied.notebook, lambda source: source.replace("  # share of", "  # the share of"))
    edit_notebook(copied.notebook, lambda source: source.replace("Training on **", "Learning from **"))
    assert copied.id() == before
    edit_notebook(copied.notebook, lambda source: source.replace("subset_seed < 0", "subset_seed < 1"))
    assert copied.id() != before


def test_a_raised_version_makes_a_cell_stale_and_a_split_file_does_not(copied):
    before, code = copied.id(), copied.code()
    code.versions.areas[AP] = Declared(2, code.fingerprint(AP))
    assert copied.id() != before
    assert differences({}, copied.code().of(copied.notebook, CELL)) == [(AP, "1", "2")]
    code.versions.areas[AP] = Declared(1, code.fingerprint(AP))
    assert copied.id() == before
    (copied.library / "training" / "new.py").write_text("def helper():\n    return 1\n")
    copied.edit(
        "training/loop.py",
        replaced("import math\n", "import math\nfrom tal_lib.training.new import helper\n"),
    )
    copied.edit(
        "training/loop.py", replaced("    seed_everything(seed)\n", "    seed_everything(helper())\n")
    )
    assert set(copied.changes()) == {"training/loop", "training/new"}
    now = copied.code()
    for area in ("training/loop", "training/new"):  # stamped: the numbers are the same
        now.versions.areas[area] = Declared(1, now.fingerprint(area))
    assert copied.id() == before


def test_a_moved_file_keeps_its_versions(copied):
    code = copied.code()
    code.versions.areas["segments"] = Declared(3, code.fingerprint("segments"))
    before = copied.id()
    (copied.library / "models" / "parts" / "spans.py").write_text(
        (copied.library / "segments.py").read_text()
    )
    (copied.library / "segments.py").unlink()
    for path in copied.library.rglob("*.py"):
        path.write_text(path.read_text().replace("tal_lib.segments", "tal_lib.models.parts.spans"))
    assert copied.id() != before
    code.versions.moved["models/parts/spans"] = "segments"
    code.versions.areas["models/parts/spans"] = code.versions.areas.pop("segments")
    assert copied.id() == before


def test_a_parameter_that_came_later_leaves_older_cells_as_they_are():
    code = Code(versions=Versions(added={"notebooks/01_data": {"fold": -1}}))
    plain = code.id("01_data.ipynb", {"seed": 0}, "d", "", {})
    assert code.id("01_data.ipynb", {"seed": 0, "fold": -1}, "d", "", {}) == plain
    assert code.id("01_data.ipynb", {"seed": 0, "fold": 2}, "d", "", {}) != plain
    assert code.id("02_other.ipynb", {"seed": 0, "fold": -1}, "d", "", {}) != plain


@pytest.mark.parametrize("part", range(5))
def test_each_part_of_the_identity_counts(part):
    code = Code(versions=Versions())
    parts = ["n.ipynb", {"a": 1}, "data", "machine", {"segments": "2"}]
    other = ["m.ipynb", {"a": 2}, "atad", "", {"segments": "3"}]
    before = code.id(*parts)
    parts[part] = other[part]
    assert code.id(*parts) != before


@pytest.mark.parametrize(
    ("parameters", "models"),
    [
        ({"model": "tridet"}, ("tridet",)),
        ({"model_names": ["bilstm", "afsd"], "note": "tridet is not named alone"}, ("afsd", "bilstm")),
        ({"options": {"generator": "bmn"}, "model": "gaf"}, ("bmn", "gaf")),
        ({"model": "tcanet"}, ("bmn", "tcanet")),  # made of another, as its options say
        ({"number": 1, "text": ""}, ()),
    ],
)
def test_models_are_told_by_the_parameters(parameters, models):
    assert models_in(parameters) == models


def test_a_cell_depends_on_its_own_model_and_benchmark_alone():
    needs = sweeps.current_code().needs(NOTEBOOK, CELL)
    assert {"models/tridet", "recipes/tridet", "data/synthetic", AP, "segments", "training/loop"} <= set(
        needs
    )
    assert not {"models/afsd", "recipes/afsd", "data/hapt", "evaluation/diagnosis", "cost/profile"} & set(
        needs
    )


def test_only_a_cell_with_a_published_preset_depends_on_the_presets():
    code = sweeps.current_code()
    published = code.needs(NOTEBOOK, CELL | {"preset": "paper"})
    assert set(published) - set(code.needs(NOTEBOOK, CELL)) == {"presets/tridet"}


def numbers_changed(source):
    """Each number in the code of functions, changed by itself."""
    tree = ast.parse(source)
    raised = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
    annotated = {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
        for part in ast.walk(annotation)
    }
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        if number and id(node) not in raised | annotated:
            node.value += 1
            yield ast.unparse(tree)
            node.value -= 1


@pytest.mark.parametrize("file", ["evaluation/average_precision.py", "segments.py", "models/parts/losses.py"])
def test_every_number_counts(file):
    source = (LIBRARY / file).read_text()
    before, mutants = fingerprint(source), list(numbers_changed(source))
    assert len(mutants) > 5 and all(fingerprint(mutant) != before for mutant in mutants)


def test_layout_and_comments_do_not_count():
    for area in Areas().files:
        source = (LIBRARY / f"{area}.py").read_text()
        assert fingerprint(ast.unparse(ast.parse(source))) == fingerprint(source), area


names = st.lists(
    st.sampled_from(["total", "part", "row", "other", "weight"]), min_size=3, max_size=3, unique=True
)
PROGRAM = """
def compute(values, scale=2):
    {0} = 0
    for {1} in values:
        {2} = {1} * scale
        {0} += {2}
    return [{1} + {0} for {1} in values if {1} > {2}]
"""


@settings(max_examples=50, deadline=None)
@given(names, names)
def test_names_of_local_variables_do_not_count(first, second):
    assert fingerprint(PROGRAM.format(*first)) == fingerprint(PROGRAM.format(*second))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("def f(x):\n a = x\n b = x + 1\n return a", "def f(x):\n a = x\n b = x + 1\n return b"),
        ("def f(x):\n return x", "def f(y):\n return y"),  # callers may name it
        ("def f():\n len = 3\n return len", "def f():\n a = 3\n return len"),
        ("class A:\n x: int = 1", "class A:\n x = 1"),  # a field, and none
        ("class A:\n x: int", "class A:\n x: 'ClassVar[int]'"),
        ("from m import a as c\nc()", "from m import b as c\nc()"),
        ("a = 1", "a = 1.0"),
        ("def f(x):\n if x: raise E", "def f(x):\n pass"),
        ("raise A('x')", "raise B('x')"),
    ],
)
def test_what_is_other_code(a, b):
    assert fingerprint(a) != fingerprint(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("import torch.nn as nn\nx = nn.Linear(1)", "from torch import nn as n\nx = n.Linear(1)"),
        ("raise A('x')", "raise A('in other words')"),
        ("def f(x):\n assert x, 'm'", "def f(x: int) -> int:\n 'Doc.'\n assert (x)"),
        ("from IPython.display import display\nx = 1\ndisplay(x)", "x = 1"),
        ("%matplotlib inline", "%matplotlib inline"),
    ],
)
def test_what_is_the_same_code(a, b):
    assert fingerprint(a) == fingerprint(b)


# ledgers


def test_stale_cells_are_told_and_run_when_asked(project, capsys):
    from tal_lib.cli import main

    grid = project.make((1, 2))
    where = ["--results", project.where["results"], "--runs", project.where["runs"]]
    assert main(["sweep", str(grid), *where]) == 0 and project.log() == [1, 2]
    project.make((1, 2, 3), sleep=0.001)  # other code, and a new cell
    capsys.readouterr()
    assert main(["sweep", str(grid), *where, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "3 cells, 1 to do, 2 stale, 0 done" in out
    assert re.search(
        r"2 cells were computed by other code of notebooks/work \(version 0\+\w{8}, now 0\+\w{8}\)", out
    )
    assert main(["sweep", str(grid), *where]) == 0 and project.log() == [1, 2, 3]
    assert "`--again stale` runs them" in capsys.readouterr().out
    notebooks = project.folder / "notebooks"
    stale = stale_records(project.where["results"], notebooks)
    assert len(stale) == 2 and set(stale.area) == {"notebooks/work"}
    assert main(["sweep", str(grid), *where, "--again", "stale"]) == 0 and project.log() == [1, 1, 2, 2, 3]
    assert stale_records(project.where["results"], notebooks).empty
    assert main(["sweep", str(grid), *where, "--again"]) == 0 and len(project.log()) == 8
    assert set(sweeps.plan(grid)[0].code) == {"notebooks/work"}
    assert {tuple(record["code"]) for record in sweeps.read_all(project.where["results"])} == {
        ("notebooks/work",)
    }


def test_a_reverted_change_makes_its_results_stale(project):
    """The tables show the newest record: that of the change, not the one that today's code had made."""
    grid = project.make((1,))
    sweeps.run(grid, **project.where)
    project.make((1,), sleep=0.001)
    sweeps.run(grid, again_stale=True, **project.where)
    project.make((1,))
    assert len(sweeps.run(grid, **project.where).stale) == 1
    assert len(stale_records(project.where["results"], project.folder / "notebooks")) == 1
    assert sweeps.run(grid, again_stale=True, **project.where).done_now == 1
    assert stale_records(project.where["results"], project.folder / "notebooks").empty
    assert sweeps.run(grid, **project.where).done_before == 1


def test_what_a_command_of_ipython_hides_is_imported_too():
    plain = "from tal_lib.study import train_and_score"
    areas = Areas()
    needed = areas.needs([plain], (), "")
    assert "study" in needed and areas.needs([f"%matplotlib inline\n!ls\n{plain}"], (), "") == needed
    assert areas.needs(["%%time\n" + plain], (), "") == needed


def test_code_is_read_again_when_a_plug_in_changes(tmp_path, monkeypatch):
    file = tmp_path / "detector.py"
    file.write_text("x = 1")
    monkeypatch.setenv("TAL_PLUGINS", str(file))
    before = current_code()
    assert current_code() is before
    os.utime(file, ns=(1, 1))
    assert current_code() is not before


def row(id, number, utc, data="d", **more):
    provenance = {"utc": utc, "data_hash": data, "git_commit": "abc"}
    return {
        "id": id,
        "sweep": "s",
        "notebook": "n.ipynb",
        "parameters": {"n": number},
        "provenance": provenance,
    } | more


def cell(id, number, data="d"):
    return sweeps.Cell("s", Path("n.ipynb"), {"n": number}, data, id, code={"segments": "2"})


def test_states_by_hand():
    records = [row("a", 1, "1", code={"segments": "2"}), row("b", 2, "1", code={}), row("c", 3, "1")]
    cells = [cell("a", 1), cell("b2", 2), cell("c2", 3), cell("d", 4), cell("e", 2, "other data")]
    states = states_of(cells, records)
    assert [states[id].name for id in ("a", "b2", "c2", "d", "e")] == [
        "done",
        "stale",
        "stale",
        "to do",
        "to do",
    ]
    (elsewhere,) = states_of([cell("a2", 1)], records).values()  # by a cluster, which names no machine in ids
    assert elsewhere.name == "done"
    timed = replace(cell("t", 9), of_machine=True)
    assert states_of([timed], [row("t", 9, "1", machine="m")])["t"].name == "done"
    assert states["b2"].changes == (("segments", "1", "2"),)
    assert states["c2"].changes == (("all code", "unknown", "as it is"),)


def write(folder, **ledgers):
    (folder / "ledger").mkdir()
    for name, records in ledgers.items():
        (folder / "ledger" / f"{name}.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records)
        )


def test_of_two_ledgers_with_one_id_the_newer_counts(tmp_path):
    write(tmp_path, a=[row("x", 1, "2026-01-02", value="new")], b=[row("x", 1, "2026-01-01", value="old")])
    assert [record["value"] for record in sweeps.ledgers(tmp_path)] == ["new"]
    assert [record["value"] for record in sweeps.read_all(tmp_path)] == ["new"]


def test_uncommitted_records_are_named(tmp_path):
    dirty = row("y", 2, "1")
    dirty["provenance"]["git_commit"] = "abc+"
    write(tmp_path, a=[row("x", 1, "1"), dirty])
    assert uncommitted_records(tmp_path).cell.tolist() == ["y"] and is_uncommitted(dirty)


def test_runs_from_before_are_not_taken_in_again(tmp_path):
    write(tmp_path, s=[row("new", 1, "1", formerly="old", code={})])
    for id in ("old", "another"):
        (tmp_path / "runs" / id).mkdir(parents=True)
        (tmp_path / "runs" / id / "cell.json").write_text(json.dumps(row(id, 1, "1")))
    assert list(sweeps.ledger.finished_runs(tmp_path / "runs", tmp_path / "ledger" / "s.jsonl")) == [
        "another"
    ]


SEARCH = "tuning.jsonl"


def test_committed_ledgers_are_one_truth():
    """No id twice, but for copies of trials in the ledger of their search; of one cell (notebook, parameters,
    machine) older results only, each told apart from the newer by code or data.
    """
    seen, keys = {}, {}
    for path in sorted((REPOSITORY / "results" / "ledger").glob("*.jsonl")):
        assert len(read_ledger(path)) == len(path.read_text().splitlines()), f"{path.name} holds an id twice"
        for record in read_ledger(path).values():
            if record["id"] in seen:
                other, known = seen[record["id"]]
                assert SEARCH in (path.name, other), f"{record['id']} is in {path.name} and {other}"
                assert record == known, f"{record['id']} differs in {path.name} and {other}"
                continue
            seen[record["id"]] = path.name, record
            keys.setdefault(cell_key(record), []).append(record)
    for records in keys.values():
        assert len({recency(record) for record in records}) == len(records), [
            record["id"] for record in records
        ]
        made_by = {(json.dumps(record["code"]), record["provenance"]["data_hash"]) for record in records}
        assert len(made_by) == len(records), [record["id"] for record in records]


def test_committed_ids_are_what_their_records_say():
    """Every record's id is that of its notebook, parameters, data, machine and code; unknown code keeps an
    older id.
    """
    code = Code(versions=read_versions())
    for record in sweeps.ledgers(REPOSITORY / "results"):
        if record["code"] is not None:
            data, machine = record["provenance"]["data_hash"], record.get("machine", "")
            assert record["id"] == code.id(
                record["notebook"], record["parameters"], data, machine, record["code"]
            )


def test_a_notebook_that_shows_the_floor_depends_on_its_model():
    """`floor` names its model in a text, so no import statement tells."""
    code, benchmark = sweeps.current_code(), {"benchmark": "synthetic"}
    assert "models/timeline_prior" in code.needs(REPOSITORY / "notebooks" / "01_data.ipynb", benchmark)
    assert "models/timeline_prior" not in code.needs(NOTEBOOK, CELL)
