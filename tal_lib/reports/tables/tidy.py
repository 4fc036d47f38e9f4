"""Ledger → tidy tables: one row a measurement, with what was run, what was measured, and where it comes
from."""

import numpy as np
import pandas as pd

from tal_lib.provenance import COLUMNS as PROVENANCE

KEYS = [
    "benchmark",
    "model",
    "preset",
    "repeat",
    "batch_size",
    "seen",
    "keep",
    "misnamed",
    "split",
    "fraction",
    "seed",
    "subset_seed",
    "stream",
    "student",
    "student_options",
    "options",
    "recipe",
]
WITHIN_CELL = ("length_steps", "tiou", "label")  # what orders the rows of one cell


def tidy(records: list[dict], table: str) -> pd.DataFrame:
    """All rows that the cells recorded for a table: the cell's parameters, the measures, the provenance.

    Args:
        records: of `tal_lib.sweeps.read_all`.
    """
    records = [record for record in records if record["tables"].get(table)]
    if not records:
        return pd.DataFrame()
    cell_of_row = np.repeat(np.arange(len(records)), [len(record["tables"][table]) for record in records])
    measures, keys, about = _measures(records, table), _keys(records), _provenance(records)
    order = _order(keys, measures, cell_of_row)
    cell_of_row, measures = cell_of_row[order], measures.loc[order]
    # a row's own value goes before its cell's parameter of that name
    parts = [measures[[name]] if name in measures else keys[[name]].take(cell_of_row) for name in keys]
    parts += [measures[[name for name in measures if name not in keys]], about.take(cell_of_row)]
    return pd.concat([part.reset_index(drop=True) for part in parts], axis=1)


def _measures(records, table):
    """What the cells wrote down, a row each, without provenance and without columns of lists."""
    rows = [row for record in records for row in record["tables"][table]]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in PROVENANCE]
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pd.DataFrame(
        {
            name: values
            for name, values in columns.items()
            if not any(isinstance(value, list) for value in values)
        }
    )


def _keys(records):
    """The parameters that tell cells apart, a row a cell."""
    return pd.DataFrame(
        [
            {name: _plain(value) for name, value in record["parameters"].items() if name in KEYS}
            for record in records
        ]
    )


def _plain(value):
    """Empty options are empty text; others are written out."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={value[key]}" for key in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _provenance(records):
    """Where each cell's rows come from, a row a cell."""
    return pd.DataFrame(
        [
            {"sweep": record["sweep"], "cell": record["id"]}
            | {name: record["provenance"].get(name) for name in PROVENANCE}
            for record in records
        ]
    )


def _order(keys, measures, cell_of_row):
    """The rows' order (an index of `measures`): by the cells' parameters, then by what tells the rows of a
    cell apart."""
    by_cell = [name for name in KEYS if name in keys and name not in measures]
    by_row = [name for name in (*KEYS, *WITHIN_CELL) if name in measures]
    rank = _rank(keys, by_cell)
    return measures[by_row].assign(rank=rank[cell_of_row]).sort_values(["rank", *by_row], kind="stable").index


def _rank(keys, by):
    """The place of each cell among all, in the order of these parameters; alike cells have the same place."""
    rank = np.zeros(len(keys), int)
    if by:
        in_order = keys.sort_values(by, kind="stable").index
        group = keys.groupby(by, sort=False, dropna=False).ngroup()
        rank[in_order] = pd.factorize(group[in_order])[0]
    return rank
