"""The declared versions of the code that makes numbers: `versions.toml`, one line per area.

A person declares a version and raises it when numbers change. The file also has the fingerprint of the
declared code. A change of code that nobody declared is therefore noticed at once.
"""

import json
import tomllib
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import write_text

PATH = Path(__file__).with_name("versions.toml")
FIRST = "1"  # version of an area that a record does not name
HEADER = """# Versions of the code that makes numbers; `tal versions` reads and writes this file.
# areas: area -> version, and the fingerprint of the code that has it.
# moved: area -> the name it had before, under which records know it.
# added: parameters that a notebook gained later, with the value that its older records had in effect.
# raised, stamped: what was declared, when, and why it holds.
"""


@dataclass(frozen=True)
class Declared:
    """Declared version of an area, and the fingerprint of its code."""

    version: int
    fingerprint: str


@dataclass
class Versions:
    """The content of the file."""

    areas: dict[str, Declared] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    added: dict[str, dict] = field(default_factory=dict)
    raised: list[dict] = field(default_factory=list)
    stamped: list[dict] = field(default_factory=list)

    def copy(self) -> "Versions":
        """A copy with the same content."""
        return deepcopy(self)

    def effective(self, area: str, fingerprint: str) -> str:
        """The version of code with this fingerprint, as text.

        It is the declared version if the fingerprint matches. For other code, part of the fingerprint is
        added.
        """
        declared = self.areas.get(area)
        if declared and declared.fingerprint == fingerprint:
            return str(declared.version)
        return f"{declared.version if declared else 0}+{fingerprint[:8]}"

    def added_to(self, notebook: str) -> dict:
        """Parameters that a notebook (`01_data.ipynb`) gained later, with their earlier implicit values."""
        return self.added.get(notebook_area(notebook), {})

    def write(self, path: Path = PATH) -> None:
        """Write the file under a temporary name and rename it."""
        lines = [HEADER, "[areas]"]
        lines += [
            f'{json.dumps(area)} = {{ version = {entry.version}, fingerprint = "{entry.fingerprint}" }}'
            for area, entry in sorted(self.areas.items())
        ]
        lines += ["", "[moved]", *(f"{_toml(new)} = {_toml(old)}" for new, old in sorted(self.moved.items()))]
        for notebook, values in sorted(self.added.items()):
            lines += [
                "",
                f"[added.{_toml(notebook)}]",
                *(f"{name} = {_toml(value)}" for name, value in values.items()),
            ]
        for kind in ("raised", "stamped"):
            for entry in getattr(self, kind):
                lines += ["", f"[[{kind}]]", *(f"{name} = {_toml(value)}" for name, value in entry.items())]
        write_text(path, "\n".join(lines) + "\n", state=True)  # `moved` and `added` are edited by hand


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(name)} = {_toml(entry)}" for name, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def notebook_area(notebook: str) -> str:
    """The area of a notebook, by its file name."""
    return f"notebooks/{notebook.removesuffix('.ipynb')}"


def read_versions(path: Path = PATH) -> Versions:
    """Read the declared versions.

    Raises:
        TalError: the file is damaged.
    """
    return _read(path, path.stat().st_mtime_ns if path.is_file() else None)


@cache
def _read(path, changed):
    if changed is None:
        return Versions()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        areas = {
            area: Declared(int(entry["version"]), str(entry["fingerprint"]))
            for area, entry in content["areas"].items()
        }
        more = {
            name: content.get(name, kind())
            for name, kind in (("moved", dict), ("added", dict), ("raised", list), ("stamped", list))
        }
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise TalError(
            f"not a file of versions ({str(error).splitlines()[0]})",
            where=path,
            remedy="Restore it from git.",
        ) from None
    return Versions(areas, **more)


def completed(notebook: str, parameters: dict) -> dict:
    """Parameters of a record, with those that its notebook gained later."""
    added = read_versions().added_to(notebook)
    return {**added, **parameters} if added.keys() - parameters.keys() else parameters
