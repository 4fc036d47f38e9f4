"""From features to detections in `tal detect`: in windows, where the answer stays that of the whole video."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.data.tables import DETECTION_COLUMNS
from tal_lib.evaluation import read_detections
from tal_lib.export import export
from tal_lib.exported import Exported
from tal_lib.models.parts import streamed
from tal_lib.models.parts.streamed import WINDOW
from tal_lib.training import Trained
from tal_lib.training.checkpoints import Statistics
from tal_lib.video import detect
from tal_lib.video.detect import Ready

STEPS, CLASSES = 400, ("a", "b", "c")


def chosen(name):
    torch.manual_seed(0)
    model = models.build(name, input_dim=8, num_classes=3).eval()
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"all": 8})
    statistics = Statistics(np.full(8, 0.5, np.float32), np.full(8, 2.0, np.float32))
    return Ready(model, CLASSES, spec, None, statistics)


@pytest.mark.parametrize("name", ["window_cnn", "temporalmaxer"])
def test_an_exported_graph_sees_the_whole_recording(name, tmp_path):
    model = chosen(name)
    folder = export(Trained(model.model, CLASSES, model.spec, None), tmp_path / "graph", "torchscript")
    exported = Ready(Exported(folder, trust=True), CLASSES, model.spec, None, model.statistics)
    features = np.random.default_rng(0).normal(size=(WINDOW + 100, 8)).astype(np.float32)
    seconds = len(features) / 2
    ours, theirs = (detect.localized(each, features, "video", seconds) for each in (model, exported))
    assert len(ours) and ours.label.tolist() == theirs.label.tolist()
    np.testing.assert_allclose(ours.score, theirs.score, atol=1e-4)


def test_an_exported_graph_has_no_windows(tmp_path):
    model = chosen("window_cnn")
    folder = export(Trained(model.model, CLASSES, model.spec, None), tmp_path / "graph", "torchscript")
    exported = Ready(Exported(folder, trust=True), CLASSES, model.spec, None, model.statistics)
    with pytest.raises(TalError, match="an exported model needs the whole recording.*--windowed"):
        detect.localized(exported, np.zeros((STEPS, 8), np.float32), "video", STEPS / 2, merged=True)


@pytest.fixture
def runs(monkeypatch):
    """What the runs on single windows were given."""
    runs, once = [], streamed.Streamed._run
    monkeypatch.setattr(streamed.Streamed, "_run", lambda self, last: [runs.append(last), once(self, last)])
    return runs


@pytest.mark.parametrize("name", ["local_global", "ssn"])
def test_models_that_see_the_whole_recording_can_run_in_windows(name, runs):
    """Their candidates are merged: the detections are others, from the whole recording all the same."""
    model, steps = chosen(name), 3 * STEPS
    features = np.random.default_rng(0).normal(size=(steps, 8)).astype(np.float32)
    windows = streamed.windows_for(model.model, 512)
    table = detect.localized(model, features, "video", steps / 2, windows, merged=True)
    assert len(runs) > 1 and table.start.min() < 40 and table.end.max() > steps / 2 - 40


@pytest.mark.parametrize(("name", "in_windows"), [("bilstm", True), ("local_global", False)])
def test_a_long_video_has_the_same_detections_in_windows(name, in_windows, runs):
    features = np.random.default_rng(0).normal(size=(STEPS, 8)).astype(np.float32)
    whole = detect.localized(chosen(name), features, "video", STEPS / 2)
    assert runs == [] and len(whole)
    model = chosen(name)
    ours = detect.localized(model, features, "video", STEPS / 2, streamed.windows_for(model.model, 256))
    assert (len(runs) > 1) == in_windows
    assert ours.label.tolist() == whole.label.tolist() and set(ours.recording) == {"video"}
    columns = ["start", "end", "score"]
    np.testing.assert_allclose(ours[columns].to_numpy(), whole[columns].to_numpy(), atol=1e-4)


def test_a_name_that_a_spreadsheet_would_calculate_is_written_as_text(tmp_path):
    """A class or a video may be called as a formula; the table is read back with the same names."""
    rows = [("=1+1", 1.0, 2.0, "=HYPERLINK(0)", 0.9), ("=1+1", 3.0, 4.0, "'-x", 0.5)]
    table = pd.DataFrame(rows, columns=DETECTION_COLUMNS)
    reader = SimpleNamespace(seconds=8.0)
    written = detect.write_all("=1+1.mp4", table, reader, ("=HYPERLINK(0)", "'-x"), tmp_path)
    assert (tmp_path / "=1+1.csv").read_text().splitlines()[1:] == [
        "'=1+1,1.0000,2.0000,'=HYPERLINK(0),0.9000",
        "'=1+1,3.0000,4.0000,''-x,0.5000",
    ]
    for path in written[:2]:
        pd.testing.assert_frame_equal(read_detections(path), table, check_dtype=False)
