"""Weights of a finished run are used only if they were trained on the same data in the same way."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tal_lib import files
from tal_lib.files import REPOSITORY
from tal_lib.sweeps import trained
from tal_lib.sweeps.notebook import code_cells

RECIPE = {"epochs": 1, "min_steps": 1}
ABOUT = {"benchmark": "synthetic", "model": "window_cnn", "preset": "compact", "seed": 0, "recipe": RECIPE}
WHOLE = {"fraction": 0.1, "fold": -1, "stream": "", "options": {}, "subset_seed": -1, "skip": 1}
WHOLE |= {"people": 1.0, "annotated": 1.0, "also": []}


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, True),
        ({"also": ["hapt"]}, True),  # tested further: the same weights
        ({"skip": 2}, False),
        ({"people": 0.5}, False),
        ({"annotated": 0.5}, False),
        ({"fold": 1}, False),
        ({"fraction": 0.2}, False),
    ],
)
def test_weights_of_another_training_are_not_taken(tmp_path, monkeypatch, changes, used):
    monkeypatch.setattr(trained, "_of_today", lambda record: True)
    run = tmp_path / "runs" / "sweep" / "stored"
    run.mkdir(parents=True)
    record = {"id": "stored", "notebook": "n.ipynb", "parameters": ABOUT | WHOLE | changes}
    (run / "cell.json").write_text(json.dumps(record | {"provenance": {"utc": "1"}}))
    (run / "model.pt").write_bytes(b"weights")
    given = {"folder": tmp_path / "new", "runs": tmp_path / "runs", "fraction": 0.1}
    path, origin = trained.checkpoint_of(**ABOUT, **given)
    assert (path, origin) == (
        (run / "model.pt", "stored") if used else (tmp_path / "new/model.pt", trained.HERE)
    )


# the temporary folder of a notebook


@pytest.fixture
def at_exit(tmp_path, monkeypatch):
    """The folder for temporary files is `tmp_path`. What was registered for the end of the process."""
    registered = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files.atexit, "register", registered.append)
    return registered


@pytest.mark.parametrize("weights", ["stored", "trained here"])
def test_the_temporary_folder_of_a_notebook_goes(tmp_path, monkeypatch, at_exit, weights):
    stored = tmp_path / "stored" / "model.pt"
    monkeypatch.setattr(trained, "trained_in", lambda *_, **about: stored if weights == "stored" else None)
    folder = Path(tempfile.mkdtemp(prefix="tal-export-"))
    path, _ = trained.checkpoint_of(**ABOUT, folder=folder, fraction=0.1)
    assert path.parent == (stored.parent if weights == "stored" else folder)
    (folder / "graph").mkdir()
    (remove,) = at_exit
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "getpid", lambda: -1)  # a fork that ends earlier
        remove()
    assert folder.is_dir()
    remove()
    assert not folder.exists()
    remove()  # a second time is no error


@pytest.mark.parametrize("end", ["", "1 / 0", "sys.exit(1)"])
def test_it_goes_however_the_process_ends(tmp_path, end):
    code = f"""
import sys, tempfile
from tal_lib.files import remove_at_exit
folder = tempfile.mkdtemp(prefix="tal-export-")
remove_at_exit(folder)
open(folder + "/weights", "w").close()
print(folder)
{end}"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path)) and not list(tmp_path.iterdir())


KEPT = {
    "a folder of another name": lambda top: Path(tempfile.mkdtemp(prefix="mine-")),
    "a name without a purpose": lambda top: Path(tempfile.mkdtemp(prefix="tal-")),
    "a folder of a user": lambda top: top / "tal-models",
    "somewhere else": lambda top: Path(tempfile.mkdtemp(prefix="tal-export-", dir=top / "below")),
}


@pytest.mark.parametrize("name", KEPT)
def test_any_other_folder_is_kept(tmp_path, at_exit, name):
    (tmp_path / "below").mkdir()
    folder = KEPT[name](tmp_path)
    folder.mkdir(exist_ok=True)
    files.remove_at_exit(folder)
    assert at_exit == []


def test_a_folder_in_use_is_kept(tmp_path, at_exit):
    folder = Path(tempfile.mkdtemp(prefix="tal-export-"))
    (folder / "notes").touch()
    files.remove_at_exit(folder)
    (folder / "notes").unlink()
    folder.chmod(0o755)  # others read it
    files.remove_at_exit(folder)
    folder.rmdir()
    files.remove_at_exit(folder)  # none
    folder.symlink_to(tempfile.mkdtemp(prefix="tal-export-"))
    files.remove_at_exit(folder)
    assert at_exit == []


def test_every_notebook_gives_its_temporary_folder_to_be_removed():
    names = set()
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        code = "\n".join(source for source, _ in code_cells(path))
        for prefix in re.findall(r'mkdtemp\(prefix="(.+?)"\)', code):
            assert files._TEMPORARY.fullmatch(f"{prefix}a_1b2c3d"), prefix
            assert re.search(r"checkpoint_of\(.+, folder\)", code), path.stem
            names.add(path.stem)
        assert ("mkdtemp" in code) == (path.stem in names)
    assert names == {"03_inference_length", "07_quantization", "08_export"}
    scripts = [  # which use `with tempfile.TemporaryDirectory()`
        path
        for folder in ("experiments", "examples", "tal_lib")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    assert [path for path in scripts if re.search(r"\bmkdtemp\(", path.read_text("utf-8"))] == []
