"""Ledger → tidy tables: one row per measurement, with parameters, measures and provenance."""

import numpy as np
import pandas as pd

from tal_lib.provenance import COLUMNS as PROVENANCE

KEYS = [
    "benchmark",
    "fold",
    "model",
    "preset",
    "repeat",
    "batch_size",
    "seen",
    "keep",
    "misnamed",
    "split",
    "fraction",
    "people",
    "annotated",
    "seed",
    "subset_seed",
    "stream",
    "skip",
    "video",
    "student",
    "student_options",
    "options",
    "recipe",
]
WITHIN_CELL = ("length_steps", "tiou", "label")  # the order of the rows of one cell


def tidy(records: list[dict], table: str) -> pd.DataFrame:
    """All rows that the cells recorded for a table: the cell's parameters, the measures, the provenance.

    A model that was tested on several benchmarks has rows of each. Those of another benchmark than the
    cell's own have `<cell>:<benchmark>` as their `cell`: a test is one benchmark's.

    Args:
        records: from `tal_lib.sweeps.read_all`.
    """
    records = [record for record in records if record["tables"].get(table)]
    if not records:
        return pd.DataFrame()
    cell_of_row = np.repeat(np.arange(len(records)), [len(record["tables"][table]) for record in records])
    measures, keys, about = _measures(records, table), _keys(records), _provenance(records)
    given = [name for name in keys if name in measures]  # a row's value overrides its cell's
    partly = [name for name in given if measures[name].isna().any()]
    of_cell = keys.take(cell_of_row).reset_index(drop=True)
    if partly:
        measures[partly] = measures[partly].where(measures[partly].notna(), of_cell[partly])
    order = _order(keys.drop(columns=[name for name in given if name not in partly]), measures, cell_of_row)
    measures, of_cell = measures.loc[order], of_cell.loc[order]
    about = about.take(cell_of_row[order])
    if "benchmark" in given:
        other = (of_cell.benchmark.notna() & (measures.benchmark != of_cell.benchmark)).to_numpy()
        names = about.cell.to_numpy() + (":" + measures.benchmark.astype(str)).to_numpy()
        about = about.assign(cell=np.where(other, names, about.cell))
    parts = [measures[[name]] if name in given else of_cell[[name]] for name in keys]
    parts += [measures[[name for name in measures if name not in keys]], about]
    return pd.concat([part.reset_index(drop=True) for part in parts], axis=1)


def _measures(records, table):
    """The recorded rows of the cells, without provenance and without columns of lists."""
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
    """The parameters that distinguish cells, one row per cell."""
    return pd.DataFrame(
        [
            {name: _plain(value) for name, value in record["parameters"].items() if name in KEYS}
            for record in records
        ]
    )


def _plain(value):
    """A value as text: options as `name=value`, lists as their items; empty options as empty text."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={value[key]}" for key in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _provenance(records):
    """The provenance of each cell, one row per cell."""
    return pd.DataFrame(
        [
            {"sweep": record["sweep"], "cell": record["id"]}
            | {name: record["provenance"].get(name) for name in PROVENANCE}
            for record in records
        ]
    )


def _order(keys, measures, cell_of_row):
    """The order of the rows (an index of `measures`): by the cells' parameters, then by `WITHIN_CELL`."""
    by_cell = [name for name in KEYS if name in keys]
    by_row = [name for name in (*KEYS, *WITHIN_CELL) if name in measures]
    rank = _rank(keys, by_cell)
    return measures[by_row].assign(rank=rank[cell_of_row]).sort_values(["rank", *by_row], kind="stable").index


def _rank(keys, by):
    """The rank of each cell in the order of these parameters. Equal parameters give equal ranks."""
    rank = np.zeros(len(keys), int)
    if by:
        in_order = keys.sort_values(by, kind="stable").index
        group = keys.groupby(by, sort=False, dropna=False).ngroup()
        rank[in_order] = pd.factorize(group[in_order])[0]
    return rank
