"""A small project to sweep: a notebook that squares a number, and whatever fault a test wants."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tal_lib import sweeps
from tal_lib.sweeps.ledger import read_ledger

PARAMETERS = "number: int = 1  # measured\nfail: bool = False\nout_dir: str = ''"
WORK = """import time, os, pandas as pd
from pathlib import Path
from tal_lib.sweeps import record
with open(r"{log}", "a") as log: log.write(f"{{number}}\\n")
if Path(r"{fault}").exists(): exec(Path(r"{fault}").read_text())
time.sleep({sleep})
if fail: raise RuntimeError("told to fail")
record(out_dir, {{"squares": pd.DataFrame([{{"square": number ** 2}}])}}, config=[number])"""


class Project:
    """`make(…)` writes notebook and grid; `fault` is Python that every cell runs while it is set."""

    def __init__(self, folder):
        self.folder, self.ledger = folder, folder / "results" / "ledger" / "grid.jsonl"
        self.where = {"results": str(folder / "results"), "runs": str(folder / "runs"), "progress": False}
        self.runs = folder / "runs" / "grid"

    def make(self, numbers=(1, 2, 3, 4), sleep=0.0, fail=(), shown="", **block):
        grids = self.folder / "notebooks" / "sweeps"
        grids.mkdir(parents=True, exist_ok=True)
        work = WORK.format(log=self.folder / "log", fault=self.folder / "fault.py", sleep=sleep)
        cells = [
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, id="a"),
            new_code_cell(work, id="b"),
            new_code_cell(shown, id="c"),
        ]
        nbformat.write(
            new_notebook(
                cells=cells,
                metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
            ),
            grids.parent / "work.ipynb",
        )
        blocks = [
            {"notebook": "work.ipynb", "grid": {"number": [n for n in numbers if n not in fail]}, **block}
        ]
        if fail:
            blocks.append(
                {"notebook": "work.ipynb", "parameters": {"fail": True}, "grid": {"number": list(fail)}}
            )
        (grids / "grid.yaml").write_text(json.dumps({"cells": blocks}))
        return grids / "grid.yaml"

    def set_fault(self, code=""):
        (self.folder / "fault.py").write_text(code)

    def log(self):
        """The number of every cell that has begun, sorted."""
        log = self.folder / "log"
        return sorted(map(int, log.read_text().split())) if log.exists() else []

    def squares(self):
        """What the ledger says, a pair a cell."""
        return sorted(
            (record["parameters"]["number"], record["tables"]["squares"][0]["square"])
            for record in read_ledger(self.ledger).values()
        )

    def tables(self):
        """The ledger's contents but for when and how long: equal for an undisturbed and a resumed sweep."""
        return {
            name: {key: record[key] for key in ("parameters", "tables", "notebook")}
            for name, record in read_ledger(self.ledger).items()
        }

    def finished(self):
        """Names of the run folders that are believed."""
        return sorted(sweeps.ledger.finished_runs(self.runs))

    def left_over(self):
        """Temporary folders that nobody has tidied up."""
        return [path.name for path in self.runs.iterdir() if path.name.startswith(".") and path.is_dir()]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)
