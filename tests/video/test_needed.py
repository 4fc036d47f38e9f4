"""A decoder that leaves out frames shows the same pictures as one that decodes all."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.video import Reader
from tal_lib.video.needed import CODECS, needed_frames

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


def decoded_count(path, fps):
    return sum(1 for _ in Reader(path, fps)._decoded())


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


def test_frames_are_left_out(tmp_path):
    path = written(
        tmp_path / "video.mp4", np.arange(240) * 1000, bf="3", **{"b-pyramid": "none", "b_strategy": "0"}
    )
    assert decoded_count(path, 30) == 240
    # 64 frames have others that refer to them, 17 are shown, and the first ones come before it is known
    assert 64 <= decoded_count(path, 2) < 100


@pytest.mark.parametrize("codec", ["libx265", "mpeg4", "libvpx", "libvpx-vp9", "libaom-av1"])
def test_other_codecs(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not in this ffmpeg")
    suffix = "webm" if codec.startswith("libvpx") else "mp4"
    options = {"bf": "2"} if codec.startswith("mpeg") else {"cpu-used": "8"} if codec == "libaom-av1" else {}
    path = written(tmp_path / f"video.{suffix}", np.arange(45) * 1000, codec, **options)
    for fps in (2.0, 16.0):
        expected, got = all_pictures(path, fps), list(Reader(path, fps))
        assert len(got) == len(expected)
        assert all((a == b).all() for a, b in zip(got, expected))


class Packets:
    """Stands for a container and a codec: packets of one frame each, in the order of decoding."""

    name = CODECS[0]
    skip_frame = "DEFAULT"

    def __init__(self, pts, dts=None):
        self.given, self.left_out = [], []
        dts = range(len(pts)) if dts is None else dts
        self.packets = [Packet(self, shown, decoded) for shown, decoded in zip(pts, dts)]


class Packet:
    size, time_base = 1, Fraction(1, 30)

    def __init__(self, decoder, pts, dts):
        self.decoder, self.pts, self.dts = decoder, pts, dts

    def decode(self):
        (self.decoder.left_out if self.decoder.skip_frame == "NONREF" else self.decoder.given).append(
            self.pts
        )
        return [self.pts]


def left_out(pts, dts=None, shown=lambda start, end: False):
    codec = Packets(pts, dts)
    list(needed_frames(codec.packets, codec, shown))
    return codec.left_out


def test_the_last_frame_is_decoded():
    assert left_out([0, 3, 1, 2]) == [0, 1, 2]


def test_frames_last_until_the_next_one_is_shown():
    spans = []
    left_out([0, 3, 1, 2, 7], shown=lambda start, end: spans.append((round(start * 30), round(end * 30))))
    assert spans == [(0, 1), (3, 7), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("pts", "dts"),
    [
        ([0, 1, None, 3, 4], None),  # a field or a frame without a time
        ([0, 1, 2, 3, 4], [0, 1, None, 3, 4]),
        ([10, 20, 30, 15, 25], [0, 1, 2, 0, 1]),  # two recordings in one file: the times start again
    ],
)
def test_everything_is_decoded_where_times_are_irregular(pts, dts):
    assert left_out(pts, dts) == []


def test_an_error_comes_after_the_frames_before_it():
    codec = Packets([0, 1, 2])

    def damaged():
        yield from codec.packets
        raise OSError("the file ends")

    came = []
    with pytest.raises(OSError, match="the file ends"):
        for frame in needed_frames(damaged(), codec, lambda start, end: True):
            came.append(frame)
    assert came == [0, 1, 2]
