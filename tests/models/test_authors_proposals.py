"""BMN, TCANet and BSN beside their authors' code, where its clones are at hand."""

import importlib
import os
from pathlib import Path

import pytest

from tal_lib import TalError

CODE = os.environ.get("TAL_AUTHORS_CODE")
REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not CODE, reason="set TAL_AUTHORS_CODE to a folder with clones of the authors' repositories"
)


@pytest.mark.parametrize("model", ["bmn", "tcanet", "bsn"])
def test_ours_equals_theirs(model, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    comparison = importlib.import_module(f"experiments.authors.{model}")
    try:
        rows = list(comparison.rows(Path(CODE) / comparison.FOLDER, model))
    except TalError as error:  # no clone, or it needs a package that is not installed
        pytest.skip(str(error))
    assert rows and all(row.limit is None or row.difference <= row.limit for row in rows), rows
