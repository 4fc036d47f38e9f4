"""Text in CSV files: what a spreadsheet would calculate gets a `'` in front, which readers take away."""

import re

import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBERS = re.compile(r"[-+−\d.,;:%()\[\] ±×≤≥<>≈–]*|[-+]?(inf|infinity|nan)|[-+]?[\d.]+e[-+]?\d+", re.I)


def csv(value: object) -> object:
    """A cell that a spreadsheet reads as text. A text that looks like a formula gets `'` in front.

    Numbers stay numbers. Text of digits, signs and brackets only, such as `+0.9 [+0.2, +1.6]`, is harmless
    and stays unchanged.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _is_plain_number(value):
        return "'" + value
    return value


def csv_plain(value: object) -> object:
    """The original text of a cell from `csv`."""
    if isinstance(value, str) and value.startswith("'") and csv(value[1:]) == value:
        return value[1:]
    return value


def _is_plain_number(text):
    return text[0] in "+-" and bool(_NUMBERS.fullmatch(text))


def csv_table(table: pd.DataFrame, cell=csv) -> pd.DataFrame:
    """The table with `cell` applied to its texts and headings."""
    texts = {
        name: column.map(cell) for name, column in table.items() if column.dtype == object or _is_text(column)
    }
    return (table.assign(**texts) if texts else table).rename(columns=cell)


def _is_text(column):
    return isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype)
