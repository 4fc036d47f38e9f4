"""What a process imports: slow libraries only where their work is done, as every command waits for them."""

import json
import os
import subprocess
import sys

import pytest

from tal_lib.files import REPOSITORY
from tal_lib.process.fork_server import IRI_GRAMMAR

SLOW = ("torch", "scipy", "nbformat", "jsonschema", "papermill", "matplotlib", "distributed", "cv2", "av")
STEPS = {  # what a process does -> its code, and the slow libraries that it needs
    "tal --help": ("main(['--help'])", ()),
    "tal data list": ("main(['data', 'list'])", ()),
    "the packages": ("import tal_lib.data, tal_lib.evaluation, tal_lib.sweeps", ()),
    "a worker of a cluster": ("import tal_lib.sweeps.cluster", ()),
    "a plan": ("tal_lib.sweeps.plan(sys.argv[1])", ("torch",)),  # it reads the models' options
    "a report": ("import tal_lib.reports", ("torch", "nbformat", "jsonschema")),
}
CODE = """import contextlib, io, json, sys
from tal_lib.cli import main
loaded = []
for step in {steps!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        exec(step)
    loaded.append([name for name in {names!r} if name in sys.modules])
print(json.dumps(loaded))"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Step → the libraries that one process has loaded after it and the steps before it."""
    grid = tmp_path_factory.mktemp("grid") / "grid.yaml"
    block = {"notebook": str(REPOSITORY / "notebooks" / "03_inference_cost.ipynb")}
    grid.write_text(json.dumps({"cells": [block]}))
    code = CODE.format(steps=[code for code, _ in STEPS.values()], names=(*SLOW, IRI_GRAMMAR, "pandas"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(grid)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(STEPS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("step", STEPS)
def test_no_other_slow_library_is_imported(step, loaded):
    assert set(loaded[step]) - {"pandas"} <= set(STEPS[step][1])


def test_help_reads_no_tables(loaded):
    assert "pandas" not in loaded["tal --help"]
