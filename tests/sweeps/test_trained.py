"""Weights of a finished run are used only if they were trained on the same data in the same way."""

import json

import pytest

from tal_lib.sweeps import trained

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
