"""Losses, gradients and recipes against the authors' clones, where TAL_AUTHORS_CODE names their folder."""

import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = os.environ.get("TAL_AUTHORS_CODE")
CLONES = {
    "actionformer": ("actionformer_release", "thumos_i3d.yaml", "anet_tsp.yaml"),
    "tridet": ("TriDet", "thumos_i3d.yaml", "anet_tsp.yaml"),
    "temporalmaxer": ("TemporalMaxer", "temporalmaxer_thumos_i3d.yaml", None),
}
pytestmark = pytest.mark.skipif(not CODE, reason="TAL_AUTHORS_CODE does not name a folder of clones")


@pytest.fixture(scope="module")
def training():
    """The comparison; `experiments` is no installed package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        yield importlib.import_module("experiments.authors.pyramid_training")


@pytest.fixture(scope="module", params=CLONES)
def clone(request, training):
    folder, setting, activitynet = CLONES[request.param]
    # training needs neither their compiled NMS nor their parallel evaluation
    joblib = ModuleType("joblib")
    joblib.Parallel = joblib.delayed = None
    modules = {"nms_1d_cpu": ModuleType("nms_1d_cpu"), "joblib": joblib}
    missing = {name: module for name, module in modules.items() if importlib.util.find_spec(name) is None}
    return training.Clone(Path(CODE or "") / folder, request.param, setting, missing, activitynet)


@pytest.mark.parametrize("part", ["start", "recipe", "step", "loss", "activitynet"])
def test_no_difference_is_above_its_limit(training, clone, part):
    if part == "activitynet" and not clone.activitynet:
        pytest.skip("its authors have no setting for ActivityNet")
    table = list(getattr(training, f"{part}_rows")(clone))
    table = [row for row in table if row.limit is not None]
    assert table
    assert [(row.case, row.difference, row.limit) for row in table if row.difference > row.limit] == []
