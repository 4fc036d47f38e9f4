"""Access to the live page: which host names it answers to, which pages may send requests, and the token.

The same rule holds for every route. A request for another host gets 421. A request that another site sends
gets 403. A wrong token gets 401. After too many wrong tokens, any token gets 429. Without a token, only the
routes in `OPEN` answer.
"""

import hmac
import ipaddress
import threading
import time
from collections import OrderedDict, deque
from urllib.parse import urlsplit

from flask import Request

from tal_lib.errors import TalError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN = frozenset({"healthz"})  # endpoints that need no token; a wrong token is refused there too
SIGNED_IN = "signed_in"  # in the session, which is signed and does not hold the token
SHORTEST_TOKEN = 4  # bytes
GUESSES, PERIOD_S = 10, 60.0  # wrong tokens of one address in a period
ALL_GUESSES, MOST_ADDRESSES = 300, 1024  # wrong tokens of all addresses together; addresses that are kept


def is_loopback(host: str) -> bool:
    """Whether a host (a name or an address) is only reachable from this machine."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_wildcard(host: str) -> bool:
    """Whether a host stands for every address of this machine: `0.0.0.0`, `::`."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def host_of(header: str | None) -> str | None:
    """The host in a Host header, in lower case, without its port; None if the header is malformed."""
    if not header or any(letter in header for letter in "/?#@\\, \t"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        parts.port  # noqa: B018  (raises if it is not a number)
    except ValueError:
        return None
    host = (parts.hostname or "").removesuffix(".")
    return host or None


class Guesses:
    """Recent wrong tokens by client address. At most `MOST_ADDRESSES` addresses are kept."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 means now."""
        with self._lock:
            now = self._clock()
            few = self._by_address.get(_network(address), deque())
            return max(_left(few, GUESSES, now), _left(self._all, ALL_GUESSES, now))

    def add(self, address: str) -> None:
        """Record a wrong token."""
        with self._lock:
            now, network = self._clock(), _network(address)
            self._by_address.setdefault(network, deque(maxlen=GUESSES)).append(now)
            self._by_address.move_to_end(network)
            if len(self._by_address) > MOST_ADDRESSES:
                self._by_address.popitem(last=False)
            self._all.append(now)
            while self._all and now - self._all[0] > PERIOD_S:
                self._all.popleft()
            while len(self._all) > ALL_GUESSES:
                self._all.popleft()


def _left(times, most, now):
    """Seconds until fewer than `most` of the times are in the period."""
    recent = [at for at in times if now - at < PERIOD_S]
    return PERIOD_S - (now - recent[-most]) if len(recent) >= most else 0.0


class Access:
    """The access rule of one server.

    Args:
        token: the token that viewers must send; None means no token is needed.
        hosts: names and addresses that the server answers to, in addition to those of this machine.

    Raises:
        TalError: the token is empty or too short, or a host is not valid.
    """

    def __init__(self, token: str | None = None, hosts: tuple[str, ...] = ()):
        if token is not None and len(token.encode(errors="surrogateescape")) < SHORTEST_TOKEN:
            raise TalError(
                f"the token has fewer than {SHORTEST_TOKEN} characters",
                remedy='Give a longer one: python -c "import secrets; print(secrets.token_urlsafe())"',
            )
        self.token, self.guesses = token, Guesses()
        self.any_address = any(is_wildcard(host) for host in hosts)
        self.hosts = set(LOOPBACK)
        for host in hosts:
            name = host_of(f"[{host}]" if ":" in host and _is_address(host) else host)
            if name is None:
                raise TalError(
                    f"{host!r} is not a host name or address",
                    remedy="Give a name or an address, without a scheme.",
                )
            self.hosts.add(name)

    def refusal(self, request: Request, session) -> tuple[int, str, dict] | None:
        """(status, text, headers) for a request that is refused; None if it may pass."""
        if not self._is_for_us(request):
            host = host_of(request.headers.get("Host"))
            remedy = f"Start it with --allow-host {host or 'NAME'}."
            return 421, f"This server does not answer for the host {host!r}. {remedy}", {}
        if self._is_from_elsewhere(request):
            return 403, "Another site's page may not ask for this.", {}
        given = _tokens(request)
        if self.token is None:
            return None
        if given:
            if wait := self.guesses.wait_s(request.remote_addr or ""):
                return 429, "Too many wrong tokens. Try again later.", {"Retry-After": str(int(wait) + 1)}
            if not all(self._is_right(token) for token in given):
                self.guesses.add(request.remote_addr or "")
                return 401, "The token is wrong.", {"WWW-Authenticate": "Bearer"}
        elif not session.get(SIGNED_IN) and request.endpoint not in OPEN:
            text = (
                "Open the address that `tal serve` printed, with its ?token=…, or send Authorization: Bearer."
            )
            return 401, text, {"WWW-Authenticate": "Bearer"}
        return None

    def _is_right(self, token):
        return hmac.compare_digest(token, self.token.encode(errors="surrogateescape"))

    def _is_for_us(self, request):
        """Whether the request names a host of this server.

        A site whose name resolves to this machine (DNS rebinding) sends its own host name.
        """
        host = host_of(request.headers.get("Host"))
        return host in self.hosts or (self.any_address and host is not None and _is_address(host))

    def _is_from_elsewhere(self, request):
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != request.headers["Host"].lower():
            return True
        if request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none"):
            return False
        opened = request.headers.get("Sec-Fetch-Mode") == "navigate"  # the user followed a link
        return not (opened and request.headers.get("Sec-Fetch-Dest") == "document")


def _tokens(request):
    """The tokens of a request, as bytes: from its query and from its Authorization header."""
    given = [token.encode(errors="surrogateescape") for token in request.args.getlist("token")]
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(bearer.strip().encode("latin-1", errors="replace"))
    return given


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _network(address):
    """The key of one visitor: an IPv4 address, or the /64 network of an IPv6 address."""
    if _is_address(address) and ":" in address:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return address
