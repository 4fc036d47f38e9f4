"""Models that read class names take text vectors of any width."""

import pytest
import torch

from tal_lib import models
from tal_lib.models.parts import language


@pytest.mark.parametrize("width", [50, 51, 384])
@pytest.mark.parametrize("name", models.families()["language"])
def test_a_text_encoder_of_any_width(name, width, monkeypatch):
    monkeypatch.setattr(language, "text_dim", lambda encoder: width)
    model = models.build(name, input_dim=6, num_classes=3).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 6, 40))
    assert model.text.shape == (3, width)
    assert all(bool(torch.isfinite(part).all()) for part in outputs if part.is_floating_point())
