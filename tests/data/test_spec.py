"""spec.json: what is read, what is refused by name, and that the time axis is the right one at any frame
rate."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import load_benchmark
from tal_lib.data.features import resize
from tal_lib.data.spec import FolderSpec, example_spec, read_spec, time_axis
from tal_lib.evaluation import mean_average_precision
from tal_lib.validation import Rate, validate

STREAMS = {"x": 8}


def written(tmp_path, content):
    (tmp_path / "spec.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"stride_s": 0.5}, "streams is missing"),
        ({"streams": STREAMS}, "none of stride_s, stride_frames, resize"),
        ({"streams": {}, "stride_s": 1}, "streams"),
        ({"streams": 8, "stride_s": 1}, "streams: 8 is not a mapping"),
        ({"streams": ["rgb"], "stride_s": 1}, "streams: .* is not a mapping"),
        *(
            ({"streams": {"x": width}, "stride_s": 1}, "streams.x: .* is not")
            for width in ("wide", 0, -3, 2.5, True, float("nan"), [8], {}, 10**7, 10**40, None)
        ),
        *(
            ({"streams": STREAMS, name: value}, f"{name}: .* is not")
            for name in ("stride_s", "stride_frames", "resize")
            for value in ("half", "", 0, -1, True, float("nan"), float("inf"), [0.5], {}, 1e300)
        ),
        *(
            ({"streams": STREAMS, "stride_s": 1, name: value}, f"{name}: .* is not")
            for name in ("window_s", "fps")
            for value in ("long", 0, -25, True, float("nan"), float("inf"), [25], 1e300)
        ),
        *(
            ({"streams": STREAMS, "stride_frames": 4, "fps": rate}, "fps: .* is not a rate")
            for rate in ("30/0", "a/b", "/", "1/2/3")
        ),
        ({"streams": STREAMS, "resize": 10_000_000}, "resize: 10000000 is not at most 20000"),
        ({"streams": STREAMS, "resize": 99.5}, "resize: 99.5 is not a whole number"),
        ({"streams": STREAMS, "stride_s": 1, "stride_frames": 4}, "stride_s and stride_frames"),
        ({"streams": STREAMS, "stride_s": 1, "stride_frames": 4, "resize": 9}, "stride_s and stride_frames"),
        ({"streams": STREAMS, "stride_s": 1, "window_frames": 4}, "window_frames without stride_frames"),
        ({"streams": STREAMS, "resize": 100, "window_s": 1}, "window_s without stride_s"),
        ({"streams": STREAMS, "stride": 1}, "unknown spec entry 'stride'.*Did you mean stride_s"),
        ({"streams": {"../x": 8}, "stride_s": 1}, "streams"),
        ({"streams": {"a/b": 8}, "stride_s": 1}, "a name of a stream"),
        ({"streams": STREAMS, "stride_s": 1, "backbone": 5}, "backbone: 5 is not text"),
        ([1, 2], "list, not an object"),
        ("null", "NoneType, not an object"),
        ("3", "int, not an object"),
        ("{", "not valid JSON"),
        ('{"streams": {"x": 8}, "streams": {"x": 9}}', "'streams' is listed twice"),
        ('{"streams": {"x": %s}}' % ("9" * 400), "integer of 400 digits"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    with pytest.raises(TalError, match=message) as error:
        read_spec(written(tmp_path, content))
    assert str(tmp_path / "spec.json") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"stride_s": ".5"}, {"stride_s": 0.5}),
        ({"stride_s": "5e-1", "window_s": 1}, {"stride_s": 0.5, "window_s": 1.0}),
        ({"stride_frames": 15, "fps": "30000/1001"}, {"stride_frames": 15.0, "fps": 30000 / 1001}),
        (
            {"stride_frames": 4, "window_frames": 16, "fps": None},
            {"stride_frames": 4.0, "window_frames": 16.0},
        ),
        ({"resize": "100"}, {"resize": 100}),
        ({"stride_s": 1, "backbone": "i3d"}, {"stride_s": 1.0, "backbone": "i3d"}),
    ],
)
def test_numbers_as_people_write_them(tmp_path, content, expected):
    text = "\ufeff" + json.dumps({"streams": STREAMS} | content)
    assert read_spec(written(tmp_path, text)) == FolderSpec(streams=STREAMS, **expected)


def test_what_a_file_gives_replaces_the_default(tmp_path):
    default = FolderSpec(streams={"rgb": 4}, stride_frames=4, window_frames=16, fps=30)
    assert read_spec(tmp_path, default) == default
    assert read_spec(written(tmp_path, {"fps": 25}), default) == FolderSpec(
        streams={"rgb": 4}, stride_frames=4, window_frames=16, fps=25
    )
    assert read_spec(written(tmp_path, {"stride_frames": 8}), default) == FolderSpec(
        streams={"rgb": 4}, stride_frames=8, fps=30
    )
    with pytest.raises(TalError, match="spec.json: feature spec not found.*stride_s"):
        read_spec(tmp_path / "nowhere")


def table(*rates):
    return pd.DataFrame({"recording": [f"r{i}" for i in range(len(rates))], "duration": 60.0, "fps": rates})


def test_the_order_of_frame_rates():
    """The annotation's own, else the spec's, else none: a rate is never assumed."""
    spec = FolderSpec(streams=STREAMS, stride_frames=10, fps=20)
    recordings, about = time_axis(spec, table(25.0, np.nan), "spec.json")
    assert recordings.stride_s.tolist() == [10 / 25, 10 / 20] == recordings.window_s.tolist()
    assert (about.stride_s, about.window_s) == (0.5, 0.5)
    bare = FolderSpec(streams=STREAMS, stride_frames=10)
    with pytest.raises(TalError, match='spec.json: .*1 of 2 recordings have no fps.*first r1.*"fps": 25'):
        time_axis(bare, table(25.0, np.nan), "spec.json")
    assert time_axis(bare, table(25.0, 25.0), "spec.json")[1].stride_s == 0.4


def test_thirty_is_taken_for_thumos14_alone_and_said(tmp_path):
    entry = {"subset": "test", "duration": 20.0, "annotations": [{"segment": [1, 4], "label": "x"}]}
    (tmp_path / "thumos14").mkdir()
    database = {"v0": entry, "v1": entry | {"fps": 25, "subset": "validation"}}
    (tmp_path / "thumos14" / "thumos14.json").write_text(json.dumps({"database": database}))
    data = load_benchmark("thumos14", tmp_path)
    assert data.time_axis("v0") == (4 / 30, 16 / 30) and data.time_axis("v1") == (4 / 25, 16 / 25)
    assert "1 have no fps in the annotations; 30 is taken" in str(data.notes[0])


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(1, 240),
    stride=st.integers(1, 64),
    window=st.none() | st.integers(1, 64),
    step=st.integers(0, 5000),
)
def test_steps_lie_where_their_frames_are(rate, stride, window, step):
    """Step t is centred at (t · stride + window / 2) / rate, whatever the rate; without a window it sees
    its stride."""
    spec = FolderSpec(streams=STREAMS, stride_frames=stride, window_frames=window)
    recordings, _ = time_axis(spec, table(rate), "spec.json")
    stride_s, window_s = recordings[["stride_s", "window_s"]].iloc[0]
    assert step * stride_s + window_s / 2 == pytest.approx((step * stride + (window or stride) / 2) / rate)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([15.0, 25.0, 29.97]),
    stride=st.integers(1, 64),
    window=st.none() | st.integers(1, 64),
    count=st.integers(1, 500),
    resize=st.integers(1, 300),
)
def test_resampled_steps_share_what_the_features_cover(rate, stride, window, count, resize):
    """ActionFormer's rule: a step is ((T − 1) · stride + window) / steps frames, and so is its window."""
    spec = FolderSpec(streams=STREAMS, stride_frames=stride, window_frames=window, resize=resize)
    recordings, about = time_axis(spec, table(rate), "spec.json", lambda recording: count)
    step = ((count - 1) * stride + (window or stride)) / resize / rate
    assert recordings[["stride_s", "window_s"]].iloc[0].tolist() == pytest.approx([step, step])
    assert about.stride_s == pytest.approx(step)
    missing, _ = time_axis(spec, table(rate), "spec.json", lambda recording: None)
    assert missing.stride_s.iloc[0] == pytest.approx(table(rate).duration.iloc[0] / resize)


@pytest.mark.parametrize(("steps", "resampled"), [(112, 192), (400, 192), (192, 192), (1, 5), (7, 1)])
def test_resampling_is_linear_interpolation_between_centres(steps, resampled):
    features = np.random.default_rng(0).standard_normal((steps, 3)).astype(np.float32)
    columns = torch.from_numpy(features.T.astype(float))[None]
    want = F.interpolate(columns, resampled, mode="linear", align_corners=False)
    np.testing.assert_allclose(resize(features, resampled), want[0].T.numpy(), atol=1e-5)


def test_a_folder_of_resampled_features(clips):
    """119 steps of 1 s every 0.5 s cover 60 s, although the recording is said to last 90 s."""
    spec, scores = {"streams": {"features": 8}, "resize": 60}, {}
    for name, stride in (("duration", {}), ("covered", {"stride_s": 0.5, "window_s": 1.0})):
        folder = clips(1, 4, name=name, spec=spec | stride, duration=90.0)
        data = load_benchmark(folder)
        recording = data.recordings("train")[0]
        assert data.features(recording).shape == (60, 8) and data.duration(recording) == 90.0
        step = 1.0 if stride else 1.5
        assert data.time_axis(recording) == pytest.approx((step, step))
        scores[name] = score_of_a_threshold(data)
    assert scores["covered"] > 0.5 > 0.1 > scores["duration"]
    (folder / "features" / f"{recording}.npy").unlink()
    assert load_benchmark(folder).time_axis(recording) == pytest.approx((1.5, 1.5))


def smooth(values):
    return np.convolve(values, np.ones(5) / 5, "same")


def score_of_a_threshold(data):
    """avg mAP of the runs of steps whose features are high, at the times that the benchmark's time axis
    says."""
    rows = []
    for recording in data.recordings("test"):
        stride_s, window_s = data.time_axis(recording)
        for column, label in ((0, "wave hand"), (1, "jump")):
            active = np.r_[0, smooth(data.features(recording)[:, column]) > 2, 0].astype(int)
            change = np.diff(active)
            for first, last in zip(np.flatnonzero(change > 0), np.flatnonzero(change < 0)):
                start, end = first * stride_s + window_s / 2, (last - 1) * stride_s + window_s / 2
                rows.append((recording, start, end, label, end - start))
    detections = pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score"])
    return mean_average_precision(data.annotations("test"), detections, data.tious).mean()


@pytest.mark.parametrize("rate", [25, 24, "30000/1001", 50])
def test_clips_at_any_rate_give_what_thirty_gives(clips, rate):
    """Clips of one content whose steps are 6 frames apart: the right time axis gives the same avg mAP at
    any rate."""
    scores = {}
    for name, fps in (("thirty", 30), ("other", rate)):
        seconds = 6 / validate(Rate, fps)
        spec = {"streams": {"features": 8}, "stride_frames": 6}
        folder = clips(1, 4, name=name, stride_s=seconds, window_s=seconds, spec=spec, fps=fps)
        scores[name] = score_of_a_threshold(load_benchmark(str(folder)))
    assert scores["thirty"] > 0.95 and scores["other"] == pytest.approx(scores["thirty"], abs=0.05)
    (folder / "features" / "spec.json").write_text(
        json.dumps({"streams": {"features": 8}, "stride_s": 6 / 30})
    )
    wrong = score_of_a_threshold(load_benchmark(str(folder)))  # as if the rate were 30: the fault would show
    assert wrong < 0.7 or rate == "30000/1001"


def test_a_missing_spec_prints_one_that_works(clips, capsys):
    folder = clips(spec=None)
    assert main(["data", "check", str(folder)]) == 2
    error = capsys.readouterr().err
    example = error[error.index("{") : error.rindex("}") + 1]
    assert json.loads(example) == {"streams": {"features": 8}, "stride_s": 0.504}
    (folder / "features" / "spec.json").write_text(example)
    assert main(["data", "check", str(folder)]) == 0


def test_a_missing_spec_of_streams_apart(clips):
    folder = clips(spec=None)
    for stream, width in (("rgb", 3), ("flow", 2)):
        (folder / "features" / stream).mkdir()
        for file in folder.glob("features/*.npy"):
            np.save(folder / "features" / stream / file.name, np.load(file)[:, :width])
    for file in folder.glob("features/*.npy"):
        file.unlink()
    with pytest.raises(TalError, match=r'{"flow": 2, "rgb": 3}, "stride_s": 0.504}'):
        load_benchmark(str(folder))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    dim=st.integers(1, 50),
    steps=st.lists(st.integers(1, 500), min_size=2, max_size=8, unique=True),
    turned=st.booleans(),
    stride=st.sampled_from([0.1, 0.4, 0.5, 2.0]),
)
def test_an_example_holds_what_the_files_show(dim, steps, turned, stride):
    """Columns are what the files share, however they are turned; the stride is what covers the durations."""
    shapes = {f"r{i}": (dim, n) if turned else (n, dim) for i, n in enumerate(steps)}
    text, _ = example_spec({"one": shapes}, {f"r{i}": n * stride for i, n in enumerate(steps)})
    assert json.loads(text) == {"streams": {"one": dim}, "stride_s": pytest.approx(stride)}


def test_an_example_of_resized_features():
    shapes = {"one": {"a": (100, 8), "b": (100, 8)}}
    assert json.loads(example_spec(shapes, {"a": 60, "b": 200})[0]) == {"streams": {"one": 8}, "resize": 100}
