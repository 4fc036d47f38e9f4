"""ActionFormer, TriDet and TemporalMaxer beside their authors' code, where its clones are at hand."""

import importlib
import os
from pathlib import Path

import pytest

from tal_lib import models

CODE = os.environ.get("TAL_AUTHORS_CODE")
REPOSITORY = Path(__file__).resolve().parents[2]
needs_clones = pytest.mark.skipif(
    not CODE, reason="set TAL_AUTHORS_CODE to a folder with clones of the authors' repositories"
)


# read off the authors' models, built by their code
@pytest.mark.parametrize(
    ("name", "shape", "options", "parameters"),
    [
        ("actionformer", (2048, 20), {}, 29_251_612),
        ("tridet", (2048, 20), {}, 15_989_604),
        ("temporalmaxer", (2048, 20), {}, 7_117_852),
        ("temporalmaxer", (1024, 65), {"neck_norm": "layer", "embedding_layers": 3}, 6_402_633),
    ],
)
def test_paper_models_have_the_parameters_of_the_released_ones(name, shape, options, parameters):
    model = models.build(name, input_dim=shape[0], num_classes=shape[1], preset="paper", **options)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.fixture(scope="module", params=["actionformer_release", "tridet", "temporalmaxer"])
def pair(request):
    """The comparison of one repository, our model and theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        pyramids = importlib.import_module("experiments.authors.pyramids")
        comparison = importlib.import_module(f"experiments.authors.{request.param}")
    theirs = pyramids.authors_model(Path(CODE) / comparison.FOLDER, comparison.PUBLISHED)
    return pyramids, comparison, pyramids.released_stand_in(comparison.PUBLISHED.model, theirs), theirs


@needs_clones
@pytest.mark.parametrize("rows", ["count_rows", "forward_rows", "decoding_rows"])
def test_ours_equals_theirs(pair, rows):
    """Parameters and MACs; raw outputs and detections of a released file's stand-in at four lengths."""
    pyramids, comparison, ours, theirs = pair
    for row in getattr(pyramids, rows)(comparison.PUBLISHED, ours, theirs):
        assert row.difference <= row.limit, row


@needs_clones
@pytest.mark.parametrize("name", ["EPIC-Kitchens verb", "MultiTHUMOS"])
def test_temporalmaxer_with_layer_norm_equals_theirs(pair, name):
    _, comparison, _, _ = pair
    if comparison.FOLDER != "TemporalMaxer":
        pytest.skip("a setting of TemporalMaxer")
    setting = comparison.LAYER_NORM[name]
    for row in comparison.layer_norm_rows(Path(CODE) / comparison.FOLDER, name, *setting):
        assert row.difference <= row.limit, row
