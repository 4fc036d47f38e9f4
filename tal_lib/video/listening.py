"""A waitress server that slow and silent clients cannot keep busy.

Waitress accepts no more connections once `connection_limit` are open, and it closes only those that were
silent for two minutes. A client that sends half a request, or reads nothing of an answer, keeps its place.
Here a request must be complete, and a part of an answer taken, within `PATIENCE_S`. Where places run short,
the connections that have waited longest without a whole request make room.
"""

import socket
import time

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

PATIENCE_S = 10.0  # for a whole request, and for a client that takes nothing of its answer


class Channel(HTTPChannel):
    """A connection that knows since when it waits for its client."""

    def __init__(self, *args, **options):
        self.waiting_since, self.blocked_since = time.monotonic(), None
        super().__init__(*args, **options)

    def service(self):
        """Answer one request (in a thread of the pool)."""
        try:
            super().service()
        finally:
            self.waiting_since = time.monotonic()

    def write_soon(self, data):
        """Hand over a part of an answer; returns when there is room for the next."""
        self.blocked_since = time.monotonic()
        try:
            return super().write_soon(data)
        finally:
            self.blocked_since = None

    def late(self, now: float) -> bool:
        """Whether the client has kept this connection waiting for too long."""
        since = self.blocked_since if self.requests else self.waiting_since
        return since is not None and now - since > PATIENCE_S

    def end(self):
        """Close soon, from the server's loop; a thread that waits for this client goes on at once."""
        self.will_close = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop even if the client reads nothing
        except OSError:
            pass  # the client has gone already


class Server(TcpWSGIServer):
    """The server; options are waitress's own."""

    channel_class = Channel

    def __init__(self, application, listener: socket.socket, **options):
        adjustments = Adjustments(
            sockets=[listener], cleanup_interval=1, asyncore_loop_timeout=1, asyncore_use_poll=True, **options
        )
        about = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(application, {}, True, listener, adj=adjustments, sockinfo=about, bind_socket=False)
        self.effective_port = int(self.effective_port)

    def readable(self):
        """Whether to accept a connection; makes room first."""
        if len(self._map) >= self.adj.connection_limit:
            self._make_room()
        return super().readable()

    def maintenance(self, now):
        """Once a second: end the connections whose clients are late."""
        for channel in list(self.active_channels.values()):
            if channel.late(time.monotonic()):
                channel.end()

    def _make_room(self):
        idle = [channel for channel in self.active_channels.values() if not channel.requests]
        idle.sort(key=lambda channel: channel.waiting_since)
        for channel in idle[: max(1, len(idle) // 4)]:
            channel.end()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the first address of `host`; port 0 takes a free one.

    Raises:
        OSError: no such host, or the port is taken.
    """
    family, kind, protocol, _, address = min(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
        key=lambda choice: choice[0] != socket.AF_INET,  # `localhost` may be both
    )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1024)  # now: only here is a port that is taken told
    except OSError:
        listener.close()
        raise
    return listener
