"""The whole way from a file: its parts, its shares, and memory that does not depend on the length."""

import itertools
import re
import tracemalloc
import types
from dataclasses import asdict

import numpy as np
import pytest

from tal_lib import TalError, models
from tal_lib.cli import main
from tal_lib.cli.cost import NAMES
from tal_lib.data import FeatureSpec
from tal_lib.process.parts import Parts, real_time_factor
from tal_lib.training import Trained
from tal_lib.training.checkpoints import folder_files
from tal_lib.video import Reader, backbone, write_video
from tal_lib.video import end_to_end as whole_way
from tal_lib.video.extract import BATCH, Sampling, feature_steps, features_of
from tal_lib.video.long_videos import SIZES, repeat, video_of

SAMPLING = Sampling(fps=8, window=4, stride=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(45)]
    return write_video(tmp_path_factory.mktemp("way") / "noise.mp4", pictures, 10)


def test_parts_and_shares_of_a_video_add_up(video):
    (row,) = whole_way.end_to_end(video, "hog-hof", ["window_cnn"], num_classes=3, threads=1)
    assert row.parts == {
        "decoding": row.decoding_s,
        "features": row.features_s,
        "network": row.network_s,
        "decode and NMS": row.decode_nms_s,
    }
    for part, seconds in row.parts.items():
        assert 0 < seconds == pytest.approx(row.shares[part] * sum(row.parts.values()))
    assert row.total_s == pytest.approx(row.extraction_wall_s + row.network_s + row.decode_nms_s)
    assert row.real_time_factor == pytest.approx(row.total_s / row.video_s)
    assert row.video_s == pytest.approx(4.5, abs=1e-6) and (row.width, row.height) == (64, 48)
    assert row.feature_macs is None and row.network_macs > 0 and not row.uncounted_ops
    features, _ = features_of(video, backbone("hog-hof"), whole_way.SAMPLINGS["hog-hof"])
    assert row.steps == len(features)


def test_the_live_way_counts_the_parts_of_the_live_demo(video):
    row = whole_way.live(video, "hog-hof", "window_cnn", num_classes=3, seconds=3.0, threads=1)
    assert row["video_s"] == pytest.approx(3.0, abs=0.1)
    work = sum(row[f"{part}_s"] for part in ("decoding", "features", "localization"))
    assert min(row[f"{part}_s"] for part in whole_way.LIVE_PARTS) > 0
    assert row["real_time_factor"] == pytest.approx(work / row["video_s"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "none.mp4", "--model", "bilstm"], "none.mp4: file not found"),
        (["--video", "none.mp4"], "no model"),
        (["--video", "none.mp4", "--model", "nonesuch"], "nonesuch"),
        (["--video", "none.mp4", "--model", "bilstm", "--backbone", "resnet"], "unknown backbone 'resnet'"),
        (
            ["--video", "none.mp4", "--model", "bilstm", "--length", "8"],
            "--length cannot be used with --video",
        ),
        (["--video", "none.mp4", "--model", "bilstm", "--device", "cuda"], "--device cuda"),
        (["bilstm", "--length", "8"], "--dim is missing"),
        (["bilstm", "--length", "8", "--dim", "4", "--backbone", "hog-hof"], "--backbone needs --video"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message, capsys):
    assert main(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_prints_parts_that_add_up(video, capsys):
    given = ["--video", str(video), "--backbone", "hog-hof", "--model", "window_cnn"]
    assert main(["cost", *given, "--classes", "3", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"{video}: 4.5 s, 64 x 48, 10 frames/s;" in printed
    value = lambda name: float(re.search(rf"^{name} +([\d.]+)$", printed, re.M)[1])
    shares = {part: value(f"{NAMES[part]} %") for part in whole_way.PARTS}
    seconds = {part: value(f"{NAMES[part]} s/min") for part in whole_way.PARTS}
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)  # each is rounded to a tenth
    for part in whole_way.PARTS:
        assert shares[part] == pytest.approx(100 * seconds[part] / sum(seconds.values()), abs=0.2)
    assert value("total s/min") == pytest.approx(60 * value("real-time factor"), abs=0.004)
    assert value("total s/min") > seconds["network"] + seconds["decode and NMS"]


def test_a_model_folder_is_measured_as_its_model(tmp_path, video):
    """The folder of a trained model costs the MACs of the same architecture by name."""
    chosen, sampling = backbone("hog-hof"), whole_way.SAMPLINGS["hog-hof"]
    spec = FeatureSpec(stride_s=sampling.stride_s, window_s=sampling.window_s, streams=dict(chosen.streams))
    model = models.build("window_cnn", input_dim=spec.dim, num_classes=3)
    for name, content in folder_files(Trained(model, ("a", "b", "c"), spec, None), "float32", {}).items():
        (tmp_path / name).write_bytes(content)
    given = ["window_cnn", str(tmp_path), str(tmp_path / "model.safetensors")]
    named, *trained = whole_way.end_to_end(video, "hog-hof", given, num_classes=3, threads=1)
    for row in trained:
        assert row.model == "window_cnn" and row.network_macs == named.network_macs
    with pytest.raises(TalError, match="no model is trained"):
        whole_way.end_to_end(video, "hog-hof", ["window_cnn"], frames_per_step=8, threads=1)
    (row,) = whole_way.end_to_end(video, "hog-hof", given[1:2], frames_per_step=8, threads=1)
    assert row.described_per_s == named.described_per_s / 2 and row.stride_s == named.stride_s


@pytest.mark.parametrize("name", whole_way.SAMPLINGS)
def test_a_trained_model_is_measured_at_the_rate_of_extraction(name, tmp_path, video, monkeypatch):
    """`tal extract` and `tal detect` describe 16 frames a step, with every backbone."""
    columns, seen = types.SimpleNamespace(streams={"rgb": 8}, size=None), []
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams=columns.streams)
    model = models.build("window_cnn", input_dim=spec.dim, num_classes=3)
    for file, content in folder_files(Trained(model, ("a", "b", "c"), spec, None), "float32", {}).items():
        (tmp_path / file).write_bytes(content)
    monkeypatch.setattr(whole_way, "backbone", lambda name, trained: columns)
    monkeypatch.setattr(whole_way, "isolated", lambda *_, sampling, **more: seen.append(sampling) or [])
    whole_way.end_to_end(video, name, [str(tmp_path)], threads=1)
    assert seen == [asdict(Sampling(fps=16, window=16, stride=8))]


def test_a_live_run_that_fails_is_no_measurement(video, in_this_process, monkeypatch):
    in_this_process(whole_way)
    monkeypatch.setattr(whole_way, "keep_freed", lambda: None)
    monkeypatch.setattr(whole_way.LiveDetector, "push", lambda self, pictures: 1 / 0)
    with pytest.raises(TalError, match="of the live demo failed"):
        whole_way.live(video, "hog-hof", "window_cnn", num_classes=3, seconds=1.0, threads=1)


def test_decoding_ahead_changes_no_feature(video):
    model, steps = backbone("hog-hof"), {}
    for ahead in (False, True):
        reader = Reader(video, SAMPLING.rate, model.size)
        steps[ahead] = np.stack(list(feature_steps(reader, model, SAMPLING, ahead=ahead)))
    assert np.array_equal(steps[False], steps[True]) and len(steps[True]) > 10


def test_memory_of_extraction_does_not_grow_with_the_video():
    """Pictures of a video that is five times as long need no more memory."""
    model, peaks = backbone("hog-hof"), []
    for count in (4 * BATCH, 20 * BATCH):
        pictures = (np.full((192, 256, 3), index % 200, np.uint8) for index in range(count))
        tracemalloc.start()
        total = sum(1 for _ in feature_steps(pictures, model, SAMPLING))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == (count - 4) // 2 + 1
    assert peaks[1] < 2 * peaks[0] < 20 * BATCH * 192 * 256  # the garbage of threads varies


def test_a_long_video_repeats_its_minute(tmp_path):
    path = video_of(0.4, 480, seed=1, where=tmp_path)
    assert path == video_of(0.4, 480, seed=1, where=tmp_path)
    repeat(path, tmp_path / "three.mp4", 3)
    once, three = ([*Reader(file, 30)] for file in (path, tmp_path / "three.mp4"))
    assert once[0].shape == (*SIZES[480][::-1], 3) and len(once) == 12 and len(three) == 36
    assert all(np.array_equal(*pair) for pair in zip(itertools.cycle(once), three))


def test_real_time_factor_is_work_per_video():
    parts = Parts()
    with parts.timed("decoding"), parts.timed("features"):
        pass
    assert set(parts.seconds) == {"decoding", "features"}
    assert parts.total(parts.seconds) == pytest.approx(sum(parts.seconds.values()))
    assert parts.total(["features", "drawing"]) == parts.seconds["features"]
    assert real_time_factor(3.0, 60.0) == 0.05 and real_time_factor(1.0, 0.0) is None
