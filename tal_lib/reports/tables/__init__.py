"""Ledger → tidy tables → summaries → files.

tidy.py       ledger → tidy tables                    names.py      what models are called
machines.py   several machines and measurements       summaries.py  runs → tables for readers
files.py      CSV, Parquet, Markdown, LaTeX
"""

from tal_lib.reports.latex import HIGHEST, LOWEST, Best
from tal_lib.reports.tables.files import (
    keep,
    read_csv,
    read_parquet,
    read_table,
    write_csv,
    write_parquet,
    write_table,
)
from tal_lib.reports.tables.machines import (
    machine_suffix,
    main_machine,
    measured_columns,
    newest,
    of_the_present_network,
    on_main_machine,
    with_counted_macs,
)
from tal_lib.reports.tables.names import (
    CLASSIFIED,
    as_preset,
    classified,
    short_names,
    shown_name,
    with_shown_names,
)
from tal_lib.reports.tables.summaries import (
    MISNAMED,
    average_map,
    efficiency_summary,
    efficiency_table,
    number_of_runs,
    open_set_runs,
    open_set_summary,
    open_set_table,
    proposal_summary,
    proposal_table,
    split_name,
    streams_table,
    variant_summary,
    variants_table,
    with_interval,
)
from tal_lib.reports.tables.tidy import KEYS, tidy

__all__ = [
    "CLASSIFIED",
    "HIGHEST",
    "KEYS",
    "LOWEST",
    "MISNAMED",
    "Best",
    "as_preset",
    "average_map",
    "classified",
    "efficiency_summary",
    "efficiency_table",
    "keep",
    "machine_suffix",
    "main_machine",
    "measured_columns",
    "newest",
    "number_of_runs",
    "of_the_present_network",
    "on_main_machine",
    "open_set_runs",
    "open_set_summary",
    "open_set_table",
    "proposal_summary",
    "proposal_table",
    "read_csv",
    "read_parquet",
    "read_table",
    "short_names",
    "shown_name",
    "split_name",
    "streams_table",
    "tidy",
    "variant_summary",
    "variants_table",
    "with_counted_macs",
    "with_interval",
    "with_shown_names",
    "write_csv",
    "write_parquet",
    "write_table",
]
