"""Addresses of video sources: paths, cameras and network addresses, shown without passwords."""

import os
import re
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.validation import unknown_name

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")
HIDDEN = "…"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):/+(?=[^/])")
_SECRET = re.compile(
    r"(?i)(?:user(?:name)?|usr|login|pass(?:word|wd|phrase)?|pwd|token|key|auth|secret|sig(?:nature)?)=.*"
)


def without_credentials(address: object) -> str:
    """An address that is safe to show: without user, password and query. Other text stays unchanged.

    A password may contain any character, so everything between the scheme and the last `@` is hidden. Some
    cameras take name and password in the path (`/user=admin_password=…`). Then the rest of the path is
    hidden.
    """
    text = str(address)
    match = _SCHEME.match(text)
    if not match:
        return text
    start, rest = text[: match.end()], text[match.end() :]
    credentials, at, rest = rest.rpartition("@")
    place, query, _ = rest.partition("?")
    place = _SECRET.sub(HIDDEN, place)
    return start + (HIDDEN + "@" if at else "") + place + ("?" + HIDDEN if query else "")


def is_live(where: str) -> bool:
    """Whether a source is live: a camera (its number or device) or a network stream, not a file."""
    return where.isdecimal() or where.startswith("/dev/") or "://" in where


def check_source(where: str) -> str:
    """`where`, if it is a possible source of frames.

    Raises:
        TalError: the file or device does not exist, or the address has an unknown scheme.
    """
    shown = without_credentials(where)
    if "://" in where:
        scheme = where.partition("://")[0]
        if scheme.lower() not in SCHEMES:
            raise unknown_name(scheme, SCHEMES, where=shown, name="scheme")
    elif where.startswith("/dev/"):
        if not os.path.exists(where):
            raise TalError("no such device", where=where, remedy="`ls /dev/video*` lists cameras.")
    elif not where.isdecimal() and not Path(where).is_file():
        problem = "is a folder" if Path(where).is_dir() else "file not found"
        raise TalError(problem, where=shown, remedy="Give a file, a camera's number or an address.")
    return where
