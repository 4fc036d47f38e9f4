"""Memory that this process may still use: of the machine, of its container, and by its own limit."""

from contextlib import suppress
from pathlib import Path

from tal_lib.process.memory import process_status

CGROUPS = Path("/sys/fs/cgroup")


def available_memory(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> int | None:
    """Bytes that this process can still allocate, or None if the system does not say (not Linux).

    It is the least of three: the machine's available memory, what the control groups of a container still
    allow, and the limit of this process. Memory that only caches files counts as available.
    """
    known = [_of_machine(proc), *_of_groups(proc, cgroups), _of_process()]
    return min((size for size in known if size is not None), default=None)


def _of_machine(proc):
    with suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    return None


def _of_groups(proc, cgroups):
    """What each control group of this process still allows (version 2, then version 1)."""
    paths = {"", "memory"}
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, kind, path = line.split(":", 2)
            if kind in ("", "memory"):
                parts = Path(path.strip("/")).parts
                paths |= {str(Path(kind, *parts[:count])) for count in range(1, len(parts) + 1)}
    for group in (cgroups / path for path in sorted(paths)):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max": there is no limit
                allowed = int((group / limit).read_text())
                yield max(0, allowed - int((group / used).read_text()) + _file_cache(group))


def _file_cache(group):
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))
    return 0


def _of_process():
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit != resource.RLIM_INFINITY:
            return max(0, limit - process_status("VmData"))
    return None
