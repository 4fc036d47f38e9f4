"""Whether this machine is quiet enough to measure times.

    python -m tal_lib.process.quiet

It prints one line, and exits with 2 if other programs are busy.
"""

import os
import sys

from tal_lib.errors import TalError
from tal_lib.provenance import usable_cores

SHARE = 0.25  # load average per core; above, other programs would slow the measured one down


def check_quiet(load: float | None = None, cores: int | None = None) -> str:
    """A line that says how busy the machine is.

    Args:
        load: load average of the last minute; None: of this machine, which is unknown on Windows.
        cores: None: those that this process may use.

    Raises:
        TalError: the load is above `SHARE` per core.
    """
    cores = cores or usable_cores()
    if load is None:
        if not hasattr(os, "getloadavg"):
            return "The load of this machine is unknown: make sure that nothing else runs."
        load = os.getloadavg()[0]
    if load > SHARE * cores:
        raise TalError(
            f"this machine is busy (load average {load:.1f} on {cores} cores, at most {SHARE * cores:g}), so "
            "measured times would be wrong",
            remedy="Stop other programs and wait a minute, or measure anyway: make costs BUSY=1",
        )
    return f"This machine is quiet (load average {load:.1f} on {cores} cores)."


if __name__ == "__main__":
    try:
        print(check_quiet())
    except TalError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
