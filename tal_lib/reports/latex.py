"""LaTeX of tables for readers: it compiles, fits the page width, and sets the best values in bold.

A paper needs `booktabs`, `graphicx` and `array`. A narrow table is a `table` (one column of a two-column
paper), a wide one a `table*`. A table that is still too wide is scaled down. A table longer than a page is
split into several tables.
"""

import re
from dataclasses import dataclass

import pandas as pd

from tal_lib.reports.escape import latex

PACKAGES = ("array", "booktabs", "graphicx")
ROWS = 40  # of one table; more do not fit on a page
LONG_TEXT = 30  # characters; a longer cell is broken into lines
CHARACTER_PT, GAP_PT, COLUMN_PT = (
    4.6,
    12,
    240,
)  # approximate, in \small; a column of a two-column paper
FIGURES = re.compile(r"[-+−\d.,<>≤≥≈±× %()\[\]–e]*")  # numbers, with or without an interval
FIRST_NUMBER = re.compile(r"[≤≥]? ?([-+−]?[\d,]*\.?\d+)")


@dataclass(frozen=True)
class Best:
    """Which values of a table are the best.

    high, low: columns in which the largest or the smallest value is best (`...`: all columns of numbers).
    within: compare only rows with equal values in these columns. by_row: the best value of each row instead
    of each column.
    """

    high: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    by_row: bool = False


HIGHEST, LOWEST = Best(high=(...,)), Best(low=(...,))


def best_cells(table: pd.DataFrame, best: Best) -> pd.DataFrame:
    """The cells with the best values: a table of booleans. Values that look equal are equally good.

    table: the cells as shown. The first number of a cell such as `81.3 [79.0, 84.1]` counts.
    """
    values = table.map(_first_number)
    marked = pd.DataFrame(False, index=table.index, columns=table.columns)
    for wanted, sign in ((best.high, 1), (best.low, -1)):
        if wanted == (...,):  # all columns of numbers; the first column names the row
            columns = [
                name for name in table.columns[1:] if name not in best.within and values[name].notna().any()
            ]
        else:
            columns = [name for name in table if name in wanted]
        signed = sign * values[columns]
        if best.by_row:
            marked[columns] = signed.eq(signed.max(axis=1), axis=0) & signed.notna()
        elif best.within:
            keys = [table[name] for name in best.within]
            marked[columns] = signed.eq(signed.groupby(keys, sort=False).transform("max")) & signed.notna()
        else:
            marked[columns] = signed.eq(signed.max()) & signed.notna()
    return marked


def _first_number(cell):
    """The number for the comparison of a cell; NaN for text."""
    text = str(cell).strip()
    match = FIRST_NUMBER.match(text) if FIGURES.fullmatch(text) else None
    return float(match[1].replace(",", "").replace("−", "-")) if match else float("nan")


def latex_table(table: pd.DataFrame, caption: str, label: str, best: Best | None = None) -> str:
    r"""The table in LaTeX, with escaped text. Columns of numbers and intervals are aligned right.

    Args:
        table: the cells as shown.
        label: the name for `\ref`, after `tab:`; letters, digits, `-`.
    """
    marked = (
        best_cells(table, best) if best else pd.DataFrame(False, index=table.index, columns=table.columns)
    )
    widths = [max(len(str(text)) for text in (name, *column)) for name, column in table.items()]
    form = "".join(_column(column, width) for (_, column), width in zip(table.items(), widths, strict=True))
    width = sum(min(width, LONG_TEXT) * CHARACTER_PT + GAP_PT for width in widths)
    kind = "table" if width <= COLUMN_PT else "table*"
    head = " & ".join(latex(name) for name in table)
    rows = zip(
        table.itertuples(index=False, name=None), marked.itertuples(index=False, name=None), strict=True
    )
    lines = [" & ".join(map(_cell, cells, bold)) for cells, bold in rows]
    parts = [lines[start : start + ROWS] for start in range(0, len(lines), ROWS)] or [[]]
    floats = (
        _float(kind, form, head, part, caption, label, number, len(parts))
        for number, part in enumerate(parts, 1)
    )
    return f"% needs \\usepackage{{{','.join(PACKAGES)}}}\n" + "\n".join(floats)


def _cell(text, bold):
    return f"\\textbf{{{latex(text)}}}" if bold else latex(text)


def _column(column, width):
    """The column type: numbers right, text left, long text in several lines."""
    if column.map(lambda cell: bool(FIGURES.fullmatch(str(cell)))).all():
        return "r"
    longest_word = max(len(word) for cell in column for word in str(cell).split() or [""])
    if width <= LONG_TEXT or longest_word > LONG_TEXT / 2:
        return "l"
    return f">{{\\raggedright\\arraybackslash}}p{{{LONG_TEXT / 2:g}em}}"


def _float(kind, form, head, lines, caption, label, number, count):
    part = f" (part {number} of {count})" if count > 1 else ""
    suffix = f"-{number}" if number > 1 else ""
    rows = "".join(f"{line} \\\\\n" for line in lines)
    return (
        f"\\begin{{{kind}}}[tbp]\n\\centering\n\\small\n\\caption{{{latex(caption)}{part}}}\n\\label{{tab:{label}{suffix}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{form}}}\n\\toprule\n{head} "
        f"\\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}}}\n\\end{{{kind}}}\n"
    )
