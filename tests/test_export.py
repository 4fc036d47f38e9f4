"""Exported graphs compute what the models do, at any length, and run without torch."""

import io
import json
import logging
import runpy
import subprocess
import sys
import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate
from tal_lib.data.batches import unannotated
from tal_lib.export import Deployed, export, load_graph, parity, rounding
from tal_lib.files import REPOSITORY
from tal_lib.models.parts import boundary_pooling, conv, sampling, scan
from tal_lib.models.parts.attention import LocalAttention
from tal_lib.training import Trained

SCRIPT = REPOSITORY / "examples" / "run_onnx.py"
SMALL = {"width": 16, "head_width": 16, "ranges": ((0, 4), (4, 8), (8, 10_000))}


def trained(small, name="temporalmaxer", **options):
    torch.manual_seed(0)
    model = models.build(
        name, input_dim=small.feature_spec.dim, num_classes=len(small.classes), **options
    ).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    if hasattr(model, "class_out"):
        torch.nn.init.constant_(model.class_out.bias, -1.0)  # so that something is found
    return Trained(model, small.classes, small.feature_spec, None)


def test_onnx_runs_without_torch(small, tmp_path, capsys, monkeypatch):
    """The example has the detections of `tal detect`, as the model's post-processing gives them."""
    pytest.importorskip("onnxruntime")
    kept = trained(small, **SMALL)
    about = json.loads((export(kept, tmp_path, "onnx") / "model.json").read_text())
    with pytest.raises(TalError, match="model.onnx: ONNX Runtime cannot run 30 steps.*Try another format"):
        load_graph(tmp_path / "model.onnx")(
            np.zeros((1, 3, 30), dtype=np.float32), np.ones((1, 30), dtype=bool)
        )  # of another width
    assert (
        about["largest_difference"] < 1e-4
        and about["classes"] == list(small.classes)
        and about["outputs"] == ["segments", "scores"]
    )
    recording = small.recordings("test")[1]
    np.save(tmp_path / "features.npy", small.features(recording))
    blocked = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            blocked,
            SCRIPT,
            tmp_path,
            tmp_path / "features.npy",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    features, times = small.features(recording), small.time_axis(recording)
    seconds = (len(features) - 1) * times[0] + times[1]  # as `tal detect` and the script know them
    features = torch.from_numpy(features.T.copy())
    item = collate([unannotated(recording, features, seconds, *times, small.classes)])
    same_detections(done.stdout, kept.model.detect(item)[0], least=21)
    other = {"multiclass": False, "voting_tiou": 0.6, "voting_weight": "score_tiou", "nms_sigma": 2.0}
    other |= {"max_candidates": 9, "min_segment_steps": 1.5, "score_threshold": 0.15, "min_score": 0.12}
    for options in ({"voting_tiou": 0.0}, other, other | {"max_detections": 5}):
        about["post"] = asdict(models.PostProcess(**options))
        (tmp_path / "model.json").write_text(json.dumps(about))
        plain = models.build(
            "temporalmaxer",
            input_dim=small.feature_spec.dim,
            num_classes=len(small.classes),
            **SMALL,
            **options,
        )
        plain.load_state_dict(kept.model.state_dict())
        monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(tmp_path), str(tmp_path / "features.npy")])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        same_detections(capsys.readouterr().out, plain.detect(item)[0], least=5)


def same_detections(text, ours, least):
    """The script's table has the library's detections, at least so many of them."""
    printed = pd.read_csv(io.StringIO(text))
    ours = ours[ours.score > 0.1].reset_index(drop=True)  # that the script prints
    assert len(printed) == len(ours) >= least and (printed.label == ours.label).all()
    assert np.allclose(printed[["start_s", "end_s"]], ours[["start", "end"]], atol=0.02)
    assert np.allclose(printed.score, ours.score, atol=0.002)


ACTIVITYNET = SMALL | {"position_steps": 50, "global_levels": 1}  # 50: lengths below and beyond the table


@pytest.mark.parametrize(
    "name, options",
    [("local_global", SMALL), ("actionformer", SMALL), ("actionformer", ACTIVITYNET), ("bilstm", {})],
)
def test_torchscript_of_any_length(name, options, small, tmp_path):
    kept = trained(small, name, **options)
    path = export(kept, tmp_path, "torchscript") / "model.ts"
    assert parity(Deployed(kept.model), load_graph(path), [(1, 3), (4, 77), (1, 900)]) < 1e-4


TWO_LEVELS = ACTIVITYNET | {"ranges": ((0, 4), (4, 10_000))}  # one local and one global: quicker to trace


@pytest.mark.parametrize("name, options", [("temporalmaxer", SMALL), ("actionformer", TWO_LEVELS)])
def test_pt2_of_any_length(name, options, small, tmp_path):
    kept = trained(small, name, **options)
    path = export(kept, tmp_path, "pt2") / "model.pt2"
    assert parity(Deployed(kept.model), load_graph(path), [(1, 5), (3, 401)]) < 1e-4


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_an_export_shows_no_warnings_of_torch(form, small, tmp_path, monkeypatch):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    remarks, shown = logging.Handler(), []
    remarks.emit = lambda record: shown.append(record.getMessage())
    monkeypatch.setattr(logging.getLogger("torch.onnx"), "handlers", [remarks])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # not shown by default
        export(trained(small, "window_cnn"), tmp_path, form)
    assert (shown, [str(warning.message) for warning in warned]) == ([], [])


@pytest.mark.parametrize("name", ["bsn", "prn"])
def test_onnx_of_models_that_propose(name, small, tmp_path):
    """Proposal attention, proposal maps, and lists in which proposals with equal scores may swap places."""
    pytest.importorskip("onnxruntime")
    narrow = {"window": 32, "overlap": 16, "max_duration": 16, "width": 16}
    if name == "prn":
        narrow |= {"base_width": 16, "sampled_width": 16, "map_width": 8, "relation_width": 8, "points": 4}
        narrow |= {"heads": 4, "relation_heads": 2}
    kept = trained(small, name, **narrow)
    path = export(kept, tmp_path, "onnx") / "model.onnx"
    assert parity(Deployed(kept.model), load_graph(path), [(1, 31), (2, 150)]) < 1e-4


def test_proposals_are_compared_in_the_order_of_their_segments(small):
    deployed = Deployed(trained(small, "bsn").model)

    def turned(places, by=0.0):
        def graph(features, mask):
            outputs = list(deployed(torch.from_numpy(features), torch.from_numpy(mask)))
            for place in places:
                outputs[place] = outputs[place].flip(1)
            return [*outputs[:-1], outputs[-1] + by]

        return graph

    for places in ((1, 2, 3), (-3, -2, -1), (1, 2, 3, -3, -2, -1)):
        assert parity(deployed, turned(places), [(2, 60)]) < 1e-6
    assert parity(deployed, turned((-3, -2, -1), by=0.5), [(2, 60)]) > 0.01
    assert parity(deployed, turned((-1,)), [(2, 60)]) > 0.01  # logits of other proposals
    assert parity(deployed, turned((), by=float("nan")), [(2, 60)]) == float("inf")


def test_what_float32_loses(small):
    """A model that subtracts a large number again: float32 keeps a twentieth of a millionth of 1,000,000."""

    class Rounded(torch.nn.Module):
        decodes, model = True, trained(small, **SMALL).model

        def forward(self, features, mask):
            return (features + 1_000_000 - 1_000_000,)

    lost = rounding(Rounded(), [(1, 50)])
    assert 0.005 < lost < 0.0625


def test_a_graph_that_answers_otherwise_is_noticed(small):
    kept = trained(small, **SMALL)
    model = Deployed(kept.model)

    def wrong(features, mask):
        segments, scores = (
            output.detach().numpy().copy()
            for output in model(torch.from_numpy(features), torch.from_numpy(mask))
        )
        scores[0, -1, 0] += 0.01
        return segments, scores

    assert parity(model, wrong, [(1, 50)]) > 0.005
    assert parity(model, lambda *_: (np.zeros((1, 2)), np.zeros((1, 3))), [(1, 50)]) == float("inf")


def test_what_cannot_be_exported_says_why(small, tmp_path):
    with pytest.raises(TalError, match="ssn cannot be exported: it groups a curve"):
        export(trained(small, "ssn"), tmp_path)
    with pytest.raises(TalError, match="no export format 'tflite'.*onnx"):
        export(trained(small, **SMALL), tmp_path, "tflite")
    with pytest.raises(TalError, match="file not found"):
        load_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize("steps", [1, 7, 63, 64, 65, 300])
def test_layers_compute_the_same_when_exported(steps):
    torch.manual_seed(steps)
    a, b = torch.rand(2, steps, 3, 2), torch.randn(2, steps, 3, 2)
    q, k, v = torch.randn(3, 2, steps, 8).unbind(0)
    keep = (torch.arange(steps) < torch.tensor([steps, max(1, steps - 4)])[:, None]).float()[..., None]
    attention, x = LocalAttention(2, 4), torch.randn(2, steps, 6)
    how = sampling.Sampling(points=4)
    matching = sampling.BoundaryMatching(6, 5, steps=steps, max_duration=9, how=how)
    published = sampling.Sampling(points=4, samples=3, context=0.5, context_steps=1, hold_start=True)
    by_end = sampling.BoundaryMatching(
        6, 5, steps=steps, max_duration=9, how=published, by_end=True, empty_bias=True
    )
    first = torch.randint(0, steps, (2, 20))
    last = (first + torch.randint(0, steps, (2, 20))).clamp(max=steps - 1)
    calls = [
        lambda: scan.linear_scan(a, b),
        lambda: attention(q, k, v, keep) * keep,
        lambda: boundary_pooling.range_max(x, first, last),
        lambda: matching(x).detach(),
        lambda: by_end(x).detach(),
    ]
    plain = [call() for call in calls]
    with conv.for_any_length():
        for before, call in zip(plain, calls):
            torch.testing.assert_close(call(), before, atol=1e-5, rtol=1e-4)
