"""The live page and clients that are silent, slow or many: they get an end, and the others an answer."""

import contextlib
import http.client
import socket
import threading
import time

import pytest

from tal_lib.video import listening
from tal_lib.video.server import make_app, make_server
from tal_lib.video.stream import Stream

from .test_live import detector, read_pictures, video, wait_for  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def stream(video):  # noqa: F811
    running = Stream(str(video), detector()).start()
    yield running
    running.stop()


@contextlib.contextmanager
def serving(stream, **options):
    server = make_server(stream, port=0, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()


def ask(port, path="/healthz", timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


HALF = {
    "nothing": b"",
    "half a line": b"GET /ana",
    "half the headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nx",
    "expects to go on": b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "a second request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
}


@pytest.mark.parametrize("kind", HALF)
def test_half_requests_keep_nobody_out(stream, kind, monkeypatch):
    """170 half-open connections. Waitress alone would keep 160 for two minutes and accept no more."""
    monkeypatch.setattr(listening, "PATIENCE_S", 600.0)  # nothing but making room helps
    with serving(stream) as server, contextlib.ExitStack() as open_ones:
        for _ in range(170):
            half = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.effective_port), 20))
            half.sendall(HALF[kind])
        for path in ("/healthz", "/analytics", "/"):
            assert ask(server.effective_port, path)[0] == 200


def test_a_slow_request_is_ended(stream, monkeypatch):
    """One byte after the other counts as silence: what counts is the whole request."""
    monkeypatch.setattr(listening, "PATIENCE_S", 1.0)
    with (
        serving(stream) as server,
        socket.create_connection(("127.0.0.1", server.effective_port), 20) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises(OSError):
            for _ in range(300):
                slow.sendall(b"x")
                time.sleep(0.1)
        wait_for(lambda: not server.active_channels, 10)


def test_200_viewers_leave_room_for_the_other_pages(stream):
    """Those beyond the limit are told so; nobody waits."""
    with serving(stream) as server, contextlib.ExitStack() as open_ones:
        statuses = []
        for _ in range(200):
            viewer = open_ones.enter_context(
                socket.create_connection(("127.0.0.1", server.effective_port), 20)
            )
            viewer.sendall(b"GET /video_feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
            statuses.append(viewer.recv(12).decode())
        assert statuses.count("HTTP/1.1 200") == 32 and statuses.count("HTTP/1.1 503") == 168
        assert stream.viewers == 32
        for path in ("/healthz", "/analytics", "/"):
            assert ask(server.effective_port, path)[0] == 200
    wait_for(lambda: stream.viewers == 0, 30)


def test_a_viewer_that_takes_nothing_gives_its_place_back(stream, monkeypatch):
    monkeypatch.setattr(listening, "PATIENCE_S", 1.0)
    monkeypatch.setattr("tal_lib.video.stream.to_jpeg", lambda picture: bytes(300_000))
    with serving(stream, most_viewers=1) as server, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", server.effective_port))
        silent.sendall(b"GET /video_feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: stream.viewers == 1)
        wait_for(lambda: stream.viewers == 0, 30)
        assert ask(server.effective_port)[0] == 200


def test_a_viewer_that_leaves_before_the_first_picture_gives_its_place_back(tmp_path):
    waiting = Stream(str(tmp_path / "none.mp4"), detector()).start()
    try:
        with serving(waiting, most_viewers=1) as server:
            viewer = socket.create_connection(("127.0.0.1", server.effective_port), 20)
            viewer.sendall(b"GET /video_feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(lambda: waiting.viewers == 1)
            viewer.close()
            wait_for(lambda: waiting.viewers == 0, 30)
    finally:
        waiting.stop()


def test_only_viewers_take_places(stream):
    client = make_app(stream, most_viewers=1).test_client()
    before = stream.viewers
    for _ in range(3):
        assert client.head("/video_feed").status_code == 200 and client.post("/video_feed").status_code == 405
    assert stream.viewers == before


def test_viewers_and_pictures_of_a_slow_but_honest_one(stream):
    with serving(stream, most_viewers=2) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=20)
        connection.request("GET", "/video_feed")
        assert len(read_pictures(connection.getresponse(), 5)) == 5
        connection.close()


def test_long_addresses_and_headers_are_refused(stream):
    with serving(stream) as server:
        for request in (
            b"GET /?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", server.effective_port), 20) as long:
                with contextlib.suppress(OSError):
                    long.sendall(request)
                    assert b" 431 " in long.recv(100)
        assert ask(server.effective_port)[0] == 200
