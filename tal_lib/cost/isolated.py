"""Measure in a separate process, whose memory has no traces of earlier work.

Each measurement is a fork of a fork server (`tal_lib.process.fork_server`). It is pinned to as many cores as
it has threads.
"""

import atexit
import importlib
import os
from collections.abc import Callable

from tal_lib.errors import TalError
from tal_lib.process.environment import child_environment
from tal_lib.process.fork_server import Failed, ForkServer

_servers: dict[int, ForkServer] = {}  # by number of threads


class DoesNotFit(TalError):
    """The measured code needs more memory than there is, or than allowed."""


def isolated(function: Callable, subject: str, threads: int, **job):
    """Run `function(threads=threads, **job)` in a fresh process with as many cores as threads.

    Arguments and result pass as JSON.

    Args:
        subject: name of the measurement, for error messages.

    Raises:
        DoesNotFit: the process ran out of memory.
        TalError: the process failed for another reason.
    """
    try:
        return _server(threads).run(
            f"{__name__}:pinned",
            imports=(function.__module__,),
            module=function.__module__,
            name=function.__qualname__,
            job={"threads": threads} | job,
        )
    except Failed as failed:
        if failed.out_of_memory:
            raise DoesNotFit(
                f"{subject} does not fit into memory",
                remedy="Try a shorter length, or a machine with more memory.",
            ) from None
        raise TalError(
            f"{subject}: the measuring process failed ({failed})",
            remedy="Try the same call in a Python session to see where it fails.",
        ) from None


def pinned(module: str, name: str, job: dict):
    """In the fork: run the function on the last cores. The first cores serve the operating system."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-job["threads"] :])
    return getattr(importlib.import_module(module), name)(**job)


def _server(threads):
    server = _servers.get(threads)
    if server is None or not server.alive or server.outdated:
        if server is not None:
            server.close()
        server = _servers[threads] = ForkServer(child_environment(threads, keep_freed=False))
    return server


@atexit.register
def _dismiss():
    for server in _servers.values():
        server.close()
