"""Videos with odd names, metadata and contents: each is read as a file, or costs one line."""

import importlib
import os
import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.errors import one_line
from tal_lib.video import Reader, extract, write_video
from tal_lib.video.detect import Ready, detect
from tal_lib.video.extract import Sampling
from tal_lib.video.frames import MOST_PIXELS, upright
from tal_lib.video.source import Source

from .test_live import SPEC, detector

NAMES = [
    b"10:30.mp4",
    b"-x.mp4",
    b"file with spaces.mp4",
    b"http:x.mp4",
    b"file:x.mp4",
    b"concat:a|b.mp4",
    b"100%d.mp4",
    b"a#b?c.mp4",
    b"two\nlines.mp4",
    b"red\x1b[31m.mp4",
    b"caf\xe9.mp4",  # not UTF-8
    "Größe–日本.mp4".encode(),
]


def pictures(count=12, size=(64, 48)):
    for index in range(count):
        yield np.full((size[1], size[0], 3), (10 + 5 * index) % 256, np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4", pictures(), 10)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The same pictures in a fifth of a second: the source of the live page plays at the pace of a video."""
    return write_video(tmp_path_factory.mktemp("quick") / "plain.mp4", pictures(), 60)


@contextmanager
def inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def named(folder, name, content):
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_every_name_is_a_file(quick, tmp_path, name):
    """By its bare name, as people type it: for `extract` and for the source of the live page."""
    path = named(tmp_path, name, quick.read_bytes())
    taken = []
    with inside(tmp_path):
        assert len(list(Reader(path.name, 60))) == 12
        source = Source(path.name, 60, lambda picture, index: taken.append(index), loop=False).start()
        source._thread.join(20)
        assert source.state == "ended" and len(taken) >= 12 and not source.problem
        table = extract([Path(path.name)], tmp_path / "out", sampling=Sampling(fps=60), progress=False)
    assert table.problem.tolist() == [""] and (tmp_path / "out" / f"{path.stem}.npy").is_file()


def test_a_folder_of_odd_names_is_extracted(video, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for name in NAMES:
        named(tmp_path / "videos", name, video.read_bytes())
    named(tmp_path / "videos", b"bad\nname \xe9.mp4", b"no video")
    assert main(["extract", str(tmp_path / "videos"), "--out", str(tmp_path / "features")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("bad\\nname \\udce9: ") and f"{len(NAMES)} new" in lines[1]
    assert len(list((tmp_path / "features").glob("*.npy"))) == len(NAMES)


def test_errors_are_one_printable_line():
    error = TalError("not\x1b[2J good", where="a\nb\udce9\u2028.mp4", remedy="Rename it.")
    assert str(error) == "a\\nb\\udce9\\u2028.mp4: not\\x1b[2J good. Rename it."
    assert one_line("Größe 日本 … 5 – “x”") == "Größe 日本 … 5 – “x”"


def sound(path, cover=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(
                picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
            )
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tagged(path):
    """A video whose title and stream name are not UTF-8."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLEXXX"
        stream = container.add_stream("mpeg4", rate=10)
        stream.metadata["title"] = "STREAMXX"
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"TITLEXXX" in content
    path.write_bytes(
        content.replace(b"TITLEXXX", b"\xff\xfe\xe9\x80TITL").replace(b"STREAMXX", b"\xc3(\xa0\xa1STRE")
    )
    return path


def sized(path, source, width, height):
    """The same video with another size in its headers."""
    content = bytearray(source.read_bytes())
    at = content.index(b"tkhd") + 4 + 76
    content[at : at + 8] = struct.pack(">II", width << 16, height << 16)
    at = content.index(b"avc1") + 4 + 24
    content[at : at + 4] = struct.pack(">HH", width, height)
    path.write_bytes(content)
    return path


def rotated(path, source):
    """The same video with a display matrix that turns it by 90 degrees, as phones write it."""
    content = bytearray(source.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    content[at : at + 36] = struct.pack(">9i", *turn)
    path.write_bytes(content)
    return path


def huge(path):
    """A real video of more pixels than are allowed; one frame of one colour is small on disk."""
    side = 128 * (int(MOST_PIXELS**0.5) // 128 + 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = side, side, "gray"
        frame = av.VideoFrame(side, side, "gray")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4", "mov"])
def test_metadata_that_is_not_utf8(tmp_path, suffix):
    path = tagged(tmp_path / f"tagged.{suffix}")
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))  # so the file really is what it should be
    assert len(list(Reader(path, 10))) == 12


def test_one_line_each_and_the_rest_goes_on(video, tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    sound(folder / "sound.mp4")
    sound(folder / "cover.mp4", cover=True)
    tagged(folder / "tagged.mkv")
    rotated(folder / "rotated.mp4", video)
    huge(folder / "huge.mkv")
    sized(folder / "promises.mp4", video, 65500, 65500)
    (folder / "text.mp4").write_text("not a video")
    (folder / "cut.mp4").write_bytes(video.read_bytes()[:400])
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile plain.mp4\n")
    (folder / "plain.mp4").write_bytes(video.read_bytes())
    assert main(["extract", str(folder), "--fps", "10", "--out", str(tmp_path / "out")]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    for name, message in {
        "empty": "the file is empty",
        "pipe": "file not found",
        "sound": "has no video frames, only sound",
        "cover": "has no video frames, only sound",
        "huge": "are too large",
        "text": "cannot be opened",
        "cut": "cannot be opened",
    }.items():
        assert message in told.pop(name), name
    assert set(told) <= {"list"} and "failed" in last
    assert {path.stem for path in (tmp_path / "out").glob("*.npy")} >= {
        "tagged",
        "rotated",
        "promises",  # what the pictures themselves say counts
        "plain",
    }


def test_a_rotated_video_is_read_upright(tmp_path):
    """The left half is white. A display matrix of a quarter turn clockwise puts it at the top."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 255
    plain = write_video(tmp_path / "plain.mp4", [picture] * 5, 10)
    turned = next(iter(Reader(rotated(tmp_path / "turned.mp4", plain), 10)))
    assert turned.shape == (64, 48, 3) and turned[:30].min() > 200 and turned[34:].max() < 60
    small = next(iter(Reader(tmp_path / "turned.mp4", 10, (24, 32))))
    assert small.shape == (32, 24, 3) and small[:14].min() > 180 and small[18:].max() < 70
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    assert (upright(frame) == picture).all()


def test_any_other_error_of_one_file_does_not_end_an_extraction(video, tmp_path, monkeypatch):
    module = importlib.import_module("tal_lib.video.extract")  # the function hides its module
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(video.read_bytes())
    whole = module.features_of

    def failing(path, *arguments):
        if path.stem == "b":
            raise MemoryError("no\nroom")
        return whole(path, *arguments)

    monkeypatch.setattr(module, "features_of", failing)
    table = extract(tmp_path, tmp_path / "out", sampling=Sampling(fps=10), progress=False).set_index("video")
    assert table.problem["b"].endswith("b.mp4: cannot be read (MemoryError: no\\nroom)")
    assert table.new.to_dict() == {"a": True, "b": False, "c": True}


def holder(path):
    """The child process of this one that has a file open, or None."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                if any(os.readlink(link) == str(path) for link in Path(f"/proc/{child}/fd").iterdir()):
                    return int(child)
            except OSError:
                continue
    return None


def test_a_killed_worker_costs_its_video_alone(video, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "acd":
        (folder / f"{name}.mp4").write_bytes(video.read_bytes())
    long = write_video(folder / "b.mp4", pictures(3000, (16, 16)), 10)
    tables = []
    thread = threading.Thread(
        target=lambda: tables.append(
            extract(folder, tmp_path / "out", sampling=Sampling(fps=100), workers=2, progress=False)
        )
    )
    thread.start()
    deadline = time.monotonic() + 60
    while (process := holder(long)) is None:
        assert time.monotonic() < deadline and thread.is_alive()
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    thread.join(120)
    table = tables[0].set_index("video")
    assert "its process was killed" in table.problem["b"] and not table.new["b"]
    assert table.new[["a", "c", "d"]].all()


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp"])
def test_a_playlist_that_pretends_to_be_a_video_reaches_no_network(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)  # `Reader` has returned: a connection would wait already
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        text = {
            "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n",
            "ffconcat": f"ffconcat version 1.0\nfile {url}\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9999 RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n",
        }[kind]
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(TalError, match="list.mp4"):
            list(Reader(tmp_path / "list.mp4", 5))
        with pytest.raises(TimeoutError):
            server.accept()


def test_an_address_is_no_file(tmp_path, capsys):
    """Readers of files say so, and do not repeat the password."""
    address = "rtsp://admin:geheim@127.0.0.1/1"
    with pytest.raises(TalError, match="file not found") as error:
        Reader(address, 5)
    assert "geheim" not in str(error.value) and "admin" not in str(error.value)
    assert main(["extract", address, "--out", str(tmp_path / "out")]) == 1
    assert "geheim" not in "".join(capsys.readouterr())


def test_detect_takes_the_same_names(video, tmp_path):
    live = detector()
    for name in NAMES:
        path = named(tmp_path, name, video.read_bytes())
        with inside(tmp_path):
            table, reader = detect(path.name, Ready(live.model, live.classes, SPEC), live.extractor, 8)
        assert not reader.problem and set(table.recording) <= {path.stem} and len(table)
