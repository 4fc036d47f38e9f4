"""Whether a progress bar is shown: by default only in a notebook that a person has open.

A sweep and the rendering of pages set `TAL_PROGRESS=false`, so that no page holds the states of a bar.
"""

import os
import sys

VARIABLE = "TAL_PROGRESS"
OFF = {VARIABLE: "false"}  # for the environment of a kernel whose output nobody sees


def shown(progress: bool | None) -> bool:
    """Whether to show a bar. None: in a notebook's kernel, unless `$TAL_PROGRESS` is false."""
    return _in_kernel() and not _switched_off() if progress is None else progress


def _in_kernel():
    """Whether this process is the kernel of a notebook. IPython in a terminal is none."""
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(ipython, "config", {})


def _switched_off():
    return os.environ.get(VARIABLE, "").strip().lower() in ("false", "0", "no", "off")
