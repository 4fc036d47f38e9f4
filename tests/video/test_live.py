"""The live stream and its server, with a model that answers from what it sees."""

import http.client
import json
import random
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.models.parts.candidates import Candidates
from tal_lib.video import Backbone, LiveDetector, write_video
from tal_lib.video.demo import Score
from tal_lib.video.live import sampling_of
from tal_lib.video.server import make_app, make_server
from tal_lib.video.source import Source
from tal_lib.video.stream import BUFFER, Stream

SPEC = FeatureSpec(stride_s=0.4, window_s=0.8, streams={"light": 1})


class Bright(models.Detector):
    """`dark` and `bright` segments where the one feature is below or above a half."""

    def __init__(self):
        super().__init__(models.parts.registry.config("bilstm", voting_tiou=0.0), 1, 2)
        self.dummy = torch.nn.Parameter(torch.zeros(1))
        self.slow_s = 0.0

    def forward(self, features, mask=None):
        time.sleep(self.slow_s)
        return (features[:, 0],)

    def candidates(self, outputs, mask):
        steps = (outputs[0][0] > 0.5).int().tolist()
        runs, first = [], 0
        for index in range(1, len(steps) + 1):
            if index == len(steps) or steps[index] != steps[first]:
                runs.append((first - 0.5, index - 0.5, steps[first]))
                first = index
        return [
            Candidates(
                torch.tensor([run[:2] for run in runs]),
                torch.full((len(runs),), 0.9),
                torch.tensor([run[2] for run in runs]),
            )
        ]


def light(pictures, before):
    return pictures.mean((1, 2, 3))[:, None] / 255


def detector(**options):
    extractor = Backbone("light", {"light": 1}, (32, 24), light)
    return LiveDetector(
        Bright(),
        ("dark", "bright"),
        SPEC,
        extractor=extractor,
        window=8,
        delay_s=options.pop("delay_s", 0.4),
        **options,
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds dark, two bright, at 10 frames a second."""
    pictures = [np.full((24, 32, 3), 20 if index < 20 else 230, np.uint8) for index in range(40)]
    return write_video(tmp_path_factory.mktemp("live") / "two.mp4", pictures, 10)


@pytest.fixture
def stream(video):
    running = Stream(str(video), detector()).start()
    yield running
    running.stop()
    assert not running.alive


def wait_for(condition, seconds=10.0):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.02)


def test_answers_are_about_their_time():
    live, answers = detector(), []
    for index in range(60):
        answer = live.push(np.full((1, 24, 32, 3), 20 if index < 30 else 230, np.uint8))
        if answer:
            answers.append(answer)
    assert answers[0].time_s == pytest.approx(0.4)
    assert [round(b.time_s - a.time_s, 3) for a, b in zip(answers, answers[1:])] == [0.4] * (len(answers) - 1)
    assert all(
        answer.label == ("dark" if answer.time_s < 2.6 else "bright")
        for answer in answers
        if abs(answer.time_s - 3) > 0.7
    )
    assert {answer.label for answer in answers} == {"dark", "bright"} and answers[-1].scores == {
        "dark": 0.0,
        "bright": pytest.approx(0.9),
    }
    score = Score([(3.0, 6.0, "bright"), (0.0, 3.0, "dark")])
    for answer in answers:
        score(answer)
    assert score.share > 0.85


def test_a_long_stream_keeps_its_time_and_little_else():
    live = detector(history=10)
    answers = [
        answer
        for index in range(400)
        if (answer := live.push(np.full((1, 24, 32, 3), 20 if index % 80 < 40 else 230, np.uint8)))
    ]
    assert len(live.recent) == 10 and len(live.steps.described) == 8
    assert answers[-1].time_s == pytest.approx(40 - 0.4, abs=0.41)
    right = [answer.label == ("dark" if answer.time_s * 10 % 80 < 40 else "bright") for answer in answers]
    assert np.mean(right) > 0.75
    live.forget()
    assert live.push(np.zeros((1, 24, 32, 3), np.uint8)) is None and not live.recent


def test_a_model_of_other_features_is_refused():
    with pytest.raises(TalError, match="light gives 1 columns, the model takes 2"):
        LiveDetector(
            Bright(),
            ("dark", "bright"),
            FeatureSpec(stride_s=0.4, window_s=0.8, streams={"light": 2}),
            extractor=Backbone("light", {"light": 1}, None, light),
        )
    with pytest.raises(TalError, match="no backbone has the streams"):
        LiveDetector(Bright(), ("dark", "bright"), SPEC)
    with pytest.raises(TalError, match="a delay of 4 s, and the model sees 4 s"):
        detector(history=10, delay_s=4.0)


def test_the_file_is_played_at_its_pace_over_and_over(stream):
    wait_for(lambda: stream.source.rounds >= 1, 8)
    numbers = stream.analytics()
    assert (
        numbers["frames_per_s"] == pytest.approx(10, abs=4)
        and numbers["dropped_frames"] == 0
        and numbers["failures"] == 0
    )
    assert numbers["seconds_by_class"]["dark"] > 0.5 and numbers["seconds_by_class"]["bright"] > 0.5
    # the model's work and the decoding, per second of video; nobody looks, so nothing is drawn
    assert set(stream.parts.seconds) == {"decoding", "features", "localization"}
    assert 0 < numbers["real_time_factor"] < 1 and numbers["drawing_factor"] == 0
    assert numbers["latency_ms"]["p50"] < 1000 and numbers["state"] == "playing" and json.dumps(numbers)


def test_slow_models_drop_frames_and_keep_the_newest(video):
    slow = detector()
    slow.model.slow_s = 2.2
    stream = Stream(str(video), slow).start()
    try:
        wait_for(lambda: stream.dropped > 0, 15)
        assert len(stream._waiting) <= BUFFER
    finally:
        stream.stop()


def test_dropped_frames_count_in_the_times(video):
    """Else every answer after them would be about an earlier part of the video."""
    live, pictures = detector(), np.full((30, 24, 32, 3), 20, np.uint8)
    before = live.push(pictures)
    live.lost += 10
    after = live.push(pictures[:4])
    assert after.time_s - before.time_s == pytest.approx(1.4) and after.label == before.label == "dark"
    slow, answers = detector(), []
    slow.model.slow_s = 2.2
    stream = Stream(str(video), slow, loop=False, on_answer=answers.append).play()
    assert stream.dropped > 0 and slow.frames + slow.lost == stream.frames + stream.dropped == 40
    assert answers[-1].time_s == pytest.approx(4.0 - 0.4, abs=0.41)
    assert sum(stream.seconds.values()) == pytest.approx(answers[-1].time_s, abs=0.41)


def test_a_bad_frame_does_not_end_the_stream(video):
    fragile = detector()
    push, calls = fragile.push, []

    def failing(pictures):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("cannot")
        return push(pictures)

    fragile.push = failing
    stream = Stream(str(video), fragile).start()
    try:
        wait_for(lambda: stream.answers > 0 and stream.failures == 1, 10)
    finally:
        stream.stop()


def test_a_lost_source_says_so_and_comes_back(video, tmp_path, monkeypatch):
    monkeypatch.setattr("tal_lib.video.source.RETRY_S", (0.05, 0.1))
    path = tmp_path / "comes_and_goes.mp4"
    taken = []
    source = Source(str(path), 10, lambda picture, index: taken.append(index)).start()
    try:
        wait_for(lambda: source.state == "lost")
        assert "file not found" in source.problem
        shutil.copy(video, path)
        wait_for(lambda: source.state == "playing" and taken)
        path.write_bytes(b"broken now")
        wait_for(lambda: source.state == "lost", 12)
        shutil.copy(video, path)
        before = len(taken)
        wait_for(lambda: len(taken) > before, 12)
    finally:
        source.stop()


def test_a_network_stream_that_is_not_there(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = Source(f"rtsp://127.0.0.1:{taken.getsockname()[1]}/none", 10, lambda *_: None).start()
        wait_for(lambda: source.state == "lost", 15)
        source.stop()
    assert source.problem


def test_pages(stream):
    client = make_app(stream).test_client()
    wait_for(lambda: stream.answers > 0)
    assert b"Live actions" in client.get("/").data and client.get("/static/live.js").status_code == 200
    assert client.get("/analytics").get_json()["classes"] == ["dark", "bright"]
    assert client.get("/healthz").get_json()["status"] == "ok"
    assert client.get("/nothing").status_code == 404 and client.post("/analytics").status_code == 405
    for path in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/../../etc/passwd",
    ):
        assert client.get(path).status_code in (400, 404)
    response = client.get("/")
    assert (
        response.headers["X-Content-Type-Options"] == "nosniff"
        and "default-src 'none'" in response.headers["Content-Security-Policy"]
    )


def test_a_token_is_asked_for(stream):
    client = make_app(stream, token="secret").test_client()
    assert client.get("/analytics").status_code == client.get("/analytics?token=wrong").status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/analytics", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.get("/?token=secret").status_code == 303  # the token leaves the address
    assert client.get("/").status_code == client.get("/analytics").status_code == 200  # the session
    with pytest.raises(TalError, match="can be reached from other machines.*token"):
        make_server(stream, host="0.0.0.0", port=0)


@pytest.fixture
def served(stream):
    server = make_server(stream, port=0, most_viewers=3)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield stream, server.effective_port
    server.close()


def read_pictures(response, count):
    pictures = []
    while len(pictures) < count:
        line = response.readline()
        assert line, "the feed ended"
        if line.lower().startswith(b"content-length"):
            response.readline()
            pictures.append(response.read(int(line.split(b":")[1])))
    return pictures


def test_viewers_see_pictures_and_a_slow_one_holds_nobody_up(served):
    stream, port = served

    def view():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/video_feed")
        return connection, connection.getresponse()

    # the first viewer never reads
    (slow, unread), (first, first_feed), (second, second_feed) = view(), view(), view()
    pictures = read_pictures(first_feed, 15)
    assert all(picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9") for picture in pictures)
    assert len(set(pictures)) >= 2 and len(read_pictures(second_feed, 3)) == 3
    assert stream.analytics()["dropped_frames"] == 0 and stream.viewers == 3
    refused, response = view()
    assert response.status == 503
    for part in (unread, first_feed, second_feed, response, slow, first, second, refused):
        part.close()
    wait_for(lambda: stream.viewers == 0, 15)


def test_a_network_stream_is_played_and_its_end_noticed(served):
    stream, port = served
    taken = []
    source = Source(
        f"http://127.0.0.1:{port}/video_feed", 5, lambda picture, index: taken.append(picture)
    ).start()
    try:
        wait_for(lambda: len(taken) >= 5, 20)
        assert source.state == "playing" and taken[0].shape[1] == 480
        stream.stop()
        wait_for(lambda: source.state == "lost", 20)
    finally:
        source.stop()


def test_nonsense_does_not_bring_it_down(served):
    stream, port = served
    rng = random.Random(0)
    for _ in range(150):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            kind = rng.randrange(4)
            line = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
            payload = (
                line,
                b"GET /" + line + b" HTTP/1.1\r\n\r\n",
                b"GET /analytics?" + line[:50].hex().encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST /video_feed HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + line,
            )[kind]
            connection.sendall(payload)
            if rng.random() < 0.5:
                connection.settimeout(0.02)
                try:
                    connection.recv(1000)
                except OSError:
                    pass
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    assert (
        json.loads(connection.getresponse().read())["status"] == "ok"
        and stream.alive
        and stream.failures == 0
    )
    connection.close()


def test_a_port_that_is_taken(served):
    stream, port = served
    with pytest.raises(TalError, match="cannot listen"):
        make_server(stream, port=port)


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (2, 1), (10, 5)])
def test_steps_begin_at_frames(window, stride):
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"rgb": 3})
    sampling = sampling_of(spec, window)
    assert (sampling.fps, sampling.stride, sampling.stride_s) == (window, stride, spec.stride_s)


@pytest.mark.parametrize("window", [1, 3, 5, 15, 25])
def test_a_number_of_frames_that_gives_another_stride_is_refused(window):
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"rgb": 3})
    with pytest.raises(TalError, match=f"{window} frames per step of 1 s give no step every 0.5 s.*such as"):
        sampling_of(spec, window)
