"""Notebooks as a sweep reads them: as nbformat does, without its import; what is imported for them early."""

import json
import subprocess
import sys

import nbformat
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.files import REPOSITORY
from tal_lib.models.parts import registry
from tal_lib.sweeps.local import BEFORE_DRAWING, imports_of
from tal_lib.sweeps.notebook import code_cells, read_notebook

CODE = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "outputs": [], "execution_count": None}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_code_cells_are_those_of_nbformat(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code_cells(path) == [(cell.source, cell.metadata.get("tags", [])) for cell in cells]


@pytest.mark.parametrize("source", ["a: int = 1\nb = 'x'", ["a: int = 1\n", "b = 'x'"]])
def test_a_source_is_text_or_its_lines(tmp_path, source):
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": [CODE | {"source": source}]}))
    assert read_notebook(path) == ({"a": 1, "b": "x"}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"nbformat": 4, "cells": [', "not valid JSON"),
        ("[]", r"not a notebook \(TypeError\).*Restore it from git"),
        ("{}", r"not a notebook \(KeyError\)"),
        ('{"nbformat": 4, "cells": [3]}', "not a notebook"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "not a notebook"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": "", "metadata": []}]}', "not a notebook"),
        ('{"nbformat": 3, "worksheets": []}', "notebook of format 3, not 4. Open it in Jupyter"),
        ('{"nbformat": 4, "cells": []}', "has 0 cells tagged `parameters`. Tag exactly one"),
    ],
)
def test_what_is_no_notebook_is_named(tmp_path, text, message):
    path = tmp_path / "n.ipynb"
    path.write_text(text)
    with pytest.raises(TalError, match=message) as error:
        read_notebook(path)
    assert str(error.value).startswith(str(path)) and len(str(error.value).splitlines()) == 1


def test_a_notebook_that_is_not_there(tmp_path):
    with pytest.raises(TalError, match="notebook not found"):
        read_notebook(tmp_path / "n.ipynb")


def early(name):
    path = REPOSITORY / "notebooks" / name
    return imports_of(path, path.stat().st_mtime)


def test_every_model_is_imported_before_a_notebook_that_trains():
    """Else each of its cells imports them again, and what the first optimizer needs."""
    modules = {registry.class_of(name).__module__ for name in models.every_name()}
    assert modules | {"tal_lib.study"} <= set(early("02_train_evaluate.ipynb"))
    assert not [name for name in early("10_rehearsal.ipynb") if name.startswith(("torch", "tal_lib.models"))]


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_a_fork_server_does_not_ask_for_gpus(cuda, monkeypatch):
    """`torch._dynamo` may ask the driver when it is imported, and then no fork can use a GPU."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    imports_of.cache_clear()
    assert ("torch._dynamo" in early("02_train_evaluate.ipynb")) == (cuda is None)
    imports_of.cache_clear()


def test_the_kernel_alone_chooses_how_figures_are_shown():
    assert set(BEFORE_DRAWING) <= set(early("02_train_evaluate.ipynb"))
    code = f"import sys; [__import__(name) for name in {BEFORE_DRAWING[:2]}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "matplotlib.axes" in loaded and not {"matplotlib.pyplot", "seaborn"} & loaded
