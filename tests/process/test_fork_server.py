"""The fork server's imports."""

import importlib
import sys

import pytest

from tal_lib.process.environment import child_environment
from tal_lib.process.fork_server import IRI_GRAMMAR, ForkServer, hidden


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
