"""A saved model keeps the value of every option, so that it stays true when a default changes."""

from dataclasses import asdict

import pytest
import torch

from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.models.parts import registry
from tal_lib.training.checkpoints import Trained, load_model, save_model


@pytest.mark.parametrize("name", models.names())
def test_every_option_is_in_the_file(name, tmp_path):
    model = models.build(name, input_dim=6, num_classes=2, max_detections=7).eval()
    spec = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"all": 6})
    path = save_model(tmp_path / "model.pt", Trained(model, ("a", "b"), spec, None))
    kept = torch.load(path, weights_only=True)["spec"]["overrides"]
    assert kept == asdict(model.config) and kept["post"]["max_detections"] == 7
    assert load_model(path).model.config == model.config


def test_a_default_that_changes_does_not_change_a_saved_model(tmp_path, monkeypatch):
    model = models.build("local_global", input_dim=6, num_classes=2).eval()
    spec = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"all": 6})
    path = save_model(tmp_path / "model.pt", Trained(model, ("a", "b"), spec, None))
    entry = registry._MODELS["local_global"]
    changed = registry.override(entry.presets["compact"], norm="layer", latents=8, max_detections=3)
    monkeypatch.setitem(entry.presets, "compact", changed)
    assert models.config("local_global").latents == 8
    assert load_model(path).model.config == model.config
