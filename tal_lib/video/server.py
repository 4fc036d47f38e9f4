"""The live page: Flask behind waitress, on loopback unless told otherwise.

    /            the page            /video_feed   MJPEG, the newest picture
    /analytics   JSON                /healthz      200 while the model's thread runs, without a token

Nothing that a request says reaches the disk or the model.
"""

import hmac
import json

from flask import Flask, Response, abort, render_template, request
from waitress import create_server

from tal_lib.errors import TalError
from tal_lib.video.stream import Stream

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BOUNDARY = b"frame"


def make_app(stream: Stream, *, token: str | None = None, most_viewers: int = 32) -> Flask:
    """The application. With a token every page but /healthz asks for it: `?token=…` once, then a cookie, or `Authorization: Bearer …`."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 1024

    @app.before_request
    def ask_for_token():
        if token is None or request.endpoint == "healthz":
            return
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.args.get("token") or bearer or request.cookies.get("token") or ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            abort(401)

    @app.after_request
    def harden(response):
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        response.headers["Cache-Control"] = "no-store"
        if token and request.args.get("token"):
            response.set_cookie("token", token, httponly=True, samesite="Strict")
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
        if stream.viewers >= most_viewers:
            abort(503)
        parts = (
            b"--"
            + BOUNDARY
            + b"\r\nContent-Type: image/jpeg\r\nContent-Length: "
            + str(len(picture)).encode()
            + b"\r\n\r\n"
            + picture
            + b"\r\n"
            for picture in stream.pictures()
        )
        return Response(parts, mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}")

    return app


def make_server(
    stream: Stream,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    most_viewers: int = 32,
):
    """A waitress server, bound and ready to `run()`; port 0 takes a free one (`effective_port`).

    Raises:
        TalError: open to others without a token, or the port is taken.
    """
    if host not in LOOPBACK and not token:
        raise TalError(f"{host} is open to others", remedy="Give a --token, or bind to 127.0.0.1.")
    try:
        # a viewer that reads slowly is held back after one buffer of pictures; every viewer holds a thread
        return create_server(
            make_app(stream, token=token, most_viewers=most_viewers),
            host=host,
            port=port,
            threads=most_viewers + 8,
            send_bytes=1,
            outbuf_high_watermark=2**17,
            max_request_body_size=1024,
            max_request_header_size=8192,
            connection_limit=4 * most_viewers + 32,
            ident="tal",
        )
    except OSError as error:
        raise TalError(
            f"cannot listen at {host}:{port} ({error.strerror})", remedy="Choose another --port."
        ) from None
