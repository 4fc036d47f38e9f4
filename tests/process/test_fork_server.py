"""The fork server's imports."""

import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tal_lib.process.environment import child_environment
from tal_lib.process.fork_server import IRI_GRAMMAR, Failed, ForkServer, hidden


def test_a_hidden_module_can_be_imported_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with hidden("colorsys"):
        with pytest.raises(ImportError):
            importlib.import_module("colorsys")
    module = importlib.import_module("colorsys")
    with hidden("colorsys"):  # a loaded module stays
        assert importlib.import_module("colorsys") is module
    assert sys.modules["colorsys"] is module


def test_it_reads_notebooks_without_the_grammar(tmp_path, monkeypatch):
    job = "import sys\ndef loaded(names): return [name for name in names if name in sys.modules]"
    (tmp_path / "jobs.py").write_text(job)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ForkServer(child_environment(1), ("nbformat",))
    try:
        names = ["nbformat", "jsonschema", IRI_GRAMMAR]
        assert server.run("jobs:loaded", names=names) == names[:2]
        # a fork looks for its own garbage, not for that of the modules
        assert server.run("gc:isenabled") and server.run("gc:get_freeze_count") > 10_000
    finally:
        server.close()


LEAVES = """
import os, subprocess, sys, tempfile, time

def job(how):
    folder = tempfile.mkdtemp(prefix="tal-left-")
    open(os.path.join(folder, "weights"), "w").close()
    child = "import tempfile; print(tempfile.mkdtemp(prefix='tal-child-'))"
    below = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip()
    if how == "fails":
        raise ValueError("for a test")
    if how == "dies":
        os.kill(os.getpid(), 9)
    if how == "hangs":
        time.sleep(600)
    return [folder, below, os.environ["TORCHINDUCTOR_CACHE_DIR"]]
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for the temporary files of this process and its child processes."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "leaves.py").write_text(LEAVES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path / "temporary"


@pytest.mark.parametrize(
    ("how", "environment"),
    [("ends", True), ("ends", False), ("fails", True), ("dies", True), ("hangs", True)],
)
def test_no_temporary_file_of_a_job_stays(temporary, how, environment):
    server = ForkServer(child_environment(1))
    given = child_environment(1) if environment else None
    try:
        if how == "ends":
            *folders, compiled = server.run("leaves:job", environment=given, how=how)
            assert all(Path(folder).is_relative_to(temporary) for folder in folders)
            assert Path(compiled).parent == temporary  # later jobs use it
        else:
            with pytest.raises(Failed):
                server.run("leaves:job", 1 if how == "hangs" else None, environment=given, how=how)
    finally:
        server.close()
    assert not list(temporary.iterdir())


def test_no_temporary_file_stays_if_the_client_is_killed(temporary):
    client = """
from tal_lib.process.environment import child_environment
from tal_lib.process.fork_server import ForkServer
ForkServer(child_environment(1)).run("leaves:job", how="hangs")"""
    process = subprocess.Popen([sys.executable, "-c", client], env=child_environment(1))
    try:
        assert eventually(lambda: list(temporary.glob("tal-job-*/*/tal-child-*")))
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: not list(temporary.iterdir()))


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
