"""The live page: Flask behind waitress, on loopback by default.

    /            the page            /video_feed   MJPEG, the newest picture
    /analytics   JSON                /healthz      200 while the model's thread runs, without a token

No content of a request reaches the disk or the model. `tal_lib.video.access` decides who may send requests.
"""

import json
import secrets
from typing import Annotated
from urllib.parse import quote

from flask import Flask, Response, redirect, render_template, request, session, url_for
from pydantic import Field

from tal_lib.errors import TalError
from tal_lib.validation import validate
from tal_lib.video.access import SIGNED_IN, Access, is_loopback, is_wildcard
from tal_lib.video.listening import Server, listen
from tal_lib.video.stream import Stream

Port = Annotated[int, Field(ge=0, le=65535)]

BOUNDARY = b"frame"
SPARE_THREADS = 8  # in addition to one per viewer: other pages never wait for viewers
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(
    stream: Stream, *, token: str | None = None, hosts: tuple[str, ...] = (), most_viewers: int = 32
) -> Flask:
    """The Flask application.

    Args:
        token: required for every page except /healthz: once as `?token=…`, then a signed cookie; or as
            `Authorization: Bearer`.
        hosts: names that it answers to, in addition to those of this machine.
        most_viewers: the largest number of simultaneous viewers of the pictures.
    """
    access = Access(token, hosts)
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),  # sessions end with this process
        SESSION_COOKIE_NAME="tal_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=1024,
    )

    @app.before_request
    def check():
        if refused := access.refusal(request, session):
            status, text, headers = refused
            return Response(text + "\n", status, headers, mimetype="text/plain")
        if token is None or "token" not in request.args or request.endpoint is None:
            return None
        if request.endpoint == "page" or "text/html" in request.headers.get("Accept", ""):
            session[SIGNED_IN] = True  # a browser: the token must not stay in its address bar
            return redirect(url_for(request.endpoint, **request.view_args or {}), 303)
        return None

    @app.after_request
    def harden(response):
        response.headers.update(HEADERS)
        return response

    @app.get("/")
    def page():
        return render_template("live.html", classes=stream.detector.classes)

    @app.get("/analytics")
    def analytics():
        return Response(json.dumps(stream.analytics()), mimetype="application/json")

    @app.get("/healthz")
    def healthz():
        body = json.dumps({"status": "ok" if stream.alive else "dead", "source": stream.source.state})
        return Response(body, 200 if stream.alive else 503, mimetype="application/json")

    @app.get("/video_feed")
    def video_feed():
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}"
        if request.method == "HEAD":
            return Response(mimetype=kind)
        if not stream.admit(most_viewers):
            text = f"{most_viewers} viewers are watching already. Try again later.\n"
            return Response(text, 503, {"Retry-After": "10"}, mimetype="text/plain")
        disconnected = request.environ.get("waitress.client_disconnected", lambda: False)
        response = Response(map(_part, stream.pictures(disconnected=disconnected)), mimetype=kind)
        response.call_on_close(stream.dismiss)
        return response

    return app


def _part(picture):
    size = str(len(picture)).encode()
    return b"--%b\r\nContent-Type: image/jpeg\r\nContent-Length: %b\r\n\r\n%b\r\n" % (BOUNDARY, size, picture)


def make_server(
    stream: Stream,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    hosts: tuple[str, ...] = (),
    most_viewers: int = 32,
) -> Server:
    """A server that is bound and ready to `run()`. Port 0 takes a free port (`effective_port`).

    Args:
        host: address or name to listen at.
        hosts: further names of it.
        token, most_viewers: see `make_app`.

    Raises:
        TalError: the host is not loopback and there is no token, the host does not exist, or the port is in
            use.
    """
    port = validate(Port, port, name="port")
    if not is_loopback(host) and not token:
        raise TalError(
            f"{host} can be reached from other machines", remedy="Give a --token, or use --host 127.0.0.1."
        )
    app = make_app(stream, token=token, hosts=(host, *hosts), most_viewers=most_viewers)
    try:
        listener = listen(host, port)
    except (OSError, UnicodeError) as error:
        raise TalError(
            f"cannot listen at {host}:{port} ({getattr(error, 'strerror', None) or 'no such host'})",
            remedy="Choose another --port." if isinstance(error, OSError) else "Check --host.",
        ) from None
    server = Server(
        app,
        listener,
        threads=most_viewers + SPARE_THREADS,
        send_bytes=1,  # a slow viewer gets no new picture while one buffer is unsent
        outbuf_high_watermark=2**17,
        max_request_body_size=1024,
        max_request_header_size=8192,
        connection_limit=4 * most_viewers + 32,
        channel_request_lookahead=1,  # detects that a viewer left while there is nothing to send
        ident="tal",
    )
    # cookies ignore ports: two servers on one machine need different cookie names
    app.config["SESSION_COOKIE_NAME"] = f"tal_session_{server.effective_port}"
    return server


def address_of(server: Server, host: str, token: str | None) -> str:
    """The address to open in a browser, with the token. A wildcard host becomes 127.0.0.1."""
    shown = "127.0.0.1" if is_wildcard(host) else host
    shown = f"[{shown}]" if ":" in shown else shown
    query = f"?token={quote(token, safe='', errors='surrogateescape')}" if token else ""
    return f"http://{shown}:{server.effective_port}/{query}"
