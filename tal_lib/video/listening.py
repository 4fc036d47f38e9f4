"""A waitress server that slow and silent clients cannot block.

Waitress accepts no more connections when `connection_limit` are open. It closes only connections that were
silent for two minutes. A client that sends half a request, or does not read its answer, keeps its place.
Here, the client must complete a request, and read a part of an answer, within `PATIENCE_S`. When places run
short, the connections that have waited longest without a whole request are closed.
"""

import socket
import time

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

PATIENCE_S = 10.0  # for a whole request, and for a client that does not read its answer


class Channel(HTTPChannel):
    """A connection that records since when it waits for its client."""

    def __init__(self, *args, **options):
        self.waiting_since, self.blocked_since = time.monotonic(), None
        super().__init__(*args, **options)

    def service(self):
        """Answer one request, in a thread of the pool."""
        try:
            super().service()
        finally:
            self.waiting_since = time.monotonic()

    def write_soon(self, data):
        """Queue a part of an answer. Returns when there is room for the next part."""
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
        """Close soon, from the server's loop. A thread that waits for this client continues at once."""
        self.will_close = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop even if the client reads nothing
        except OSError:
            pass  # the client has already left


class Server(TcpWSGIServer):
    """The server. Its options are those of waitress."""

    channel_class = Channel

    def __init__(self, application, listener: socket.socket, **options):
        adjustments = Adjustments(
            sockets=[listener], cleanup_interval=1, asyncore_loop_timeout=1, asyncore_use_poll=True, **options
        )
        about = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(application, {}, True, listener, adj=adjustments, sockinfo=about, bind_socket=False)
        self.effective_port = int(self.effective_port)

    def readable(self):
        """Whether to accept a connection. Closes idle connections first if there are too many."""
        if len(self._map) >= self.adj.connection_limit:
            self._make_room()
        return super().readable()

    def maintenance(self, now):
        """Called once per second: closes the connections whose clients are late."""
        for channel in list(self.active_channels.values()):
            if channel.late(time.monotonic()):
                channel.end()

    def _make_room(self):
        idle = [channel for channel in self.active_channels.values() if not channel.requests]
        idle.sort(key=lambda channel: channel.waiting_since)
        for channel in idle[: max(1, len(idle) // 4)]:
            channel.end()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the first address of `host`. Port 0 takes a free port.

    Raises:
        OSError: the host does not exist, or the port is in use.
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
        listener.listen(1024)  # early: a port in use raises an error only here
    except OSError:
        listener.close()
        raise
    return listener
