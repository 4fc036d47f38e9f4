"""A reader shows the pictures that a simple loop over all frames chooses, whatever the encoding."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.video import Reader
from tal_lib.video.frames import upright

WIDTH, HEIGHT = 64, 48
TICKS = 30_000  # per second


def written(path, times, codec="libx264", **options):
    """A video with a picture at each of these times (in ticks)."""
    random = np.random.default_rng(0)
    canvas = random.integers(0, 255, (HEIGHT + 64, WIDTH + 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        for index, time in enumerate(times):
            at = index % 64
            picture = canvas[at : at + HEIGHT, at : at + WIDTH]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def all_pictures(path, fps):
    """Every frame is decoded; at each time the newest one is shown, and at the end the last one."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    first = frames[0][0]
    frames = [(time - first, picture) for time, picture in frames]
    shown, count = [], 0
    for (_, picture), (until, _) in zip(frames, frames[1:]):
        while count / fps < until - 1e-6:
            shown.append(picture)
            count += 1
    return [*shown, frames[-1][1]]


ENCODINGS = st.fixed_dictionaries(
    {
        "bf": st.integers(0, 8).map(str),
        "b-pyramid": st.sampled_from(["none", "strict", "normal"]),
        "refs": st.integers(1, 8).map(str),
        "g": st.sampled_from(["1", "7", "48", "250"]),
        "flags": st.sampled_from(["+cgop", "-cgop"]),
        "preset": st.sampled_from(["ultrafast", "veryfast"]),
        "b_strategy": st.sampled_from(["0", "1"]),
    }
)
RATES = st.sampled_from([0.7, 1.0, 1.875, 2.0, 5.0, 6.0, 16.0, 24.0, 30.0, 60.0]) | st.floats(0.3, 60)
STEPS = st.lists(st.sampled_from([500, 1000, 1001, 3000, 30_000]), min_size=2, max_size=120)


@settings(deadline=None, max_examples=60)
@given(
    encoding=ENCODINGS,
    fps=RATES,
    steps=STEPS,
    even=st.booleans(),
    suffix=st.sampled_from(["mp4", "mkv", "ts"]),
)
def test_the_same_pictures_come(tmp_path_factory, encoding, fps, steps, even, suffix):
    times = np.arange(90) * 1000 if even else np.cumsum(steps)
    path = written(tmp_path_factory.mktemp("videos") / f"video.{suffix}", times, **encoding)
    expected, got = all_pictures(path, fps), list(Reader(path, fps))
    assert len(got) == len(expected)
    assert all((a == b).all() for a, b in zip(got, expected))


@pytest.mark.parametrize("codec", ["libx265", "mpeg4", "libvpx", "libvpx-vp9", "libsvtav1"])
def test_other_codecs(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not in this ffmpeg")
    suffix = "webm" if codec.startswith("libvpx") else "mp4"
    options = {"bf": "2"} if codec.startswith("mpeg") else {"preset": "12"} if codec == "libsvtav1" else {}
    path = written(tmp_path / f"video.{suffix}", np.arange(45) * 1000, codec, **options)
    for fps in (2.0, 16.0):
        expected, got = all_pictures(path, fps), list(Reader(path, fps))
        assert len(got) == len(expected)
        assert all((a == b).all() for a, b in zip(got, expected))


def test_a_shared_scaler_follows_the_size_and_format_of_each_frame():
    random, scaler = np.random.default_rng(0), VideoReformatter()
    for height, width, kind in [
        (48, 64, "yuv420p"),
        (96, 64, "yuv420p"),
        (48, 64, "yuv444p"),
        (48, 64, "yuv420p"),
    ]:
        picture = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=kind)
        for size in (None, (32, 24)):
            width_and_height = dict(zip(("width", "height"), size or ()))
            alone = frame.to_ndarray(format="rgb24", **width_and_height)
            assert (upright(frame, size, scaler) == alone).all()
