"""One door for everything that people set: a value of any type is checked against a declared type, before work begins.

Types are those of plain dataclasses (`int`, `float`, `Literal[...]`, `tuple[float, float]`), with the bounds below. Numbers may
be text, as on a command line: `validate(Recipe, {"learning_rate": "1e-3"})`. What does not fit ends in one `TalError` that
names the option, its value and what is accepted.
"""

import dataclasses
import difflib
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from tal_lib.errors import TalError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]

T = TypeVar("T")


def _number(value):
    """True and false are no numbers here, though Python and YAML take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def _rate(value):
    """Per second: 25, "29.97" or "30000/1001"."""
    if isinstance(value, str) and "/" in value:
        above, _, below = value.partition("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError("a rate such as 25 or 30000/1001") from None
    return _number(value)


NotBool = BeforeValidator(_number)  # in a type of its own bounds
Rate = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False), BeforeValidator(_rate)]


def validate(
    kind: type[T] | Any, value, *, where: object = None, name: str = "", remedy: str | None = None
) -> T:
    """`value` as `kind`: a dataclass from a mapping of its fields, a number from text, a tuple from a list.

    Args:
        kind: a type that pydantic understands; dataclasses refuse unknown names.
        where: file or command that the value comes from; name: what the value is called there.
        remedy: what to do; by default the message's own (the accepted names, where a name is unknown).

    Raises:
        TalError: the first thing that does not fit.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = [field.name for field in dataclasses.fields(kind) if field.init]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise unknown_name(unknown[0], known, where=where, name=name or "option", remedy=remedy)
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(filter(None, [name, *(_text(part) for part in first["loc"])]))
        raise TalError(_problem(place, first), where=where, remedy=remedy) from None


def unknown_name(
    given, known, *, where: object = None, name: str = "option", remedy: str | None = None
) -> TalError:
    """The error for a name that is not among the known ones: it says which come close, and lists all."""
    close = difflib.get_close_matches(str(given), [str(one) for one in known], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return TalError(
        f"unknown {name} {given!r}",
        where=where,
        remedy=remedy or f"Choose from {', '.join(map(str, known))}.{hint}",
    )


@cache
def _adapter(kind):
    return TypeAdapter(kind)


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
        expected = f"{context.get('min_length', context.get('max_length'))} values"
    elif kind in ("value_error", "assertion_error"):
        expected = str(context["error"])
        if isinstance(context["error"], TalError):
            return f"{place}: {expected}" if place else expected
    else:
        expected = _EXPECTED.get(kind, error["msg"])
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:79] + "…"
    return f"{place}: {shown} is not {expected}" if place else f"{shown} is not {expected}"
