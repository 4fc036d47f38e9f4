"""Where every model loses mAP: tables and figures of `09_diagnosis` for readers."""

import pandas as pd

from tal_lib.evaluation.diagnosis import ERRORS, HIT
from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.runs import (
    OUR_MODEL,
    about_recipes,
    default_recipes,
    main_arm,
    own_recipes,
    unequal_first,
)
from tal_lib.reports.layout import Layout

UNTUNED = "Untuned, each model by its own recipe without augmentation"
PUBLISHED = Layout().prior / "sbhar_normalized_map.csv"  # of the data set that is `hapt` here


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write all tables and figures of the diagnosis."""
    whole = data["diagnosis"].assign(options="")
    whole["recipe"] = whole.recipe.fillna("") if "recipe" in whole else ""
    shown = tables.with_shown_names(whole)
    for benchmark, rows in shown.groupby("benchmark", sort=False):
        for section in (_errors, _impact, _sensitivity):
            section(rows, benchmark, out)
        if benchmark == "hapt" and PUBLISHED.is_file():
            _beside_published(rows, out)


def write_classes(data: dict[str, pd.DataFrame], out) -> None:
    """Write the AP of every class and model of the main arm, at the smallest and largest label fraction."""
    shown = tables.with_shown_names(main_arm(data["class_ap"]))
    for benchmark, rows in shown.groupby("benchmark", sort=False):
        for fraction in sorted({rows.fraction.min(), rows.fraction.max()}):
            runs = rows[rows.fraction == fraction]
            table = runs.pivot_table(index="label", columns="model", values="ap") * 100
            hardest_first = table.mean(axis=1).sort_values().index
            best_first = table.mean().sort_values(ascending=False).index
            table, stem = table.loc[hardest_first, best_first], f"classes_{benchmark}_{100 * fraction:g}"
            if table.shape[1] < 2:
                continue
            caption = about_recipes(
                runs,
                f"AP (%) of every class on {benchmark} with {100 * fraction:g} % of the training "
                "recordings, mean over tIoUs and seeds. The most difficult class is first, the best model is "
                "at the left.",
            )
            about = f"Mean over tIoUs and {seeds_of(runs)}, without intervals."
            out.figure(figures.class_matrix(table, about), stem, caption)
            best = _best(runs, tables.Best(high=(...,), by_row=True))
            out.table(table.round(1).reset_index().rename(columns={"label": "class"}), stem, caption, best)


def seeds_of(runs: pd.DataFrame) -> str:
    """How many seeds the models have, for a caption. runs: `model, seed`."""
    return tables.number_of_runs(runs.groupby("model").seed.nunique().rename("runs").reset_index(), "seeds")


def best_detections(rows: pd.DataFrame) -> pd.DataFrame:
    """Percentage of each error kind among the G best detections, per model and fraction; mean over seeds."""
    first = rows[(rows.analysis == "profile") & (rows.bucket == "1G")]
    return first.groupby(["model", "fraction", "error"]).value.mean().unstack("error")[list(ERRORS)]


def _errors(rows, benchmark, out):
    table = best_detections(rows)
    order = table[HIT].unstack("fraction").mean(axis=1).sort_values(ascending=False).index
    shown = table.loc[order].round(1).reset_index()
    shown["fraction"] = [f"{100 * fraction:g} %" for fraction in shown.fraction]
    caption = _about(
        rows,
        f"error types (DETAD) of the G best detections on {benchmark} (%), by model and label fraction. G: "
        "number of annotated segments; tIoU 0.5; mean over seeds.",
    )
    if (rows.model == OUR_MODEL).any():
        profile = rows[(rows.model == OUR_MODEL) & (rows.analysis == "profile")]
        profile = profile[profile.fraction == profile.fraction.max()]
        stem = f"error_profile_{OUR_MODEL}_{benchmark}"
        pictured = (
            f"Types of errors of {OUR_MODEL} on {benchmark} with {100 * profile.fraction.max():g} % of the "
            "labels, among the G best detections, the next G, and so on. G is the number of annotated "
            "segments."
        )
        out.figure(figures.error_profile(profile[["bucket", "error", "value"]]), stem, pictured)
    if table.index.get_level_values("fraction").nunique() > 1:
        whole = table.dropna().groupby("model").size()
        # the mean over models is comparable only for the same models at every fraction
        whole = whole[whole == whole.max()].index
        first = rows[(rows.analysis == "profile") & (rows.bucket == "1G") & rows.model.isin(whole)]
        by_seed = first.groupby(["fraction", "error", "seed"]).value.mean().reset_index()
        pictured = (
            f"Types of errors among the G best detections on {benchmark} by label fraction: mean over "
            f"{len(whole)} models, with 95 % intervals over seeds."
        )
        axes = figures.errors_by_fraction(by_seed.assign(models=len(whole)), _first(rows))
        out.figure(axes, f"errors_by_fraction_{benchmark}", pictured)
    best = _best(rows, tables.Best(high=(HIT,), within=("label fraction",)))
    out.table(shown.rename(columns={"fraction": "label fraction"}), f"errors_{benchmark}", caption, best)


def _about(rows, text):
    """A caption that first says what was trained: these runs have no augmentation, unlike the main arm."""
    return f"{UNTUNED}: {text}" if default_recipes(rows) else about_recipes(rows, text)


def _first(rows):
    return f"{UNTUNED}. " if default_recipes(rows) else unequal_first(rows)


def _best(rows, best):
    """What is bold: nothing if the models had recipes of their own, since these have no winner."""
    return None if own_recipes(rows) else best


def beside_published(rows: pd.DataFrame) -> pd.DataFrame:
    """`model, published, ours` of the normalized mAP (%) of all segments, all training recordings.

    Ours is the mean over seeds; NaN for models that the study does not have.
    """
    whole = rows[
        (rows.analysis == "map_n")
        & (rows.characteristic == "all")
        & (rows.fraction == 1.0)
        & (rows.preset == "compact")
    ]
    ours = whole.groupby("model").value.mean().rename("ours").reset_index()
    published = pd.read_csv(PUBLISHED).rename(columns={"map_n": "published"})
    return published.merge(ours, on="model", how="left")


def _beside_published(rows, out):
    table = beside_published(rows)
    if table.ours.isna().all():
        return
    shown = table.assign(ours=["–" if pd.isna(value) else f"{value:.2f}" for value in table.ours])
    caption = (
        "Average normalized mAP (%, DETAD) on SBHAR/HAPT, tIoU 0.3 to 0.7. Published: from the public "
        "repository of Bock et al. (acceleration only, leave-one-person-out over 30 people, seed 1, scores "
        "above 0.3). Ours: each model by its own recipe, acceleration and angular velocity, official split "
        "of 21 / 9 people, compact, mean over seeds, all detections."
    )
    out.about("prior").table(shown, "normalized_map_hapt", caption)


def _impact(rows, benchmark, out):
    impact = (
        rows[rows.analysis == "impact"].groupby(["fraction", "model", "error"]).value.mean().reset_index()
    )
    for fraction in sorted({impact.fraction.min(), impact.fraction.max()}):
        at_fraction = impact[impact.fraction == fraction]
        wide = at_fraction.pivot(index="model", columns="error", values="value")[
            [kind for kind in ERRORS if kind != HIT]
        ]
        wide = wide.loc[wide.sum(axis=1).sort_values().index]
        stem = f"error_impact_{benchmark}_{100 * fraction:g}"
        caption = _about(
            rows,
            f"gain of avg mAP (points) on {benchmark} without each type of error (DETAD), with "
            f"{100 * fraction:g} % of the training recordings; mean over seeds.",
        )
        best = _best(rows, tables.Best(low=tuple(wide.columns)))
        out.table(wide.round(2).reset_index(), stem, caption, best)
        runs = rows[(rows.analysis == "impact") & (rows.fraction == fraction)]
        axes = figures.error_impact(runs[["model", "error", "value"]])
        out.figure(axes, stem, caption)


def _sensitivity(rows, benchmark, out):
    values = rows[rows.analysis.isin(["map_n", "missed"])]
    values = values[values.fraction == values.fraction.max()]
    keys = ["analysis", "characteristic", "bucket", "span"]
    values = values.fillna({"bucket": "", "span": ""})
    means = values.groupby([*keys, "model"], sort=False).value.mean().reset_index()
    for analysis, words in (
        ("map_n", "normalized mAP (%)"),
        ("missed", "missed segments (%), which none of the G best detections finds,"),
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
        caption = _about(
            rows,
            f"{words} on {benchmark}, by fifths of the segments: by coverage (fraction of the recording), "
            "length (s), and instances (of the class in the recording). All training recordings, mean over "
            "seeds.",
        )
        best = _best(rows, tables.HIGHEST if analysis == "map_n" else tables.LOWEST)
        out.table(wide.reset_index(), f"sensitivity_{analysis}_{benchmark}", caption, best)
    if (means.model == OUR_MODEL).any():
        our_means, runs = means[means.model == OUR_MODEL], values[values.model == OUR_MODEL]
        whole = our_means[our_means.characteristic == "all"].set_index("analysis").value
        axes = figures.sensitivity(runs[runs.characteristic != "all"], whole)
        pictured = (
            f"Sensitivity of {OUR_MODEL} on {benchmark} with {100 * values.fraction.max():g} % of the "
            "training recordings: normalized mAP and missed segments by fifths of the segments. They are "
            "sorted by coverage, by length, and by number of instances of the class."
        )
        out.figure(axes, f"sensitivity_{OUR_MODEL}_{benchmark}", pictured)
