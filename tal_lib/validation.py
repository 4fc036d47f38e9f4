"""Validation of all settings: a value is checked against a declared type before work begins.

Types are those of plain dataclasses (`int`, `float`, `Literal[...]`, `tuple[float, float]`), with the bounds
below. Numbers may be text, as on a command line: `validate(Recipe, {"learning_rate": "1e-3"})`. A boolean is
not accepted as a number, and huge numbers are refused. A bad value ends in one `TalError` that names the
option, its value and what is accepted.

A dataclass that derives from `Checked` is checked whenever an instance is made, also in Python code. A
dataclass with `others_ignored` accepts a mapping with further fields, as in published annotation files.
"""

import dataclasses
import difflib
import numbers
import types
import typing
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from tal_lib.errors import TalError, short

LARGEST = 2**53  # largest number: above it, floats cannot represent every integer
LARGEST_SIZE = 2**16  # largest width, kernel, or number of layers or heads

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
OpenProbability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]
SizeOrZero = Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Gigabytes = Annotated[float, Field(ge=1e-3, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: any free port
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fold = Annotated[int, Field(ge=-1, lt=2**32)]  # number of a cross-validation fold; −1: the official split


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]
OddSize = Annotated[int, Field(ge=1, le=LARGEST_SIZE), AfterValidator(_odd)]

T = TypeVar("T")


def validate(
    kind: type[T] | Any, value, *, where: object = None, name: str = "", remedy: str | None = None
) -> T:
    """`value` as `kind`: a dataclass from a mapping of its fields, a number from text, a tuple from a list.

    Args:
        kind: a type that pydantic understands; dataclasses refuse unknown names.
        where: the file or command that the value comes from; name: the name of the value there.
        remedy: what to do. By default the error's standard remedy (the accepted names, if a name is unknown).

    Raises:
        TalError: for the first value that does not fit.
    """
    if _is_dataclass(kind):
        return _fields_from(kind, value, where, name, remedy)
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(filter(None, [name, *(_text(part) for part in first["loc"])]))
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, TalError):
            problem = f"{place}: {cause.problem}" if place else cause.problem
            raise TalError(problem, where=where, remedy=remedy or cause.remedy) from None
        if not first["loc"]:
            first["input"] = value  # as given, before text was converted to a number
        raise TalError(_problem(place, first), where=where, remedy=remedy) from None


class Checked:
    """Base of frozen dataclasses whose fields are checked against their types when an instance is made."""

    def __post_init__(self):
        for name, kind in _hints(type(self)).items():
            value = validate(kind, getattr(self, name), name=name, remedy=_default(type(self), name))
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Check rules that involve several fields.

        Raises:
            TalError: fields that contradict each other.
        """


def require(holds: bool, problem: str, remedy: str) -> None:
    """Raise `TalError(problem, remedy=remedy)` unless the condition is true."""
    if not holds:
        raise TalError(problem, remedy=remedy)


def require_divides(config, whole: str, *parts: str) -> None:
    """Raise `TalError` unless each of the fields `parts` of a config divides its field `whole`."""
    total = getattr(config, whole)
    for part in parts:
        count = getattr(config, part)
        require(
            total % count == 0,
            f"{part}: {count} does not divide {whole}: {total}",
            f"Choose a {part} that divides {whole}.",
        )


def unknown_name(
    given, known, *, where: object = None, name: str = "option", remedy: str | None = None
) -> TalError:
    """The error for an unknown name. It suggests similar names and lists all known ones."""
    return TalError(
        f"unknown {name} {short(given)}",
        where=where,
        remedy=remedy or f"Choose from {', '.join(map(str, known))}.{did_you_mean(given, known)}",
    )


def did_you_mean(given, known) -> str:
    """A question for the end of a remedy: the known name that is most similar; empty if none is."""
    close = difflib.get_close_matches(str(given), [str(candidate) for candidate in known], n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _is_dataclass(kind):
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _fields_from(kind, value, where, name, remedy):
    """A dataclass from a mapping, field by field. An instance is returned unchanged."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        place = f"{name}: " if name else ""
        raise TalError(
            f"{place}{short(value)} is not a mapping of names to values", where=where, remedy=remedy
        )
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if getattr(kind, "others_ignored", False):
        value = {key: given for key, given in value.items() if key in fields}
    for key in value:
        if key not in fields:
            raise unknown_name(key, fields, where=where, name=name or "option", remedy=remedy)
    hints, values = _hints(kind), {}
    for key, given in value.items():
        place = f"{name}.{key}" if name else key
        values[key] = validate(
            hints[key], given, where=where, name=place, remedy=remedy or _default(kind, key)
        )
    for key, field in fields.items():
        if key not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise TalError(
                f"{name}.{key} is missing" if name else f"{key} is missing", where=where, remedy=remedy
            )
    try:
        return kind(**values)
    except TalError as error:
        raise error if where is None else error.at(where) from None


def _default(kind, name):
    """The remedy for a field's bad value: its default."""
    default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
    shown = list(default) if isinstance(default, tuple) else default
    return None if default in (dataclasses.MISSING, None) else f"The default is {short(shown)}."


@cache
def _hints(kind):
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


@cache
def _adapter(kind):
    return TypeAdapter(_strict(kind))


def _strict(kind):
    """A type in which numbers are checked by `_number` first, and dataclasses by `validate`."""
    if kind in (int, float):
        return Annotated[kind, BeforeValidator(_number)]
    if kind is str:
        return Annotated[str, Strict(), AfterValidator(_text_of_characters)]  # bytes are not text
    if _is_dataclass(kind):
        return Annotated[Any, BeforeValidator(lambda value: validate(kind, value))]
    origin, parts = get_origin(kind), get_args(kind)
    if (
        origin is Annotated
    ):  # pydantic runs the last of these validators first: the number is looked at before its bounds
        base, checks = parts[0], parts[1:]
        if base in (int, float):
            return Annotated[(base, *checks, BeforeValidator(_number))]
        return Annotated[(_strict(base), *checks)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_strict, parts))]  # noqa: UP007 (of a tuple of types)
    if origin in (tuple, list, dict, set, frozenset):
        return origin[tuple(part if part is Ellipsis else _strict(part) for part in parts)]
    return kind


def _text_of_characters(value: str) -> str:
    """Text that no file can hold: half of a character (a lone surrogate)."""
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("text that can be written as UTF-8")
    return value


def _number(value):
    """A number of any library, or text of a number, as Python's number. Other values are returned unchanged.

    Raises:
        ValueError: a boolean, or a huge number.
    """
    if isinstance(value, bool):
        raise ValueError("a number")
    if isinstance(value, str):
        for read in (int, float):
            try:
                value = read(value)
                break
            except ValueError:
                continue
    elif isinstance(value, numbers.Real):
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a number of reasonable size")
    return value


def _rate(value):
    """A rate per second: 25, "29.97" or "30000/1001"."""
    if isinstance(value, str) and "/" in value:
        above, _, below = value.partition("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError("a rate such as 25 or 30000/1001") from None
    return _number(value)


Rate = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False), BeforeValidator(_rate)]


def _text(part):
    return str(part) if not isinstance(part, int) else str(part + 1)


# pydantic's kind of error -> what was expected
_EXPECTED = {
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of reasonable size",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "list_type": "a list",
    "tuple_type": "a list of values",
    "dataclass_type": "a mapping of names to values",
}


def _problem(place, error):
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "missing":
        return f"{place} is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown option {place}"
    if kind == "literal_error":
        expected = f"one of {context['expected']}".replace("'", "")
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        bound = next(iter(context))
        expected = f"{words[bound]} {context[bound]:g}"
    elif kind in ("too_short", "too_long"):
        bound = "at least" if kind == "too_short" else "at most"
        length = context.get("min_length", context.get("max_length"))
        expected = f"{bound} {length} value{'s' * (length != 1)}"
    elif kind in ("value_error", "assertion_error"):
        expected = str(context["error"])
    else:
        expected = _EXPECTED.get(kind, error["msg"])
    return f"{place}: {short(value)} is not {expected}" if place else f"{short(value)} is not {expected}"
