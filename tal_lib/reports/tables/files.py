"""Tables as files: tidy ones as CSV or Parquet, those for readers as Markdown, LaTeX and CSV. A file is
written only if it would change."""

import io
import re
from pathlib import Path

import pandas as pd
from pandas.api.types import is_float_dtype

from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.reports import escape
from tal_lib.reports.latex import Best, latex_table

NUMBER = re.compile(r"[<>≤≈ ]*[-+−]?[\d.,]+( ?%)?$|–?$")  # as readers see it; – is a missing one


def keep(path: str | Path, content: str | bytes) -> Path:
    """Write a file whole; one that holds this already is left alone, so that its time of change says when its
    content changed."""
    path, content = Path(path), content.encode() if isinstance(content, str) else content
    if not (path.is_file() and path.read_bytes() == content):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return path


def write_csv(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a table as `<name>.csv`. Text that a spreadsheet would calculate gets a `'` in front; `read_csv`
    takes it away."""
    return keep(
        Path(folder) / f"{name}.csv", escape.csv_table(table).to_csv(index=False, float_format="%.10g")
    )


def read_csv(path: str | Path, **options) -> pd.DataFrame:
    """What `write_csv` wrote; an empty table if there is no such file. options: of `pandas.read_csv`."""
    if not Path(path).is_file():
        return pd.DataFrame()
    return escape.csv_table(pd.read_csv(path, **options), escape.csv_plain)


def write_parquet(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a large table. A file that holds the same table, perhaps written by another version of pyarrow,
    is left alone."""
    path = Path(path)
    if path.is_file():
        try:
            if read_parquet(path).equals(_as_stored(table)):
                return path
        except (OSError, ValueError):  # damaged: written anew
            pass
    content = io.BytesIO()
    _as_stored(table).to_parquet(content, index=False, compression="zstd")
    return keep(path, content.getvalue())


def read_parquet(path: str | Path) -> pd.DataFrame:
    """What `write_parquet` wrote."""
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise TalError("pyarrow is not installed", where=path, remedy="`pip install pyarrow`.") from None


def _as_stored(table):
    """As it comes back from the file: one kind of text, without an index."""
    texts = {name: "str" for name, column in table.items() if column.dtype == object}
    return table.astype(texts).reset_index(drop=True)


def write_table(table: pd.DataFrame, path: str | Path, caption: str, best: Best | None = None) -> Path:
    """Write a table for readers: Markdown (`path`), and LaTeX and CSV beside it.

    Args:
        best: which values LaTeX sets in bold; none by default.
    """
    path = Path(path)
    write_csv(table, path.parent, path.stem)
    shown = table.apply(_as_read)
    numbers = [column.map(lambda value: bool(NUMBER.match(str(value)))).all() for _, column in shown.items()]
    label = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "table"
    keep(path.with_suffix(".tex"), latex_table(shown, caption, label, best))
    markdown = (
        shown.map(escape.markdown)
        .rename(columns=escape.markdown)
        .to_markdown(
            index=False, disable_numparse=True, colalign=["right" if number else "left" for number in numbers]
        )
    )
    return keep(path, f"{escape.markdown(caption)}\n\n{markdown}\n")


def read_table(path: str | Path) -> tuple[str, pd.DataFrame]:
    """(caption in Markdown, table) of what `write_table` wrote, by its Markdown file."""
    path = Path(path)
    caption = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return caption, read_csv(path.with_suffix(".csv"), keep_default_na=False)


def _as_read(column):
    """Numbers of a column with as many decimals as the one that has most, at most three; – where there is
    none."""
    if not is_float_dtype(column):
        return column.fillna("–")
    decimals = max((len(f"{value:.3f}".rstrip("0").split(".")[1]) for value in column.dropna()), default=0)
    return column.map(lambda value: "–" if pd.isna(value) else f"{value:,.{decimals}f}")
