"""`tal released`: a file in the authors' form to detections and a model; `tal models NAME`."""

import json

import numpy as np
import pytest
import torch

from tal_lib import models
from tal_lib.cli import main
from tal_lib.data import load_benchmark
from tal_lib.training import detect_all, load_model

LABELS = {"wave": 0, "clap": 1, "jump": 2}  # not in alphabetical order
D, C = 6, 32
OPTIONS = {"width": C, "head_width": C, "padded_steps": 64}


@pytest.fixture
def clips(tmp_path, released_weights):
    """A benchmark of two recordings, and a released file that fits it."""
    rows = [
        {"segment": [i * 5.0, i * 5.0 + 4], "label": label, "label_id": number}
        for i, (label, number) in enumerate(LABELS.items())
    ]
    folder = tmp_path / "clips"
    (folder / "features").mkdir(parents=True)
    database = {
        name: {"subset": subset, "duration": 24.0, "annotations": rows}
        for name, subset in (("a", "training"), ("b", "testing"))
    }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "features" / "spec.json").write_text(
        json.dumps({"streams": {"features": D}, "stride_s": 0.5, "window_s": 0.5})
    )
    for seed, name in enumerate(database):
        features = np.random.default_rng(seed).standard_normal((48, D), np.float32)
        np.save(folder / "features" / f"{name}.npy", features)
    torch.save(
        {"epoch": 34, "state_dict_ema": released_weights(D, len(LABELS), C)}, tmp_path / "epoch_034.pth.tar"
    )
    return folder


def test_detections_of_a_released_file(clips, tmp_path, capsys):
    """Detections are the loaded model's; label_id names their classes; the written model gives the same."""
    file, out = tmp_path / "epoch_034.pth.tar", tmp_path / "out"
    command = ["released", "temporalmaxer", str(file), "--benchmark", str(clips), "--out", str(out)]
    command += [text for key, value in OPTIONS.items() for text in ("--set", f"{key}={value}")]
    assert main([*command, "--annotations", str(clips / "annotations.json")]) == 0
    assert "avg mAP" in capsys.readouterr().out
    model = models.load_checkpoint("temporalmaxer", file, **OPTIONS)
    table = detect_all(model, load_benchmark(clips), ["b"])
    order = dict(zip(("clap", "jump", "wave"), LABELS))
    written = json.loads((out / "detections.json").read_text())["results"]["b"]
    assert [row["label"] for row in written] == [order[label] for label in table.label]
    trained = load_model(out / "model.pt")
    assert trained.classes == tuple(LABELS)
    written = trained.model.state_dict()
    assert trained.model.config == model.config
    assert all(torch.equal(written[key], value) for key, value in model.state_dict().items())
    assert main([*command, "--annotations", str(tmp_path / "none.json")]) == 2
    assert main([*command[:4], "synthetic", *command[5:]]) == 2
    assert f"epoch_034.pth.tar: {D} feature columns, but synthetic has" in capsys.readouterr().err
    assert main(["detect", str(clips / "features"), "--model", str(file)]) == 2
    assert "`tal released`" in capsys.readouterr().err
