"""LaTeX of tables for readers: it compiles, fits the page width, and sets the best values in bold.

A paper needs `booktabs`, `graphicx` and `array`. A narrow table is a `table` (one column of a two-column
paper), a wide one a `table*`. Long headings are broken into lines. A table that would be unreadably small on
the page's width is split by columns, and one that is longer than a page by rows. A table of more than
`MOST_PARTS` pages is cut, and its caption names the CSV file with all rows.
"""

import re
import textwrap
from dataclasses import dataclass

import pandas as pd

from tal_lib.reports.escape import latex

PACKAGES = ("array", "booktabs", "graphicx")
ROWS = 36  # lines of one table; more do not fit on a page
LONG_TEXT = 30  # characters; a longer cell is broken into lines of this length
VERY_LONG_TEXT = 48  # characters; the length of the lines of a cell of more than two lines of `LONG_TEXT`
HEADING = 12  # characters; a heading that is longer than this and than its cells is broken into lines
CHARACTER_PT, GAP_PT = 4.6, 12  # approximate widths in \small: of a digit, and between two columns
COLUMN_PT, PAGE_PT = 240, 345  # widths of a column of a two-column paper, and of the text of `article`
SMALLEST = 0.6  # scale of a table that is wider than the page: \small then has 5.4 pt
MOST_PARTS = 5  # tables of `ROWS` lines
NUMBERS = r"[-+−\d.,<>≤≥≈±× %()\[\]–e]*"  # with or without an interval
GROUPS = r"(?<=\d|\]) (?:[a-z]|\[\d+\])+"  # after an interval: the letters of equal models
FIGURES = re.compile(rf"{NUMBERS}|(?=.*[±\[]){NUMBERS}{GROUPS}")
FIRST_NUMBER = re.compile(r"[≤≥]? ?([-+−]?[\d,]*\.?\d+)")
NEVER_BEST = ("timeline_prior",)  # the floor, which reads no features: its rows take part in no comparison


@dataclass(frozen=True)
class Best:
    """Which values of a table are the best.

    high, low: columns in which the largest or the smallest value is best (`...`: all columns of numbers).
    within: compare only rows with equal values in these columns. by_row: the best value of each row instead
    of each column. A value alone, and values that are all equal, are not the best of anything.
    """

    high: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    by_row: bool = False


HIGHEST, LOWEST = Best(high=(...,)), Best(low=(...,))


def best_cells(table: pd.DataFrame, best: Best | None) -> pd.DataFrame:
    """The cells with the best values: a table of booleans. Values that look equal are equally good.

    table: the cells as shown. The first number of a cell such as `81.3 [79.0, 84.1] ab` counts.
    """
    marked = pd.DataFrame(False, index=table.index, columns=table.columns)
    if best is None:
        return marked
    floor = table.isin(NEVER_BEST).any(axis=1)
    values = table.map(_first_number)
    values[floor] = float("nan")
    for wanted, sign in ((best.high, 1), (best.low, -1)):
        if wanted == (...,):  # all columns of numbers; the first column names the row
            columns = [
                name for name in table.columns[1:] if name not in best.within and values[name].notna().any()
            ]
        else:
            columns = [name for name in table if name in wanted]
        signed = (sign * values[columns]).T if best.by_row else sign * values[columns]
        if best.within and not best.by_row:
            groups = signed.groupby([table[name] for name in best.within], sort=False)
            top, bottom = groups.transform("max"), groups.transform("min")
        else:
            top, bottom = signed.max(), signed.min()
        is_best = signed.eq(top) & signed.gt(bottom)
        marked[columns] = is_best.T if best.by_row else is_best
    return marked


def _first_number(cell):
    """The number for the comparison of a cell; NaN for text."""
    text = str(cell).strip()
    match = FIRST_NUMBER.match(text) if FIGURES.fullmatch(text) else None
    return float(match[1].replace(",", "").replace("−", "-")) if match else float("nan")


def latex_table(
    table: pd.DataFrame, caption: str, label: str, best: Best | None = None, source: str = ""
) -> str:
    r"""The table in LaTeX, with escaped text. Columns of numbers and intervals are aligned right.

    Args:
        table: the cells as shown.
        label: the name for `\ref`, after `tab:`; letters, digits, `-`.
        source: the CSV file with all rows, for the caption of a table that has to be cut.
    """
    marked = best_cells(table, best)
    whole, table = len(table), table.head(MOST_PARTS * ROWS)  # more cannot be shown
    columns = [_Column.of(str(name), column) for name, column in table.items()]
    rows = _pages(table, columns)[:MOST_PARTS]
    shown = rows[-1].stop
    if shown < whole:
        caption += f" First {shown:,} of {whole:,} rows{f'; {source} has all of them' * bool(source)}."
    table, marked = table.head(shown), marked.head(shown)
    width = sum(column.width for column in columns)
    kind = "table" if width <= COLUMN_PT else "table*"
    texts = [
        [_cell(text, bold) for text, bold in zip(table.iloc[:, place], marked.iloc[:, place], strict=True)]
        for place in range(len(columns))
    ]
    parts = [(places, part) for places in _readable(columns) for part in rows]
    floats = (
        _float(
            kind,
            "".join(columns[place].form for place in places),
            " & ".join(columns[place].heading for place in places),
            [" & ".join(texts[place][row] for place in places) for row in part],
            caption,
            label,
            number,
            len(parts),
        )
        for number, (places, part) in enumerate(parts, 1)
    )
    return f"% needs \\usepackage{{{','.join(PACKAGES)}}}\n" + "\n".join(floats)


@dataclass(frozen=True)
class _Column:
    """A column's alignment, its heading in LaTeX, its approximate width in points, and the characters that
    surely fit into a line of it."""

    form: str
    heading: str
    width: float
    line: int

    @classmethod
    def of(cls, name, column):
        cells = [str(cell) for cell in column]
        longest = max(map(len, cells), default=0)
        lines = textwrap.wrap(name, max(HEADING, min(longest, LONG_TEXT)), break_long_words=False) or [""]
        width = max(longest, *map(len, lines))
        line = LONG_TEXT if width <= 2 * LONG_TEXT else VERY_LONG_TEXT
        form = _form(cells, width, line)
        heading = r" \\ ".join(map(latex, lines))
        if len(lines) > 1:
            heading = f"\\shortstack[{'r' if form == 'r' else 'l'}]{{{heading}}}"
        return cls(form, heading, min(width, line) * CHARACTER_PT + GAP_PT, int(0.8 * line))


def _pages(table: pd.DataFrame, columns: list[_Column]) -> list[range]:
    """Groups of rows, each at most `ROWS` lines long; at least one group."""
    heights = [1] * len(table)
    for place, column in enumerate(columns):
        if column.form not in ("l", "r"):
            lines = (len(textwrap.wrap(str(cell), column.line)) for cell in table.iloc[:, place])
            heights = list(map(max, heights, lines))
    groups, start, lines = [], 0, 0
    for row, height in enumerate(heights):
        if lines + height > ROWS and row > start:
            groups.append(range(start, row))
            start, lines = row, 0
        lines += height
    return [*groups, range(start, len(table))]


def _readable(columns: list[_Column]) -> list[list[int]]:
    """Groups of columns, by place, that are readable on the page's width.

    Each group begins with the columns that name the rows: those of text on the left if they take at most half
    of the width, else the first one.
    """
    page = PAGE_PT / SMALLEST
    texts = next((place for place, column in enumerate(columns) if column.form == "r"), len(columns))
    names = texts if sum(column.width for column in columns[:texts]) <= page / 2 else 1
    names = max(1, names)
    limit = page - sum(column.width for column in columns[:names])
    widths = {place: columns[place].width for place in range(names, len(columns))}
    groups = _filled(widths, limit)
    while len(narrower := _filled(widths, limit - GAP_PT)) == len(groups) and limit > GAP_PT:
        groups, limit = narrower, limit - GAP_PT  # no part has a single column, if they can share
    return [[*range(names), *group] for group in groups]


def _filled(widths, limit):
    """Groups of neighbouring places; each is at most `limit` wide, or a single place."""
    groups, room = [[]], limit
    for place, width in widths.items():
        if groups[-1] and width > room:
            groups.append([])
            room = limit
        groups[-1].append(place)
        room -= width
    return groups


def _cell(text, bold):
    return f"\\textbf{{{latex(text)}}}" if bold else latex(text) or "--"


def _form(cells, width, line):
    """The column type: numbers right, text left, long text in several lines."""
    if all(FIGURES.fullmatch(cell) for cell in cells):
        return "r"
    longest_word = max(_printed_length(word) for cell in cells for word in cell.split() or [""])
    if width <= LONG_TEXT or longest_word > 0.8 * line:
        return "l"
    return f">{{\\raggedright\\arraybackslash}}p{{{line / 2:g}em}}"


def _printed_length(word):
    return sum(len("[U+0000]") if "[U+" in latex(letter) else 1 for letter in word)


def _float(kind, form, head, lines, caption, label, number, count):
    part = f" (part {number} of {count})" if count > 1 else ""
    if number > 1:  # the first part has the whole caption
        caption = f"Continued: {caption.partition('. ')[0].removesuffix('.')}."
    suffix = f"-{number}" if number > 1 else ""
    rows = "".join(f"{line} \\\\\n" for line in lines)
    return (
        f"\\begin{{{kind}}}[tbp]\n\\centering\n\\small\n\\caption{{{latex(caption)}{part}}}\n\\label{{tab:{label}{suffix}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{form}}}\n\\toprule\n{head} "
        f"\\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}}}\n\\end{{{kind}}}\n"
    )
