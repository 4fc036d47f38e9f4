"""Numbers that a person typed into `docs/`: each names the table that holds it, and is compared with it.

README and RESULTS are filled from the tables. A page of `docs/` is written by hand. The numbers of a section
are listed in a comment at its end, one per line:

    <!-- numbers
    1.29 = cell(latency_thumos14_cpu, "36,864", model="temporalmaxer") / 1000
    10 > highest(repeatability, "change") * 100
    86.8, 90.2: the means of four seeds, typed on 2026-11-25
    -->

A line says that the number in the text is the value, rounded to the digits of the text (`=`), or a bound of
it (`<`, `<=`, `>`, `>=`). `* = any(fidelity, model="bmn")` says that every number of five digits or more is
somewhere in these rows. A line with a colon gives the reason why numbers have no table, such as history or a
setting; `*: reason` is for all numbers of the section.

`python -m tal_lib.reports.quoted` prints every number of the pages that differs from its table.
"""

import ast
import operator
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables.files import read_csv

NUMBER = re.compile(r"(?<![\w.])(?<!\d,)[-−+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-−+]?\d+)?(?!\w|,\d{3}|\.\d)")
COUNT = r"(\d+(?:,\d{3})*)"
COUNTS = re.compile(rf"(?<![\d.,]){COUNT} of (?:the |these |all )?{COUNT}(?![\d.,]*\d| ?%)")  # 61 of the 85
COMMENT = re.compile(r"<!-- numbers\n(.*?)\n?-->", re.S)
NOT_PROSE = (  # code, links' targets, comments: no numbers that a reader is told
    re.compile(r"^```.*?^```", re.S | re.M),
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\]\([^)]*\)"),
)
LINE = re.compile(r"(\S+) (=|<=?|>=?) (.+)")
REASON = re.compile(r"([^:]+): (.+)")
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
LONG = 5  # digits of a number that `* = any(…)` looks for
PAGES = REPOSITORY / "docs"
# pages and folders whose numbers need no table, unless they name one
WITHOUT = {
    "protocol.md": "a plan, written before the runs; it is never changed",
    "fidelity.md": "settings of other people's code; its long numbers are compared",
    "reliability.md": "numbers of injected faults",
    "adding-a-dataset.md": "settings",
    "glossary.md": "settings",
    "notebooks.md": "settings",
    "decisions": "dated: what was known on the day of the decision",
    "releases": "dated",
}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub)


@dataclass(frozen=True)
class Section:
    """A part of a page from one heading to the next: its place, its prose, and the lines of its comment."""

    place: str
    prose: str
    lines: tuple[str, ...]

    @property
    def numbers(self) -> list[str]:
        """The numbers of the prose, as written."""
        return NUMBER.findall(self.prose)


def sections(page: Path) -> list[Section]:
    """The sections of a Markdown page."""
    parts = re.split(r"^(?=#+ )", re.sub(NOT_PROSE[0], "", page.read_text(encoding="utf-8")), flags=re.M)
    made = []
    for part in filter(str.strip, parts):
        prose = part
        for pattern in NOT_PROSE:
            prose = pattern.sub(" ", prose)
        lines = [line.strip() for text in COMMENT.findall(part) for line in text.splitlines()]
        title = part.partition("\n")[0].lstrip("# ")
        made.append(Section(f"{page.name}, {title}", prose, tuple(filter(None, lines))))
    return made


def differences(section: Section, layout: Layout | None = None, *, complete: bool = True) -> list[str]:
    """What a section says otherwise than the tables: one text each.

    Args:
        complete: whether a number with a fraction or an exponent, or a count such as `61 of 85`, must be
            listed.

    Raises:
        TalError: a line that cannot be read, or that names a table, column or row that is not there.
    """
    layout, problems, listed, among = layout or Layout(), [], set(), []
    for line in section.lines:
        if match := LINE.fullmatch(line):
            quoted, relation, expression = match.groups()
            value = evaluated(expression, layout, f"{section.place}: {line}")
            if isinstance(value, list):
                among += value
                continue
            listed.add(quoted)
            if not agrees(quoted, relation, value):
                problems.append(f"{section.place}: {quoted}, but the table has {value:.6g} ({line})")
        elif match := REASON.fullmatch(line):
            listed |= set(section.numbers if match[1] == "*" else match[1].split(", "))
        else:
            raise TalError(f"cannot be read: {line}", where=section.place, remedy=f"See {__name__}.")
    gone = listed - set(section.numbers)
    problems += [f"{section.place}: {number} is listed, but not in the text" for number in sorted(gone)]
    rest = [number for number in section.numbers if number not in listed]
    unknown = [number for number in rest if _is_long(number) and among and not _is_among(number, among)]
    if complete:
        counted = {number for pair in COUNTS.findall(section.prose) for number in pair}
        measured = [number for number in rest if _is_measured(number) or number in counted]
        unknown += [number for number in measured if not _is_among(number, among)]
    return problems + [f"{section.place}: {number} is in no table" for number in dict.fromkeys(unknown)]


def agrees(quoted: str, relation: str, value: float) -> bool:
    """Whether a number in a text is a value rounded to its digits, or a bound of the value."""
    if relation == "=":
        return abs(rounded(value, quoted) - plain(quoted)) < 1e-12 * max(1.0, abs(value))
    return COMPARE[relation](plain(quoted), value)


def plain(quoted: str) -> float:
    """The number that a text means: `−1,234.5` → -1234.5."""
    return float(quoted.replace("−", "-").replace(",", ""))


def rounded(value: float, quoted: str) -> float:
    """A value with as many digits as the text of a number has."""
    mantissa, exponent, _ = quoted.partition("e")
    digits = len(mantissa.partition(".")[2])
    return float(f"{value:.{digits}{'e' if exponent else 'f'}}")


def _is_measured(number):
    """Whether a number looks measured: it has a fraction or an exponent."""
    return "." in number or "e" in number


def _is_long(number):
    digits = number.partition("e")[0].replace(".", "").replace(",", "")
    return len(digits.lstrip("-−+0")) >= LONG


def _is_among(number, values):
    return _is_long(number) and any(agrees(number, "=", value) for value in values)


def evaluated(expression: str, layout: Layout, where: str) -> float | list[float]:
    """The value of a line's right side: arithmetic over the functions in `FUNCTIONS`.

    The first argument is a table's name, the second a column; other arguments choose rows by the values of
    columns, see `chosen` and `numbers_of`.

    Raises:
        TalError: another expression, an unknown table or column, no such row or several.
    """
    try:
        return _value(ast.parse(expression, mode="eval").body, layout)
    except (SyntaxError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise TalError(f"{type(error).__name__}: {error}", where=where, remedy=f"See {__name__}.") from None


def _value(node, layout):
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ARITHMETIC):
        return -_value(node.operand, layout)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
        left, right = _value(node.left, layout), _value(node.right, layout)
        operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
        return operators.get(type(node.op), operator.truediv)(left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        name = node.args[0]
        table = table_of(name.id if isinstance(name, ast.Name) else ast.literal_eval(name), layout)
        given = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
        columns = [ast.literal_eval(argument) for argument in node.args[1:]]
        return FUNCTIONS[node.func.id](table, *columns, **given)
    raise ValueError(f"only arithmetic over {', '.join(FUNCTIONS)}")


@cache
def table_of(name: str, layout: Layout) -> pd.DataFrame:
    """A table by the name of its file, such as `"tables/factorial"`. All cells are text.

    Without a folder, the name is looked for in all folders of tables; there must be one table of that name.
    """
    folders = [layout.tables, layout.experiments, layout.prior, *layout.readers.glob("*")]
    paths = (
        [layout.results / f"{name}.csv"] if "/" in name else [folder / f"{name}.csv" for folder in folders]
    )
    paths = [path for path in paths if path.is_file()]
    if len(paths) != 1:
        raise ValueError(f"{len(paths)} tables are called {name}")
    return read_csv(paths[0], dtype=str, keep_default_na=False)


def chosen(table: pd.DataFrame, column: str | None = None, **rows) -> pd.DataFrame:
    """The rows whose columns have these values; a list: one of them. A leading `not_` inverts."""
    for name, value in rows.items():
        inverse = name.startswith("not_") and name not in table
        values = [str(part) for part in (value if isinstance(value, list) else [value])]
        among = table[name.removeprefix("not_") if inverse else name].isin(values)
        table = table[~among if inverse else among]
    if column is not None and column not in table:
        raise KeyError(f"no column {column!r}; columns: {', '.join(table)}")
    return table


def numbers_of(table: pd.DataFrame, column: str, part: int = 0, size: bool = False, **rows) -> list[float]:
    """The numbers in a column of the chosen rows. Cells without a number are left out.

    Args:
        part: which number of a cell that holds several, such as a mean and its interval.
        size: take the numbers without their signs.
    """
    cells = map(NUMBER.findall, chosen(table, column, **rows)[column])
    numbers = [plain(cell[part]) for cell in cells if len(cell) > part]
    return [abs(number) for number in numbers] if size else numbers


def _cell(table, column, **rows):
    (value,) = numbers_of(table, column, **rows)
    return value


def _any(table, **rows):
    rows = chosen(table, **rows)
    values = [plain(number) for name in rows for cell in rows[name] for number in NUMBER.findall(cell)]
    return values + [value / 1e9 for value in values if value > 1e6]  # MACs are written in G


FUNCTIONS = {
    "cell": _cell,
    "lowest": lambda *about, **rows: min(numbers_of(*about, **rows)),
    "highest": lambda *about, **rows: max(numbers_of(*about, **rows)),
    "median": lambda *about, **rows: float(pd.Series(numbers_of(*about, **rows)).median()),
    "mean": lambda *about, **rows: float(pd.Series(numbers_of(*about, **rows)).mean()),
    "count": lambda table, *column, **rows: len(chosen(table, *column, **rows)),
    "different": lambda table, column, **rows: chosen(table, column, **rows)[column].nunique(),
    "any": _any,
}


def all_differences(page: Path, layout: Layout | None = None) -> list[str]:
    """What a page says otherwise than the tables."""
    complete = WITHOUT.keys().isdisjoint({page.name, page.parent.name})
    return [text for section in sections(page) for text in differences(section, layout, complete=complete)]


if __name__ == "__main__":
    problems = [text for page in sorted(PAGES.rglob("*.md")) for text in all_differences(page)]
    print("\n".join(problems) or "Every number agrees with its table.")
    sys.exit(bool(problems))
