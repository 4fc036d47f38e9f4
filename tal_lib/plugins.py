"""Models and benchmarks from outside this library.

A plug-in is a Python module that calls `tal_lib.models.register` or `tal_lib.data.register_benchmark` when it
is imported. There are three ways to name a plug-in:

    --plugin FILE.py               of every command; may be repeated
    TAL_PLUGINS=FILE.py:OTHER.py   of every process; `--plugin` adds to it for a sweep's processes
    entry points                   `tal.models`, `tal.benchmarks` of an installed package

A broken plug-in does not stop commands that do not need it. It is listed in `broken()`, and named in the
error if its model is requested. A plug-in is code that runs with all rights of its user. Only plug-ins that
the user named or installed are loaded.
"""

import importlib.metadata
import importlib.util
import os
import sys
import traceback
from functools import cache
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import digest

GROUPS = ("tal.models", "tal.benchmarks")
VARIABLE = "TAL_PLUGINS"

_seen: set[str] = set()  # files and entry points that were tried
_broken: dict[str, str] = {}  # module -> why it could not be loaded


def use(path: str | Path) -> None:
    """Load a plug-in from a file, in this process and in every process that it starts from now on.

    Raises:
        TalError: the file does not exist or cannot be loaded.
    """
    file = Path(path).expanduser().absolute()
    if file.suffix != ".py" or not file.is_file():
        raise TalError("plug-in not found", where=path, remedy="Give a Python file (.py).")
    if os.pathsep in str(file):
        raise TalError(
            f"its path holds {os.pathsep!r}", where=path, remedy="Move the plug-in to another folder."
        )
    if str(file) not in _named():
        os.environ[VARIABLE] = os.pathsep.join([*_named(), str(file)])
    load()
    if module_of(file) in _broken:
        raise TalError(
            f"the plug-in cannot be loaded: {_broken[module_of(file)]}",
            where=path,
            remedy="Correct the plug-in.",
        )


def load() -> None:
    """Load every plug-in that was not tried before: entry points, then the files of `TAL_PLUGINS`."""
    for group, point in _entry_points():
        _once(f"{group}:{point.name}={point.value}", point.value.partition(":")[0], point.load)
    for file in files():
        _once(str(file), module_of(file), lambda file=file: _run(file))


def files() -> list[Path]:
    """Files of `TAL_PLUGINS`, in order."""
    return [Path(name).expanduser().absolute() for name in _named()]


def contents() -> dict[str, str]:
    """Hash of the contents of every plug-in's file that is there: file name → hash.

    Two processes have the same plug-ins if it is equal, in whatever folders they are.
    """
    parts: dict[str, list[bytes]] = {}
    for file in files():
        if file.is_file():
            parts.setdefault(file.name, []).append(file.read_bytes())
    return {name: digest(*of_name) for name, of_name in parts.items()}


def broken() -> dict[str, str]:
    """The plug-ins that could not be loaded: module → reason, in one line."""
    return dict(_broken)


def module_of(file: Path) -> str:
    """Module name of a plug-in's file."""
    return f"tal_plugin_{file.stem}_{digest(str(file))[:8]}"


def reason(error: BaseException) -> str:
    """An error of a plug-in's code in one line: type, message, and the place in the code."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = (
        f" ({last[0].filename}, line {last[0].lineno})" if last and not isinstance(error, SyntaxError) else ""
    )
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


@cache
def _entry_points():
    return [(group, point) for group in GROUPS for point in importlib.metadata.entry_points(group=group)]


def _named():
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def _once(key, module, run):
    if key in _seen:
        return
    _seen.add(key)
    try:
        run()
    except (Exception, SystemExit) as error:
        _broken[module] = reason(error)


def _run(file):
    if not file.is_file():
        raise FileNotFoundError(f"{VARIABLE} names {file}, which is not there")
    name = module_of(file)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up modules by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
