"""Models and benchmarks from outside this library.

A plug-in is a Python module that calls `tal_lib.models.register` or `tal_lib.data.register_benchmark`
when it is imported. There are three ways to name one:

    --plugin FILE.py               of every command, as often as wanted
    TAL_PLUGINS=FILE.py:OTHER.py   of every process; `--plugin` adds to it for a sweep's processes
    entry points                   `tal.models`, `tal.benchmarks` of an installed package

A plug-in that cannot be loaded does not stop what does without it: it is in `broken()`, and is named
where its model is asked for. A plug-in is code and runs with all rights of its user; nothing is loaded
that nobody named or installed.
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
    """Load a plug-in from a file, here and in every process that this one starts from now on.

    Raises:
        TalError: there is no such file, or it cannot be loaded.
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
            f"the plug-in cannot be loaded: {_broken[module_of(file)]}", where=path, remedy="Mend it."
        )


def load() -> None:
    """Load every plug-in that was not tried yet: entry points, then the files of `TAL_PLUGINS`."""
    for group, point in _entry_points():
        _once(f"{group}:{point.name}={point.value}", point.value.partition(":")[0], point.load)
    for file in files():
        _once(str(file), module_of(file), lambda file=file: _run(file))


def files() -> list[Path]:
    """Files of `TAL_PLUGINS`, in order."""
    return [Path(name).expanduser().absolute() for name in _named()]


def broken() -> dict[str, str]:
    """What could not be loaded: module → why, in one line."""
    return dict(_broken)


def module_of(file: Path) -> str:
    """Name of the module that a plug-in's file becomes."""
    return f"tal_plugin_{file.stem}_{digest(str(file))[:8]}"


def reason(error: BaseException) -> str:
    """An error of somebody's code in one line: kind, message, and the place in the code."""
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
    name = module_of(file)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
