"""Reading of users' text, JSON, YAML and XML files, with size limits and one clear error for each problem.

Nothing that is read is executed. Nothing is unpacked without a limit: a few megabytes of gzip or YAML can
stand for gigabytes.
"""

import gzip
import json
import re
import zlib
from pathlib import Path

import yaml
from defusedxml import DefusedXmlException, ElementTree

from tal_lib.errors import TalError, short

LARGEST = 2**30  # bytes of unpacked text: ActivityNet's annotations are 20 MB, its detections 200 MB
LONGEST_INTEGER = 300  # digits: a float cannot hold more
MOST_NODES = 200_000  # nodes of a YAML file with its aliases expanded
_CHUNK = 2**20
# half of a character, escaped: a high surrogate without a low one, or a low one alone
_HALF = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def read_bytes(
    path: str | Path, *, what: str = "file", remedy: str | None = None, largest: int = LARGEST
) -> bytes:
    """The contents of a file, unpacked if its name ends in `.gz`.

    Args:
        what: what the file is, for the error; remedy: what to do if it is missing.
        largest: limit, in bytes, on its unpacked size.

    Raises:
        TalError: missing, a folder, unreadable, damaged, or larger than `largest`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise TalError(
                f"is a folder, not {_a(what)}", where=path, remedy=remedy or "Give the path of the file."
            )
        if path.suffix != ".gz" and path.stat().st_size > largest:
            raise _too_large(path, what, largest)
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            parts, size = [], 0
            while part := file.read(_CHUNK):
                size += len(part)
                if size > largest:
                    raise _too_large(path, what, largest)
                parts.append(part)
    except FileNotFoundError:
        raise TalError(f"{what} not found", where=path, remedy=remedy or "Check the path.") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, TalError):
            raise
        raise TalError(
            f"cannot be read ({error})", where=path, remedy="Copy or download the file again."
        ) from None
    return b"".join(parts)


def read_text(
    path: str | Path, *, what: str = "file", remedy: str | None = None, largest: int = LARGEST
) -> str:
    """The text of a UTF-8 file, without its byte-order mark; arguments and errors as in `read_bytes`."""
    raw = read_bytes(path, what=what, remedy=remedy, largest=largest)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TalError(
            f"{what} is not UTF-8 text ({error.reason} at byte {error.start:,})",
            where=path,
            remedy="Save it as UTF-8.",
        ) from None


def read_json(path: str | Path, *, what: str = "file", remedy: str | None = None, largest: int = LARGEST):
    """The value of a JSON file.

    A name that occurs twice in one object is an error. An integer that no float can hold is an error, too.
    """
    return parse_json(read_text(path, what=what, remedy=remedy, largest=largest), where=path)


def parse_json(text: str, *, where: object):
    """The value of JSON text; `where` names its file in the error."""
    if ("\\ud" in text or "\\uD" in text) and _HALF.search(text):
        raise TalError(
            "contains an incomplete character (a lone surrogate, \\ud800 to \\udfff)",
            where=where,
            remedy="Write the file again as UTF-8.",
        )
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except _Repeated as error:
        raise TalError(
            f"{short(error.args[0])} is listed twice", where=where, remedy="Keep one entry for each name."
        ) from None
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TalError(
            f"not valid JSON ({problem})",
            where=where,
            remedy="The file may be truncated; copy or write it again.",
        ) from None


def read_yaml(path: str | Path, *, what: str = "file", remedy: str | None = None, largest: int = 16 * 2**20):
    """The value of a YAML file. `1e-3` is read as a number; the expansion of aliases is limited."""
    return parse_yaml(read_text(path, what=what, remedy=remedy, largest=largest), where=path)


def parse_yaml(text: str, *, where: object = None):
    """The value of YAML text; `where` names its file in the error."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > MOST_NODES:
                raise TalError(
                    f"expands to more than {MOST_NODES:,} values",
                    where=where,
                    remedy="Write fewer values, without nested aliases.",
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        if isinstance(error, TalError):
            raise
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise TalError(
            f"not valid YAML ({problem})", where=where, remedy="Check its quotes, colons and indents."
        ) from None


def means(text: str, value) -> bool:
    """Whether text that a person types stands for a value: `1` for 1.0, `true` for True, `[1, 2]` for a list.

    Text stands for itself. A number is never a truth value.
    """
    if str(value) == text:
        return True
    try:
        typed = parse_yaml(text)
    except TalError:
        return False
    return not isinstance(value, str) and _alike(typed, value)


def _alike(a, b):
    """Whether two plain values are equal, also 1 and 1.0; but neither 1 and True, nor 1 and "1"."""
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a == b


def read_xml(path: str | Path, *, what: str = "file", remedy: str | None = None, largest: int = 2**28):
    """The root element of an XML file (`xml.etree.ElementTree.Element`), in the encoding that it declares.

    A document type is refused: its entities could expand to gigabytes, or read other files.
    """
    return parse_xml(read_bytes(path, what=what, remedy=remedy, largest=largest), where=path)


def parse_xml(raw: bytes, *, where: object):
    """The root element of XML; `where` names its file in the error."""
    try:
        return ElementTree.fromstring(raw, forbid_dtd=True)
    except DefusedXmlException:
        raise TalError(
            "holds a document type (DOCTYPE), which may expand to gigabytes or read other files",
            where=where,
            remedy="Save it again with a current version of its program, or remove the DOCTYPE.",
        ) from None
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError, MemoryError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TalError(
            f"not valid XML ({problem})",
            where=where,
            remedy="The file may be truncated or in another encoding; save it again as UTF-8.",
        ) from None


class _Repeated(Exception):
    """A name that occurs twice in one JSON object."""


def _unique(pairs):
    result = dict(pairs)
    if len(result) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _Repeated(key)
            seen.add(key)
    return result


def _integer(text):
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text):,} digits")
    return int(text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers of YAML 1.2: `1e-3` and `5E4` are floats.

    A name that occurs twice in one mapping is an error.
    """

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        known = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in known:
                    raise ValueError(f"{short(key.value)} is listed twice")
                known.add(key.value)
        return node

    def construct_yaml_int(self, node):
        if len(node.value) > LONGEST_INTEGER:
            raise ValueError(f"an integer of {len(node.value):,} digits")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _size(node, known):
    """Number of values that a YAML node stands for, with its aliases expanded."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_NODES + 1  # for a node that contains itself
    if isinstance(node, yaml.MappingNode):
        size = 1 + sum(_size(key, known) + _size(value, known) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_size(value, known) for value in node.value)
    else:
        size = 1
    known[id(node)] = size
    return size


def _too_large(path, what, largest):
    return TalError(
        f"{what} holds more than {largest / 2**20:,.0f} MiB"
        + (" unpacked" if Path(path).suffix == ".gz" else ""),
        where=path,
        remedy="Check that it is the right file.",
    )


def _a(what):
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
