"""AFSD and TadTR beside their authors' code, where its clones are at hand."""

import importlib
import os
from pathlib import Path

import pytest

CODE = os.environ.get("TAL_AUTHORS_CODE")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    not CODE, reason="set TAL_AUTHORS_CODE to a folder with clones of the authors' repositories"
)
@pytest.mark.parametrize("name", ["afsd", "tadtr"])
def test_the_published_form_computes_what_their_code_does(name, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    module = importlib.import_module(f"experiments.authors.{name}")
    rows = [row for row in module.rows(Path(CODE) / module.FOLDER, name) if row.limit is not None]
    assert not [row for row in rows if not row.difference <= row.limit]
    aspects = {"parameters", "forward", "loss", "gradient", "decoding", "recipe"}
    assert {row.aspect for row in rows} >= aspects
