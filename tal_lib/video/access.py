"""Who may see the live page: the host names that it answers to, the pages that may ask, and the token.

One rule holds for every route. A request for another host is answered with 421, one that another site sends
with 403, a wrong token with 401, and after too many wrong tokens any token with 429. Without a token only the
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
OPEN = frozenset({"healthz"})  # endpoints that need no token; a wrong one is refused there too
SIGNED_IN = "signed_in"  # in the session, which is signed and does not hold the token
SHORTEST_TOKEN = 4  # bytes
GUESSES, PERIOD_S = 10, 60.0  # wrong tokens of one address in a period
ALL_GUESSES, MOST_ADDRESSES = 300, 1024  # of all addresses together; how many are remembered


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_wildcard(host: str) -> bool:
    """Whether a host stands for every address of this machine: `0.0.0.0`, `::`."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def host_of(header: str | None) -> str | None:
    """The host in a Host header, in lower case, without its port; None where it is not well-formed."""
    if not header or any(letter in header for letter in "/?#@\\, \t"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        parts.port  # noqa: B018  (raises if it is no number)
    except ValueError:
        return None
    host = (parts.hostname or "").removesuffix(".")
    return host or None


class Guesses:
    """Recent wrong tokens by the address that they came from; `MOST_ADDRESSES` of these are remembered."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0: now."""
        with self._lock:
            now = self._clock()
            few = self._by_address.get(_network(address), deque())
            return max(_left(few, GUESSES, now), _left(self._all, ALL_GUESSES, now))

    def add(self, address: str) -> None:
        """Note a wrong token."""
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
    """Seconds until fewer than `most` of the times lie in the period."""
    recent = [at for at in times if now - at < PERIOD_S]
    return PERIOD_S - (now - recent[-most]) if len(recent) >= most else 0.0


class Access:
    """The rule of one server.

    Args:
        token: that viewers must give; None: nobody is asked.
        hosts: names and addresses that it was started for, beside those of this machine.

    Raises:
        TalError: a token that is empty or too short, or a host that is none.
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
                raise TalError(f"{host!r} is no host", remedy="Give a name or an address, without a scheme.")
            self.hosts.add(name)

    def refusal(self, request: Request, session) -> tuple[int, str, dict] | None:
        """Status, text and headers of the answer to a request that may not pass; None if it may."""
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
        """Another site whose name resolves to this machine (DNS rebinding) sends its own name."""
        host = host_of(request.headers.get("Host"))
        return host in self.hosts or (self.any_address and host is not None and _is_address(host))

    def _is_from_elsewhere(self, request):
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != request.headers["Host"].lower():
            return True
        if request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none"):
            return False
        opened = request.headers.get("Sec-Fetch-Mode") == "navigate"  # a link that somebody followed
        return not (opened and request.headers.get("Sec-Fetch-Dest") == "document")


def _tokens(request):
    """The tokens that a request gives, as bytes: in the address and in its Authorization header."""
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
    """What stands for one visitor: an IPv4 address, or the /64 network of an IPv6 address."""
    if _is_address(address) and ":" in address:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return address
