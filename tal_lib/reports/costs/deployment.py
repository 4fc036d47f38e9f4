"""Deployment of a trained model: export, and inference on windows."""

import re

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import short
from tal_lib.reports.provenance import of_older_code


def write_export(data: dict[str, pd.DataFrame], out) -> None:
    """Write which model can be exported to which format, and how far its graph's outputs differ."""
    table = data["export"]
    text = [
        _reason(row.problem) if row.problem else f"{row.largest_difference:.0e}" for row in table.itertuples()
    ]
    shown = (
        table.assign(text=text)
        .pivot(index="model", columns="format", values="text")
        .fillna("–")
        .reset_index()
    )
    caption = (
        "Exported graphs: largest difference from the model, relative to 1 + |value|, over several batch "
        "sizes and lengths other than the traced ones. If there is no graph, the cell gives the reason."
    )
    out.table(shown, "export_parity", caption + of_older_code(table))


def _reason(problem):
    """The text between `cannot be …` and the remedy, without addresses of objects."""
    return (
        re.sub(r"<[^<>]*(<[^<>]*>)?[^<>]*>", "…", problem)
        .split(": ", 1)[-1]
        .split(" (", 1)[-1]
        .split(". ")[0]
        .rstrip(")")[:90]
    )


def write_windows(data: dict[str, pd.DataFrame], out) -> None:
    """Write the comparison of inference on whole recordings and on windows."""
    table = data["inference_length"]
    main = tables.main_machine(table)
    for (benchmark, machine), rows in table.groupby(["benchmark", "device_name"], sort=False):
        stem = benchmark + tables.machine_suffix(machine, main)
        rows = rows.assign(share=(rows.overlap / rows.window).fillna(0).round(2), whole=rows.window == 0)
        name = [
            "whole" if row.whole else f"{row.window:g}, {100 * row.share:g} % overlap"
            for row in rows.itertuples()
        ]
        rows = rows.assign(choice=name)
        order = rows.sort_values(["whole", "share", "window"]).choice.unique()
        for column, name, unit, label in (
            ("avg_map", "map", 1, "avg mAP (%)"),
            ("seconds_per_hour", "time", 1, "seconds per hour of recording"),
            ("peak_memory_bytes", "memory", 1e6, "peak memory (MB) of the longest recording"),
        ):
            shown = (
                rows.assign(value=rows[column] / unit)
                .pivot_table(index="model", columns="choice", values="value")[order]
                .map(short)
            )
            title = label if column == "avg_map" else label[0].upper() + label[1:]
            caption = (
                f"{title} on {benchmark}: models run on whole recordings, or on windows of a given number of "
                f"steps. Network, decoding and NMS on one CPU thread of {machine}; recordings of at most "
                f"{rows.longest_steps.max():,.0f} steps.{of_older_code(rows)}"
            )
            best = tables.HIGHEST if name == "map" else tables.LOWEST
            out.table(shown.reset_index(), f"inference_length_{name}_{stem}", caption, best)
        windowed = rows[rows.model.isin(rows.model[rows.window > 0])]  # the others see whole recordings
        if len(windowed):
            shown = (
                f"avg mAP on {benchmark} by inference window in steps, with half-overlapping windows, and on "
                f"whole recordings: {windowed.model.nunique()} models."
            )
            out.figure(figures.window_accuracy(windowed), f"inference_length_{stem}", shown)
