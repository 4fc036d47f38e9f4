"""The origin of a number: commit, versions, device, time."""

import functools
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tal_lib import __version__
from tal_lib.errors import TalError, short
from tal_lib.files import REPOSITORY, digest, in_checkout

DEVICE = re.compile(r"cpu|cuda(?::(\d{1,3}))?")

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
    """Short commit of the repository, with `+` if its code was changed or has new files. Empty outside a
    checkout.

    It is read once: after an update, a process that runs on still has the modules that it imported before.
    """
    if not in_checkout():  # an installed package may lie inside another repository
        return ""
    run = lambda *args: subprocess.run(["git", "-C", str(REPOSITORY), *args], capture_output=True, text=True)
    try:
        head = run("rev-parse", "--short=10", "HEAD")
        changed = run("status", "--porcelain", "--untracked-files=no", "--", "tal_lib", "notebooks")
        new = run("ls-files", "--others", "--exclude-standard", "--", "tal_lib")
    except OSError:
        return ""
    return (
        head.stdout.strip() + ("+" if (changed.stdout + new.stdout).strip() else "")
        if head.returncode == 0
        else ""
    )


def code_state() -> str:
    """Hash of this library's source files in their present state.

    It depends on the code alone: not on whether it is committed, or in a checkout or installed.
    """
    package = Path(__file__).resolve().parent
    files = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    return digest(*(part for path in files for part in (path.as_posix(), (package / path).read_bytes())))


@functools.cache
def cpu_name() -> str:
    """The processor's name and its number of cores. A process may be allowed fewer of them."""
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
    """Default device of training and inference: `$TAL_DEVICE`, else `cuda` if available, else `cpu`.

    Raises:
        TalError: `$TAL_DEVICE` names no device of this machine.
    """
    import torch

    chosen = os.environ.get("TAL_DEVICE")
    return (
        checked_device(chosen, where="TAL_DEVICE")
        if chosen
        else "cuda"
        if torch.cuda.is_available()
        else "cpu"
    )


def checked_device(device: str, *, where: object = None, here: bool = True) -> str:
    """A device's name: `cpu`, `cuda`, or `cuda:N` for one of several GPUs.

    Args:
        where: the source of the name, for the error; here: whether this machine must have the device.

    Raises:
        TalError: another name, or a GPU that this machine lacks.
    """
    match = DEVICE.fullmatch(device) if isinstance(device, str) else None
    if match is None:
        raise TalError(f"unknown device {short(device)}", where=where, remedy="Choose cpu, cuda or cuda:N.")
    if here and device != "cpu":
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise TalError(f"device {device}: there is no CUDA GPU here", where=where, remedy="Choose cpu.")
        if match[1] and int(match[1]) >= count:
            raise TalError(
                f"device {device}: there are {count} GPUs here",
                where=where,
                remedy=f"Choose cuda:0 to cuda:{count - 1}.",
            )
    return device


def device_name(device: str = "cpu") -> str:
    """Name of the device that a number was measured on."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()


def provenance(
    *, device: str | None = None, threads: int | None = None, config_hash: str = "", data_hash: str = ""
) -> dict:
    """The provenance columns of a result; `device` is a device's name, this machine's processor if None."""
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
