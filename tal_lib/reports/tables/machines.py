"""Rows of several machines, and of several measurements of the same thing."""

import re

import pandas as pd

MEASURED = (
    "benchmark",
    "model",
    "preset",
    "device_name",
    "precision",
    "threads_used",
    "length_steps",
    "repeat",
)


def newest(table: pd.DataFrame, keys: tuple[str, ...] = MEASURED) -> pd.DataFrame:
    """Of rows with the same keys, as a longer list of models or lengths gives, the newest only."""
    keys = [name for name in keys if name in table]
    return (
        table.sort_values("utc", kind="stable")
        .drop_duplicates(keys, keep="last")
        .sort_index()
        .reset_index(drop=True)
    )


def main_machine(table: pd.DataFrame) -> str:
    """The machine that most rows were measured on."""
    return table.device_name.value_counts().sort_index().idxmax()


def on_main_machine(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one machine, the one with the most: times of several are not compared."""
    if table.empty or "device_name" not in table:
        return table
    return table[table.device_name == main_machine(table)]


def machine_suffix(device_name: str, main: str) -> str:
    """What tables and figures of another machine than the main one are called by, behind their name; empty
    for the main one."""
    return "" if device_name == main else "_" + re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_")
