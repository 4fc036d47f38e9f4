"""Where a number comes from: commit, versions, device, time."""

import functools
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from tal_lib import __version__
from tal_lib.files import REPOSITORY, in_checkout

COLUMNS = [
    "git_commit",
    "tal_lib_version",
    "torch_version",
    "device_name",
    "threads",
    "config_hash",
    "data_hash",
    "utc",
]


@functools.cache
def git_commit() -> str:
    """Short commit of the repository; `+` behind it if tracked files were changed; empty outside a checkout."""
    if not in_checkout():  # an installed package may lie inside somebody else's repository
        return ""
    run = lambda *args: subprocess.run(["git", "-C", str(REPOSITORY), *args], capture_output=True, text=True)  # noqa: E731
    try:
        head = run("rev-parse", "--short=10", "HEAD")
        changed = run("status", "--porcelain", "--untracked-files=no", "--", "tal_lib", "notebooks")
    except OSError:
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


@functools.cache
def cpu_name() -> str:
    """The processor's own name and the number of its cores, of which a process may be allowed fewer."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            name = next(
                (line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), name
            )
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_device() -> str:
    """Where models are trained and run if nothing else is said: `$TAL_DEVICE`, else `cuda` where there is one, else `cpu`."""
    import torch

    return os.environ.get("TAL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: str = "cpu") -> str:
    """Name of the device a number was measured on."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()


def provenance(
    *, device: str | None = None, threads: int | None = None, config_hash: str = "", data_hash: str = ""
) -> dict:
    """The provenance columns of a result; `device` is a device's name, this processor's if None."""
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        torch_version = ""
    return {
        "git_commit": git_commit(),
        "tal_lib_version": __version__,
        "torch_version": torch_version,
        "device_name": device or cpu_name(),
        "threads": threads,
        "config_hash": config_hash,
        "data_hash": data_hash,
        "utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
