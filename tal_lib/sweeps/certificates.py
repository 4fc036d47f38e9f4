"""Certificates of a cluster: only holders of the key may join it, and its connections are encrypted.

One self-signed certificate and its key serve the whole cluster. Scheduler, workers and command each present
it, and each accepts no other. The files are `cert.pem` and `key.pem` in the folder `$TAL_TLS`. Without
`$TAL_TLS`, Dask's own configuration (`distributed.comm.tls`) names them.
"""

import os
import socket
import ssl
from pathlib import Path

from tal_lib.errors import TalError

CERTIFICATE, KEY = "cert.pem", "key.pem"
MAKE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=tal "
    f"-keyout tls/{KEY} -out tls/{CERTIFICATE}"
)
SEE = "Set TAL_TLS to the folder of the cluster's cert.pem and key.pem (docs/cluster.md)."


def security():
    """The certificates as `distributed.Security`; None if none are set.

    Raises:
        TalError: they are set but missing, damaged, encrypted, or readable by other users.
    """
    from distributed import Security

    folder = os.environ.get("TAL_TLS")
    if folder:
        certificate, key = (_file(Path(folder).expanduser() / name) for name in (CERTIFICATE, KEY))
        _is_private(key)
        names = {
            f"tls_{role}_{part}" for role in ("client", "scheduler", "worker") for part in ("cert", "key")
        }
        files = {name: certificate if name.endswith("cert") else key for name in names}
        chosen, where = Security(require_encryption=True, tls_ca_file=certificate, **files), folder
    else:
        chosen, where = Security(), "Dask's configuration"
        if not (chosen.tls_ca_file and chosen.tls_client_cert):
            return None
    try:
        chosen.get_connection_args("client")  # reads the files
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise TalError(
            f"its certificates cannot be used ({reason})", where=where, remedy=f"Make new ones: {MAKE}"
        ) from None
    return chosen


def check_address(address: str, certificates) -> None:
    """Raise `TalError` if a scheduler's address does not fit the certificates that are set."""
    if address.startswith("tls://") and certificates is None:
        raise TalError("this scheduler asks for certificates", where=address, remedy=SEE)
    if address.startswith("tcp://") and os.environ.get("TAL_TLS"):
        raise TalError(
            "TAL_TLS is set, but tcp:// is not encrypted",
            where=address,
            remedy=f"Use tls://{address.removeprefix('tcp://')}, or unset TAL_TLS.",
        )


def why_refused(address: str, seconds: float = 5.0) -> str | None:
    """The problem with certificates that prevents a connection; None if it is another problem."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    try:
        encrypted = _speaks_tls(host.strip("[]"), int(port), seconds)
    except (OSError, ValueError):
        return None
    if scheme == "tcp" and encrypted:
        return "this scheduler asks for certificates"
    if scheme == "tls":
        return "this scheduler has other certificates" if encrypted else "this scheduler has no certificates"
    return None


def _speaks_tls(host, port, seconds):
    """Whether the server at this address answers with a TLS handshake. Raises OSError if nothing listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no data is sent
    with socket.create_connection((host, port), seconds) as plain:
        try:
            with context.wrap_socket(plain):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # a refusal is a TLS answer too
        except OSError:
            return False


def _file(path):
    if not path.is_file():
        raise TalError("certificate file not found", where=path, remedy=f"{SEE} To make them: {MAKE}")
    return str(path)


def _is_private(key):
    if os.name == "posix" and os.stat(key).st_mode & 0o077:
        raise TalError("other users may read this key", where=key, remedy=f"chmod 600 {key}")
    if "ENCRYPTED" in Path(key).read_text(encoding="utf-8", errors="replace"):
        raise TalError(
            "this key is protected by a password", where=key, remedy=f"Make one without a password: {MAKE}"
        )
