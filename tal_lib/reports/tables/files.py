"""Tables as files: tidy tables as CSV or Parquet; tables for readers as Markdown, LaTeX and CSV.

A file is written only if its content changes.
"""

import io
import re
from pathlib import Path

import pandas as pd
from pandas.api.types import is_float_dtype

from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.reports import escape
from tal_lib.reports.latex import Best, best_cells, latex_table

NUMBER = re.compile(r"[<>≤≈ ]*[-+−]?[\d.,]+( ?%)?$|–?$")  # as shown to readers; – is a missing value


def keep(path: str | Path, content: str | bytes) -> Path:
    """Write a file atomically, unless it already has this content. Its modification time then stays."""
    path, content = Path(path), content.encode() if isinstance(content, str) else content
    if not (path.is_file() and path.read_bytes() == content):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return path


def write_csv(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a table as `<name>.csv`.

    Text that a spreadsheet would calculate gets `'` in front. `read_csv` removes it.
    """
    return keep(
        Path(folder) / f"{name}.csv", escape.csv_table(table).to_csv(index=False, float_format="%.10g")
    )


def read_csv(path: str | Path, **options) -> pd.DataFrame:
    """A table from `write_csv`; an empty table if the file does not exist. options: of `pandas.read_csv`."""
    if not Path(path).is_file():
        return pd.DataFrame()
    return escape.csv_table(pd.read_csv(path, **options), escape.csv_plain)


def write_parquet(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a large table.

    A file with the same table stays, even if another version of pyarrow wrote it.
    """
    path = Path(path)
    if path.is_file():
        try:
            if read_parquet(path).equals(_as_stored(table)):
                return path
        except (OSError, ValueError):  # a damaged file is rewritten
            pass
    content = io.BytesIO()
    _as_stored(table).to_parquet(content, index=False, compression="zstd")
    return keep(path, content.getvalue())


def read_parquet(path: str | Path) -> pd.DataFrame:
    """A table from `write_parquet`."""
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise TalError("pyarrow is not installed", where=path, remedy="`pip install pyarrow`.") from None


def _as_stored(table):
    """The table as the file returns it: one text type, no index."""
    texts = {name: "str" for name, column in table.items() if column.dtype == object}
    return table.astype(texts).reset_index(drop=True)


def write_table(table: pd.DataFrame, path: str | Path, caption: str, best: Best | None = None) -> Path:
    """Write a table for readers as Markdown (`path`), LaTeX and CSV.

    Args:
        best: the values that Markdown and LaTeX have in bold; none by default.
    """
    path = Path(path)
    write_csv(table, path.parent, path.stem)
    shown = table.apply(_as_read)
    numbers = [column.map(lambda value: bool(NUMBER.match(str(value)))).all() for _, column in shown.items()]
    label = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "table"
    keep(path.with_suffix(".tex"), latex_table(shown, caption, label, best, f"{path.stem}.csv"))
    text = shown.map(escape.markdown)
    markdown = (
        text.mask(best_cells(shown, best), "**" + text + "**")
        .rename(columns=escape.markdown)
        .to_markdown(
            index=False, disable_numparse=True, colalign=["right" if number else "left" for number in numbers]
        )
    )
    return keep(path, f"{escape.markdown(caption)}\n\n{markdown}\n")


def read_table(path: str | Path) -> tuple[str, pd.DataFrame]:
    """(caption in Markdown, table) from `write_table`. path: of the Markdown file."""
    path = Path(path)
    caption = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return caption, read_csv(path.with_suffix(".csv"), keep_default_na=False)


def _as_read(column):
    """A column as text. All numbers get equally many decimals, at most three; missing values become –."""
    if not is_float_dtype(column):
        return column.fillna("–")
    decimals = max((len(f"{value:.3f}".rstrip("0").split(".")[1]) for value in column.dropna()), default=0)
    return column.map(lambda value: "–" if pd.isna(value) else f"{value:,.{decimals}f}")
