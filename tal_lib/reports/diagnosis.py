"""Where every model loses mAP, for readers: tables and figures of `09_diagnosis`."""

from pathlib import Path

import pandas as pd

from tal_lib.evaluation.diagnosis import ERRORS, HIT
from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency import OWN


def write(diagnosis: pd.DataFrame, results: Path, draw) -> list[Path]:
    """All tables and figures of the diagnosis. draw: `draw(axes, name)` keeps a figure; returns the tables' paths."""
    written = []
    shown = tables.with_shown_names(diagnosis.assign(options=""))
    for benchmark, rows in shown.groupby("benchmark", sort=False):
        for section in (_errors, _impact, _sensitivity):
            written += section(rows, benchmark, results, draw)
    return written


def write_classes(class_ap: pd.DataFrame, results: Path, draw) -> list[Path]:
    """AP of every class by every model, with the fewest and with all labels. class_ap: of the main arm; draw and answer as of `write`."""
    written = []
    for benchmark, rows in tables.with_shown_names(class_ap).groupby("benchmark", sort=False):
        for fraction in sorted({rows.fraction.min(), rows.fraction.max()}):
            table = (
                rows[rows.fraction == fraction].pivot_table(index="label", columns="model", values="ap") * 100
            )
            table = table.loc[
                table.mean(axis=1).sort_values().index, table.mean().sort_values(ascending=False).index
            ]
            stem = f"classes_{benchmark}_{100 * fraction:g}"
            if table.shape[1] < 2:
                continue
            caption = (
                f"AP (%) of every class on {benchmark}, mean over tIoUs and seeds, {100 * fraction:g} % of the training recordings: "
                "the hardest class first, the best model at the left."
            )
            draw(figures.class_matrix(table), stem)
            written.append(
                tables.write_table(
                    table.round(1).reset_index().rename(columns={"label": "class"}), results, stem, caption
                )
            )
    return written


def best_detections(rows: pd.DataFrame) -> pd.DataFrame:
    """Share (%) of each kind among the G best detections, a row a model and fraction; mean over seeds."""
    first = rows[(rows.analysis == "profile") & (rows.bucket == "1G")]
    return first.groupby(["model", "fraction", "error"]).value.mean().unstack("error")[list(ERRORS)]


def _errors(rows, benchmark, results, draw):
    table = best_detections(rows)
    order = table[HIT].unstack("fraction").mean(axis=1).sort_values(ascending=False).index
    shown = table.loc[order].round(1).reset_index()
    shown["fraction"] = [f"{100 * one:g} %" for one in shown.fraction]
    caption = (
        f"What the G best detections are on {benchmark} (%), G annotated segments, tIoU 0.5, by model and share of the training "
        "recordings; mean over seeds."
    )
    if (rows.model == OWN).any():
        mine = rows[(rows.model == OWN) & (rows.analysis == "profile")]
        mine = (
            mine[mine.fraction == mine.fraction.max()].groupby(["bucket", "error"]).value.mean().reset_index()
        )
        draw(figures.error_profile(mine), f"error_profile_{OWN}_{benchmark}")
    if table.index.get_level_values("fraction").nunique() > 1:
        whole = table.dropna().groupby("model").size()
        whole = whole[
            whole == whole.max()
        ].index  # the same models at every share, or the mean would change with them
        long = table[table.index.get_level_values("model").isin(whole)].stack().rename("value").reset_index()
        draw(
            figures.errors_by_fraction(long.groupby(["fraction", "error"]).value.mean().reset_index()),
            f"errors_by_fraction_{benchmark}",
        )
    return [
        tables.write_table(
            shown.rename(columns={"fraction": "recordings"}), results, f"errors_{benchmark}", caption
        )
    ]


def _impact(rows, benchmark, results, draw):
    impact = (
        rows[rows.analysis == "impact"].groupby(["fraction", "model", "error"]).value.mean().reset_index()
    )
    written = []
    for fraction in sorted({impact.fraction.min(), impact.fraction.max()}):
        mine = impact[impact.fraction == fraction]
        wide = mine.pivot(index="model", columns="error", values="value")[
            [kind for kind in ERRORS if kind != HIT]
        ]
        wide = wide.loc[wide.sum(axis=1).sort_values().index]
        stem = f"error_impact_{benchmark}_{100 * fraction:g}"
        caption = (
            f"Points of avg mAP on {benchmark} that would be won without each kind of error, {100 * fraction:g} % of the training "
            "recordings; mean over seeds."
        )
        written.append(tables.write_table(wide.round(2).reset_index(), results, stem, caption))
        draw(figures.error_impact(mine), stem)
    return written


def _sensitivity(rows, benchmark, results, draw):
    mine = rows[rows.analysis.isin(["map_n", "missed"])]
    mine = mine[mine.fraction == mine.fraction.max()]
    keys = ["analysis", "characteristic", "bucket", "span"]
    mine = mine.fillna({"bucket": "", "span": ""})
    means = mine.groupby([*keys, "model"], sort=False).value.mean().reset_index()
    written = []
    for analysis, words in (
        ("map_n", "Normalized mAP (%)"),
        ("missed", "Segments (%) that none of the G best detections finds"),
    ):
        part = means[means.analysis == analysis]
        columns = [
            " ".join(filter(None, (row.characteristic, row.bucket, f"({row.span})" if row.span else "")))
            for row in part.itertuples()
        ]
        wide = part.assign(column=columns).pivot(index="model", columns="column", values="value")[
            list(dict.fromkeys(columns))
        ]
        wide = wide.loc[wide["all"].sort_values(ascending=analysis == "missed").index].round(1)
        caption = (
            f"{words} on {benchmark} by coverage (share of the recording), length (s) and instances (of the class in the recording) "
            "of the segments, in fifths; all training recordings, mean over seeds."
        )
        written.append(
            tables.write_table(wide.reset_index(), results, f"sensitivity_{analysis}_{benchmark}", caption)
        )
    if (means.model == OWN).any():
        own = means[means.model == OWN]
        whole = own[own.characteristic == "all"].set_index("analysis").value
        draw(figures.sensitivity(own[own.characteristic != "all"], whole), f"sensitivity_{OWN}_{benchmark}")
    return written
