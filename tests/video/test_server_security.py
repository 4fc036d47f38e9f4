"""The live page under attack: tokens, host names, other sites' pages, passwords of cameras."""

import json
import logging
import re
import socket
import urllib.request
from argparse import Namespace
from http.cookies import SimpleCookie

import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.cli.video import _token
from tal_lib.files import REPOSITORY
from tal_lib.video import access
from tal_lib.video.access import Access, Guesses, host_of
from tal_lib.video.addresses import without_credentials
from tal_lib.video.server import address_of, make_app
from tal_lib.video.source import Source
from tal_lib.video.stream import Stream

from .test_live import detector, video, wait_for  # noqa: F401  (a fixture)
from .test_slow_clients import serving

TOKEN = "s3cret &+/=#?%ü"
ROUTES = [
    "/",
    "/healthz",
    "/analytics",
    "/video_feed",
    "/static/live.js",
    "/static/live.css",
    "/events",
    "/ws",
    "/x/../",
]
CLOSED = [route for route in ROUTES if route != "/healthz"]


@pytest.fixture(scope="module")
def stream(video):  # noqa: F811
    running = Stream(str(video), detector()).start()
    yield running
    running.stop()


@pytest.fixture
def client(stream):
    return make_app(stream, token=TOKEN, most_viewers=2).test_client()


def answer(client, route, **options):
    with client.get(route, **options) as response:  # closed: the feed never ends
        return response.status_code, response.headers


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("how", ["address", "bearer", "both", "repeated", "empty"])
def test_a_wrong_token_is_refused_and_leaves_nothing(client, route, how):
    """401 without a cookie, and the next request is no nearer."""
    bad, good = {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer s3cret"}
    query, headers = {
        "address": ({"token": "wrong"}, {}),
        "bearer": ({}, bad),
        "both": ({"token": TOKEN}, good),
        "repeated": ({"token": [TOKEN, "wrong"]}, {}),
        "empty": ({"token": ""}, {}),
    }[how]
    status, got = answer(client, route, query_string=query, headers=headers)
    assert status == 401 and "Set-Cookie" not in got and TOKEN not in str(got)
    status, got = answer(client, route)
    assert status == (200 if route == "/healthz" else 401) and "Set-Cookie" not in got
    assert answer(client, "/analytics")[0] == 401


@pytest.mark.parametrize("route", CLOSED)
def test_without_a_token_nothing_but_health_answers(client, route):
    assert answer(client, route)[0] == 401 and answer(client, "/healthz")[0] == 200
    forged = {"Cookie": f"tal_session={TOKEN}; token={TOKEN}"}
    assert answer(client, route, headers=forged)[0] == 401
    assert answer(client, route, headers={"Authorization": "Basic czNjcmV0"})[0] == 401


def test_a_right_token_is_exchanged_for_a_session(client, stream):
    status, headers = answer(client, "/", query_string={"token": TOKEN})
    assert status == 303 and headers["Location"] == "/"  # it leaves the address bar
    cookie = SimpleCookie(headers["Set-Cookie"])["tal_session"]
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and "s3cret" not in headers["Set-Cookie"]
    for route in ("/", "/analytics", "/video_feed", "/static/live.js", "/healthz"):
        status, headers = answer(client, route)
        assert status == 200 and "Set-Cookie" not in headers
    assert answer(client, "/analytics?token=wrong")[0] == 401  # a session does not make a wrong token right
    other = make_app(stream, token=TOKEN).test_client()  # another server of the same token
    assert answer(other, "/analytics", headers={"Cookie": f"tal_session={cookie.value}"})[0] == 401


def test_programs_give_the_token_each_time(client):
    status, headers = answer(client, "/analytics", query_string={"token": TOKEN})
    assert status == 200 and "Set-Cookie" not in headers
    bearer = {"Authorization": "bearer " + TOKEN.encode().decode("latin-1")}
    assert answer(client, "/analytics", headers=bearer)[0] == 200 and answer(client, "/analytics")[0] == 401
    browser = {
        "Accept": "text/html,*/*"
    }  # somebody opened it in a browser: the token leaves the address bar there too
    status, headers = answer(client, "/analytics", query_string={"token": TOKEN}, headers=browser)
    assert status == 303 and headers["Location"] == "/analytics" and answer(client, "/analytics")[0] == 200


def test_guesses_are_bounded():
    now = [0.0]
    guesses = Guesses(clock=lambda: now[0])
    for _ in range(access.GUESSES):
        assert guesses.wait_s("10.0.0.1") == 0
        guesses.add("10.0.0.1")
    assert guesses.wait_s("10.0.0.1") == access.PERIOD_S and guesses.wait_s("10.0.0.2") == 0
    now[0] = access.PERIOD_S
    assert guesses.wait_s("10.0.0.1") == 0
    for number in range(access.ALL_GUESSES):  # from many addresses, as of a network of robots
        guesses.add(f"fd00:{number:x}::1")
    assert guesses.wait_s("10.9.9.9") > 0 and len(guesses._all) == access.ALL_GUESSES
    now[0] = 1000.0
    for number in range(access.GUESSES):
        guesses.add(f"fd00::{number:x}")
    assert guesses.wait_s("fd00::ffff") > 0  # one network of one visitor
    for number in range(2 * access.MOST_ADDRESSES):
        guesses.add(f"10.1.{number // 256}.{number % 256}")
    assert len(guesses._by_address) == access.MOST_ADDRESSES


@pytest.mark.parametrize("route", ["/", "/healthz", "/analytics"])
def test_after_too_many_guesses_even_the_right_token_waits(client, route):
    for number in range(access.GUESSES):
        assert answer(client, f"{route}?token={number:04}")[0] == 401
    status, headers = answer(client, route, query_string={"token": TOKEN})
    assert status == 429 and 1 <= int(headers["Retry-After"]) <= access.PERIOD_S + 1
    assert "Set-Cookie" not in headers and answer(client, "/healthz")[0] == 200


def test_a_session_outlives_the_guesses_of_others(client):
    answer(client, "/", query_string={"token": TOKEN})
    for number in range(access.GUESSES + 1):
        answer(client, f"/?token={number:04}")
    assert answer(client, "/analytics")[0] == 200


@pytest.mark.parametrize("token", ["", "abc"])
def test_short_tokens_are_refused(stream, token):
    with pytest.raises(TalError, match="fewer than 4 characters.*secrets.token_urlsafe"):
        make_app(stream, token=token)


HOSTS = {
    "localhost": True,
    "LOCALHOST:8000": True,
    "localhost.": True,
    "127.0.0.1:1": True,
    "[::1]:8000": True,
    "lab7": True,
    "lab7:80": True,
    "evil.example": False,
    "evil.example:8000": False,
    "localhost.evil.example": False,
    "localhost@evil.example": False,
    "127.0.0.1.evil.example": False,
    "localhost, evil.example": False,
    "lab7/": False,
    "0.0.0.0": False,
    "127.0.0.1:port": False,
    "[::1": False,
    "10.0.0.9": False,
    "": False,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_other_hosts_are_refused(stream, route, token):
    """DNS rebinding: the page of another site asks under its own name."""
    client = make_app(stream, token=token, hosts=("lab7",), most_viewers=2).test_client()
    for host, passes in HOSTS.items():
        status, headers = answer(client, route, headers={"Host": host})
        assert (status != 421) == passes, host
    with client.get(route, headers={"Host": "evil.example"}) as response:
        assert response.get_data(as_text=True).endswith("Start it with --allow-host evil.example.\n")


def test_on_every_address_names_are_refused_and_addresses_are_not(stream):
    client = make_app(stream, token=TOKEN, hosts=("0.0.0.0", "lab7")).test_client()
    for host, status in {"192.168.1.5:8000": 200, "[fd00::5]": 200, "lab7": 200, "evil.example": 421}.items():
        assert answer(client, "/healthz", headers={"Host": host})[0] == status


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("A.b:80", "a.b"),
        ("[FD00::1]:2", "fd00::1"),
        ("a b", None),
        ("a:b", None),
        ("a\\b", None),
        (None, None),
    ],
)
def test_hosts_are_read(given, host):
    assert host_of(given) == host


def test_hosts_that_are_none(stream):
    for host in ("http://lab7", "lab7/x", "a b"):
        with pytest.raises(TalError, match="is not a host name or address"):
            Access(None, (host,))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
    ids=str,
)
def test_pages_of_other_sites_are_refused(stream, route, headers):
    status, _ = answer(make_app(stream).test_client(), route, headers=headers)
    assert status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        },  # a link
        {},
    ],
    ids=str,
)
def test_its_own_page_and_links_pass(stream, headers):
    assert answer(make_app(stream).test_client(), "/", headers=headers)[0] == 200


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("status", ["as it is", 401, 403, 421])
def test_headers_of_every_answer(stream, route, status):
    app = make_app(stream, token=TOKEN if status == 401 else None)
    extra = {403: {"Origin": "null"}, 421: {"Host": "evil.example"}}.get(status, {})
    got, headers = answer(app.test_client(), route + ("?token=wrong" if status == 401 else ""), headers=extra)
    assert got == status or status == "as it is"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store" and "Access-Control-Allow-Origin" not in headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert (
        policy["script-src"] == policy["img-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    )


def test_the_page_keeps_its_own_policy():
    """No script, style or handler within the page, and nothing from elsewhere: the policy would block it."""
    folder = REPOSITORY / "tal_lib" / "video"
    text = (folder / "templates" / "live.html").read_text()
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:|<base|<form", text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.S) == [""]
    assert all(where.startswith("/") for where in re.findall(r'(?:src|href)="([^"]*)"', text))
    script = (folder / "static" / "live.js").read_text()
    assert not re.search(
        r"eval\(|new Function|innerHTML|setAttribute\(\"(style|on)|https?://(?!www\.w3\.org)", script
    )


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%00",
        "/../../etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_static_folder(stream, path):
    assert answer(make_app(stream).test_client(), path)[0] in (308, 400, 404)


@pytest.mark.parametrize("token", ["secret", "wrong"])
def test_nothing_that_is_asked_reaches_a_header(stream, token):
    """Line breaks, and addresses that browsers take for another host's."""
    with serving(stream, token="secret") as server:
        for path in (
            "/a%0d%0aX-Evil:%201",
            "//evil.example/",
            "//evil.example/%2e%2e",
            "/static//evil.example",
            "/%5cevil.example",
        ):
            request = f"GET {path}?token={token}&x=%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: localhost\r\n"
            request += "Accept: text/html\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.effective_port), 20) as connection:
                connection.sendall(request.encode())
                head = connection.recv(65536).split(b"\r\n\r\n")[0].decode().lower()
            assert head.split()[1] in (("303", "308", "404") if token == "secret" else ("401",))
            assert "\nx-evil" not in head
            assert all(
                line.split(": ")[1].startswith(("/static/", "http://localhost/"))
                for line in head.splitlines()
                if line.startswith("location")
            )


# passwords of cameras

PASSWORDS = ["geheim", "p@ss/wo:rd", "ge#he?im", "a%40b%20c", "ü&=ü"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:geheim@cam:554/1", "rtsp://…@cam:554/1"),
        ("rtsp://admin@cam/1", "rtsp://…@cam/1"),
        ("RTSP://admin:p@ss/w?o#rd@cam/1", "RTSP://…@cam/1"),
        ("rtsp:/admin:geheim@cam/1", "rtsp:/…@cam/1"),
        ("http://cam/video.cgi?user=admin&pwd=geheim", "http://cam/video.cgi?…"),
        ("rtsp://cam/user=admin_password=geheim_channel=1.sdp", "rtsp://cam/…"),
        ("rtsp://cam:554/live/1", "rtsp://cam:554/live/1"),
        ("http://[fd00::1]:80/x", "http://[fd00::1]:80/x"),
        ("videos/me@home.mp4", "videos/me@home.mp4"),
        ("10:30@x.mp4", "10:30@x.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("0", "0"),
    ],
)
def test_credentials_are_hidden(address, shown):
    assert without_credentials(address) == shown == without_credentials(shown)


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_password_is_nowhere(password, scheme, capfd, caplog):
    """A camera that is not there: its name and password are in no answer, no error, no log."""
    caplog.set_level(logging.DEBUG)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"{scheme}://operator7:{password}@127.0.0.1:{taken.getsockname()[1]}/live"
        stream = Stream(address, detector()).start()
        try:
            wait_for(lambda: stream.source.state == "lost", 15)
            client = make_app(stream).test_client()
            texts = [json.dumps(stream.analytics()), stream.source.problem, stream.source.where]
            for route in ("/", "/analytics", "/healthz", "/nothing"):
                with client.get(route) as response:
                    texts += [response.get_data(as_text=True), str(response.headers)]
        finally:
            stream.stop()
    texts += [*capfd.readouterr(), caplog.text]
    assert "127.0.0.1" in stream.source.problem  # what it is about is told
    for text in texts:
        assert "operator7" not in text and password not in text


@pytest.mark.parametrize(
    "address", ["rtsp:/admin:geheim@cam/1", "ftp://admin:geheim@cam/1", "file:///etc/admin:geheim@x"]
)
def test_a_password_is_in_no_error_of_the_command(address, capsys):
    assert main(["serve", address, "--model", "none.pt"]) == 2
    out, error = capsys.readouterr()
    assert "geheim" not in out + error and error.count("\n") == 1


def test_whatever_a_library_says_of_an_address_is_not_repeated(monkeypatch):
    def failing(address, **options):
        raise RuntimeError(f"cannot open {address}")

    monkeypatch.setattr("tal_lib.video.source.av.open", failing)
    source = Source("rtsp://admin:geheim@cam/1", 10, lambda *_: None).start()
    wait_for(lambda: source.state == "lost")
    source.stop()
    assert source.problem == "rtsp://…@cam/1: RuntimeError"


# the command


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")]
)
def test_the_printed_address_works(stream, host, shown):
    with serving(stream, host=host, token=TOKEN) as server:
        address = address_of(server, host, TOKEN)
        assert address.startswith(f"http://{shown}:") and "s3cret%20%26%2B%2F%3D%23%3F%25%C3%BC" in address
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address, timeout=20) as response:
            assert (
                response.url == f"http://{shown}:{server.effective_port}/"
                and b"Live actions" in response.read()
            )


def test_two_servers_of_one_machine_do_not_share_a_cookie(stream):
    with serving(stream, token=TOKEN) as first, serving(stream, token="another") as second:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for server, token in ((first, TOKEN), (second, "another")):
            opener.open(address_of(server, "127.0.0.1", token), timeout=20).close()
        for server in (first, second):  # both sessions hold, although cookies do not know ports
            opener.open(f"http://127.0.0.1:{server.effective_port}/analytics", timeout=20).close()


@pytest.mark.parametrize("way", ["file", "environment"])
def test_the_token_need_not_be_an_argument(tmp_path, way, monkeypatch):
    monkeypatch.setenv("TAL_TOKEN", "of the environment")
    path = tmp_path / "token"
    path.write_text("\ufeffof the file\r\n")
    given = Namespace(token=None, token_file=str(path) if way == "file" else None)
    assert _token(given) == ("of the file" if way == "file" else "of the environment")
    assert _token(Namespace(token="of the option", token_file=None)) == "of the option"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "none"], "token file not found"),
        (["--token-file", "two"], "more than one line"),
        (["--port", "70000"], "port: '70000' is not at most 65535"),
        (["--port", "-1"], "port: '-1' is not at least 0"),
        (["--delay", "nan"], "--delay"),
        (["--threshold", "2"], "--threshold: '2' is not at most 1"),
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--host", "http://x", "--token", "secret"], "is not a host name or address"),
        (["--host", "no.such.host.invalid", "--token", "secret"], "cannot listen at"),
        (["--allow-host", "a/b"], "is not a host name or address"),
    ],
)
def test_nonsense_is_one_line(stream, tmp_path, options, message, capsys, monkeypatch, video):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").write_text("a long line\nand another")
    live = detector()
    live.stream = None
    monkeypatch.setattr("tal_lib.cli.video._ready", lambda arguments: (live, live.extractor))
    try:
        assert main(["serve", str(video), "--model", "x", "--window", "8", *options]) == 2
    except SystemExit as end:  # of the parser
        assert end.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_source_of_the_environment(tmp_path, monkeypatch, capsys):
    """An address with a password need not be an argument either."""
    monkeypatch.setenv("TAL_SOURCE", "ftp://admin:geheim@cam/1")
    assert main(["serve", "--model", "m.pt"]) == 2
    error = capsys.readouterr().err
    assert "ftp://…@cam/1: unknown scheme 'ftp'" in error and "geheim" not in error
    monkeypatch.delenv("TAL_SOURCE")
    assert main(["serve", "--model", "m.pt"]) == 2 and "SOURCE is missing" in capsys.readouterr().err
