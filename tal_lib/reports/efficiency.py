"""The data-efficiency study for readers: who is better and how surely, how much annotation is needed, and what the arms beside it say."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from tal_lib.evaluation import learning_curves, statistics
from tal_lib.files import study_root
from tal_lib.reports import figures, tables

OWN = "local_global"  # the model that the study puts forward
WANTED = (80, 90)  # avg mAP (%) whose annotation is asked for
HELD_BACK = 0.6  # learning curves are fitted up to this share of the recordings, and judged beyond it
PRIOR = study_root() / "results" / "prior" / "data_efficiency.csv"


def write(efficiency: pd.DataFrame, results: Path, draw) -> list[Path]:
    """All tables and figures of the study that the data allow. draw: `draw(axes, name)` keeps a figure; returns the tables' paths."""
    written = []
    summary = tables.efficiency_summary(main_arm(efficiency))
    written.append(tables.write_csv(summary, results, "data_efficiency_summary"))
    for benchmark, rows in compared(summary).groupby("benchmark", sort=False):
        mine = efficiency[efficiency.benchmark == benchmark]
        written += _curves(mine, rows, benchmark, results, draw)
        runs = compared(tables.average_map(main_arm(mine)))
        for section in (
            (_standings, _comparison, _against_the_best, _annotation) if runs.model.nunique() > 1 else ()
        ):
            written += section(runs, benchmark, results, draw)
        written += _arms(tables.average_map(mine), benchmark, results, draw)
        if PRIOR.is_file():
            written += _beside_prior(rows, benchmark, results, draw)
    return written


def main_arm(efficiency: pd.DataFrame) -> pd.DataFrame:
    """Runs by the models' own recipe and options on subsets drawn with the training's seed: what models are compared by.

    A benchmark on which no run has a model's own recipe, as in a quick study, is judged by the most frequent one.
    """
    alike = efficiency[(efficiency.options == "") & (efficiency.subset_seed < 0)]
    main = alike.groupby("benchmark").recipe.transform(
        lambda one: "" if (one == "").any() else one.mode().iloc[0]
    )
    return alike[alike.recipe == main]


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those shares of the recordings that most models of their benchmark have."""
    models = lambda *by: table.groupby(list(by)).model.transform("nunique")
    return table[models("benchmark", "fraction") > models("benchmark") / 2]


def complete(runs: pd.DataFrame) -> pd.DataFrame:
    """The largest block of runs in which every model has every (fraction, seed): what models are compared on."""
    table = runs.pivot_table(index=["fraction", "seed"], columns="model", values="avg_map")
    there, best = table.notna(), (0, None)
    for count in sorted(there.sum(1).unique()):
        pairs = there[there.sum(1) >= count]
        models = pairs.columns[pairs.all()]
        best = max(best, (len(pairs) * len(models), (pairs.index, models)), key=lambda one: one[0])
    pairs, models = best[1]
    return runs[runs.model.isin(models) & pd.MultiIndex.from_frame(runs[["fraction", "seed"]]).isin(pairs)]


def strata(runs: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Each model's avg mAP, one array a fraction."""
    return {
        model: [one.avg_map.to_numpy() for _, one in rows.sort_values("seed").groupby("fraction")]
        for model, rows in runs.groupby("model", sort=False)
    }


def _span(counts):
    return f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()}–{counts.max()}"


def _curves(mine, rows, benchmark, results, draw):
    caption = (
        f"avg mAP (%) on {benchmark} by share of training recordings: mean of {_span(rows.runs)} runs (seeds) with 95 % bootstrap "
        "interval."
    )
    if rows.fraction.nunique() > 1:
        draw(figures.data_efficiency(rows), f"data_efficiency_{benchmark}")
    most = main_arm(mine)
    most = most[most.fraction == rows.fraction.max()]
    draw(
        figures.map_by_tiou(tables.with_shown_names(most.assign(map=100 * most["map"]))),
        f"map_by_tiou_{benchmark}",
    )
    return [
        tables.write_table(
            tables.efficiency_table(rows, benchmark), results, f"data_efficiency_{benchmark}", caption
        )
    ]


def standings(runs: pd.DataFrame) -> pd.DataFrame:
    """`model, iqm, low, high, rank, area`: interquartile mean over fractions and seeds, mean rank, mean over log recordings; best first."""
    runs = complete(runs)
    ranks = statistics.mean_ranks(runs)
    rows = []
    for model, values in strata(runs).items():
        curve = (
            runs[runs.model == model]
            .groupby("fraction")
            .agg(amount=("train_recordings", "mean"), score=("avg_map", "mean"))
        )
        rows.append(
            (
                model,
                *statistics.interquartile_interval(values),
                ranks[model],
                learning_curves.area_under(curve.amount, curve.score) if len(curve) > 1 else float("nan"),
            )
        )
    table = pd.DataFrame(rows, columns=["model", "iqm", "low", "high", "rank", "area"])
    return table.sort_values("iqm", ascending=False, ignore_index=True)


def _standings(runs, benchmark, results, draw):
    table = standings(runs)
    shown = pd.DataFrame(
        {
            "model": table.model,
            "IQM": [f"{row.iqm:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in table.itertuples()],
            "mean rank": table["rank"].round(2),
            "area": table.area.round(1),
        }
    )
    used = complete(runs)
    seeds = _span(used.groupby(["model", "fraction"]).seed.nunique())
    caption = (
        f"Standing on {benchmark} over {used.fraction.nunique()} shares of the training recordings and {seeds} seeds: "
        "interquartile mean of avg mAP (%) with 95 % interval (bootstrap stratified by share), mean rank (1 is best), and mean avg "
        "mAP along the curve over log recordings."
    )
    return [
        tables.write_csv(table, results, f"standings_values_{benchmark}"),
        tables.write_table(shown, results, f"standings_{benchmark}", caption),
    ]


def comparison(runs: pd.DataFrame) -> pd.DataFrame:
    """`model, other, probability, low, high, difference, difference_low, difference_high, pairs`, every ordered pair of models.

    probability: that a run of `model` has a higher avg mAP than one of `other`, mean over fractions; difference: paired by training
    recordings.
    """
    runs = complete(runs)
    values = strata(runs)
    rows = []
    for model in values:
        for other in values:
            if model != other:
                rows.append(
                    (
                        model,
                        other,
                        *statistics.probability_of_improvement(values[model], values[other]),
                        *statistics.paired_difference(runs, model, other),
                    )
                )
    return pd.DataFrame(
        rows,
        columns=[
            "model",
            "other",
            "probability",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
            "pairs",
        ],
    )


def _comparison(runs, benchmark, results, draw):
    table = comparison(runs)
    if table.empty:
        return []
    order = list(standings(runs).model)
    matrix = table.pivot(index="model", columns="other", values="probability").loc[order, order]
    draw(figures.probability_matrix(matrix), f"probability_of_improvement_{benchmark}")
    shown = matrix.map(lambda value: "" if value != value else f"{value:.2f}").reset_index()
    caption = (
        f"How probable it is on {benchmark} that a run of the row's model has a higher avg mAP than one of the column's, mean over "
        "the shares of the training recordings."
    )
    return [
        tables.write_csv(table, results, f"comparison_{benchmark}"),
        tables.write_table(shown, results, f"probability_of_improvement_{benchmark}", caption),
    ]


def against_the_best(runs: pd.DataFrame, own: str = OWN) -> pd.DataFrame:
    """Our model and the best other one at each fraction.

    `fraction, best, own_mean, best_mean, difference, low, high, probability, p_low, p_high, pairs`.
    """
    rows = []
    for fraction, mine in runs.groupby("fraction"):
        means = mine.groupby("model").avg_map.mean()
        others = means.drop(own, errors="ignore")
        if own not in means or others.empty:
            continue
        best = others.idxmax()
        values = strata(mine)
        difference, low, high, pairs = statistics.paired_difference(mine, own, best)
        rows.append(
            (
                fraction,
                best,
                means[own],
                means[best],
                difference,
                low,
                high,
                *statistics.probability_of_improvement(values[own], values[best]),
                pairs,
            )
        )
    return pd.DataFrame(
        rows,
        columns=[
            "fraction",
            "best",
            "own_mean",
            "best_mean",
            "difference",
            "low",
            "high",
            "probability",
            "p_low",
            "p_high",
            "pairs",
        ],
    )


def _against_the_best(runs, benchmark, results, draw):
    table = against_the_best(runs)
    if table.empty:
        return []
    shown = pd.DataFrame(
        {
            "recordings": [f"{100 * fraction:g} %" for fraction in table.fraction],
            "best other": table.best,
            OWN: table.own_mean.round(1),
            "best other's": table.best_mean.round(1),
            "difference": [
                f"{row.difference:+.1f}"
                + (f" [{row.low:+.1f}, {row.high:+.1f}]" if row.low == row.low else "")
                for row in table.itertuples()
            ],
            "P(improvement)": [
                f"{row.probability:.2f} [{row.p_low:.2f}, {row.p_high:.2f}]" for row in table.itertuples()
            ],
        }
    )
    caption = (
        f"{OWN} against the best other model at each share of {benchmark}'s training recordings: mean avg mAP (%), difference on "
        "the same recordings and probability of improvement, with 95 % bootstrap intervals. The best is picked after seeing the "
        "results, which favours it."
    )
    return [
        tables.write_csv(table, results, f"against_the_best_values_{benchmark}"),
        tables.write_table(shown, results, f"against_the_best_{benchmark}", caption),
    ]


def annotation(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a model: the annotated segments that each wanted mAP takes, and what a power law up to `HELD_BACK` foretells.

    `model, fewest, needs_80, needs_90, scale, exponent, floor, foretold, measured, error, last`: fewest are the segments of the smallest
    share; error is foretold − measured at all recordings; `last` is the error of expecting no further gain.
    """
    rows = []
    for model, mine in complete(runs).groupby("model", sort=False):
        curve = mine.groupby("fraction").agg(segments=("train_segments", "mean"), score=("avg_map", "mean"))
        row = {"model": model, "fewest": curve.segments.min()}
        row |= {
            f"needs_{wanted}": learning_curves.needed_for(wanted, curve.segments, curve.score)
            for wanted in WANTED
        }
        known = mine[mine.fraction <= HELD_BACK]
        if known.fraction.nunique() >= 3 and curve.index.max() > HELD_BACK:
            law = learning_curves.fit_power_law(known.train_segments, known.avg_map)
            whole, before = curve.iloc[-1], curve[curve.index <= HELD_BACK].iloc[-1]
            row |= {
                "scale": law.scale,
                "exponent": law.exponent,
                "floor": law.floor,
                "foretold": float(law(whole.segments)),
                "measured": whole.score,
                "error": float(law(whole.segments)) - whole.score,
                "last": before.score - whole.score,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values([f"needs_{WANTED[0]}", f"needs_{WANTED[-1]}"], ignore_index=True)


def _annotation(runs, benchmark, results, draw):
    if "train_segments" not in runs or complete(runs).fraction.nunique() < 2:
        return []
    table = annotation(runs)
    count = lambda value, least: "not reached" if np.isinf(value) else f"{'≤ ' * (value <= least)}{value:.0f}"
    shown = pd.DataFrame(
        {"model": table.model}
        | {
            f"segments for {wanted}": list(map(count, table[f"needs_{wanted}"], table.fewest))
            for wanted in WANTED
        }
    )
    caption = f"Annotated segments that a wanted avg mAP takes on {benchmark} (straight between the measured shares, over log segments)"
    if "error" in table:
        shown = shown.assign(
            exponent=table.exponent.round(2),
            foretold=table.foretold.round(1),
            measured=table.measured.round(1),
            error=table.error.map("{:+.1f}".format),
            **{"no gain": table["last"].map("{:+.1f}".format)},
        )
        caption += (
            f"; and what a power law with a floor, fitted up to {100 * HELD_BACK:g} % of the recordings, foretells for all of "
            f"them. “no gain” is the error of expecting what {100 * HELD_BACK:g} % reach."
        )
    else:
        caption += "."
    return [
        tables.write_csv(table, results, f"annotation_values_{benchmark}"),
        tables.write_table(shown, results, f"annotation_{benchmark}", caption),
    ]


def _arms(runs, benchmark, results, draw):
    """Other recipes, more steps for few recordings, and where the spread comes from."""
    written = []
    plain = runs[(runs.options == "") & (runs.preset == "compact")]
    recipes = plain[plain.subset_seed < 0]
    if recipes.recipe.nunique() > 1:
        written.append(_recipes(recipes, benchmark, results, draw))
    own = runs[
        runs.model.str.fullmatch(rf"{OWN}( \(.*\))?") & (runs.preset == "compact") & (runs.stream == "")
    ]
    own = own[own.subset_seed < 0]
    if own.options.nunique() > 1:
        written += [
            *_own_model(own, benchmark, results, draw),
            _every_variant(runs[runs.subset_seed < 0], benchmark, results),
        ]
    crossed = runs[(runs.subset_seed >= 0) & (runs.recipe == "")]
    if len(crossed):
        written += _variance(crossed, benchmark, results)
    return written


def recipe_gains(runs: pd.DataFrame) -> pd.DataFrame:
    """`recipe, model, fraction, plain, changed, difference, low, high, pairs`: each other recipe beside the model's own, paired by seed."""
    rows = []
    keys = ["model", "fraction"]
    plain = runs[runs.recipe == ""].set_index([*keys, "seed"]).avg_map
    for (recipe, model, fraction), mine in runs[runs.recipe != ""].groupby(["recipe", *keys], sort=False):
        both = (
            mine.set_index([*keys, "seed"])
            .avg_map.to_frame("changed")
            .join(plain.rename("plain"), how="inner")
        )
        if len(both):
            rows.append(
                (
                    recipe,
                    model,
                    fraction,
                    both.plain.mean(),
                    both.changed.mean(),
                    *statistics.mean_interval(both.changed - both.plain),
                    len(both),
                )
            )
    return pd.DataFrame(
        rows,
        columns=["recipe", "model", "fraction", "plain", "changed", "difference", "low", "high", "pairs"],
    )


def _recipes(runs, benchmark, results, draw):
    table = recipe_gains(runs)
    text = table.assign(text=[f"{row.changed:.1f} ({row.difference:+.1f})" for row in table.itertuples()])
    shown = text.pivot(index=["recipe", "model"], columns="fraction", values="text").fillna("")
    order = table.groupby(["recipe", "model"]).changed.mean().sort_values(ascending=False).index
    shown = shown.loc[sorted(order, key=lambda key: key[0])]
    shown.columns = [f"{100 * fraction:g} %" for fraction in shown.columns]
    tables.write_csv(table, results, f"recipes_values_{benchmark}")
    caption = (
        f"avg mAP (%) on {benchmark} with another recipe, and in brackets the difference to the model's own recipe on the same "
        f"recordings; mean of {_span(table.pairs)} seeds."
    )
    return tables.write_table(shown.reset_index(), results, f"recipes_{benchmark}", caption)


def _every_variant(runs, benchmark, results):
    summary = statistics.summarise(runs, ["model", "recipe", "fraction"], "avg_map")
    wide = (
        summary.assign(text=tables.with_interval(summary))
        .pivot(index=["model", "recipe"], columns="fraction", values="text")
        .fillna("")
    )
    wide = wide.loc[summary.groupby(["model", "recipe"])["mean"].mean().sort_values(ascending=False).index]
    wide.columns = [f"{100 * fraction:g} %" for fraction in wide.columns]
    caption = (
        f"Every model, option and recipe tried on {benchmark}: avg mAP (%), mean of {_span(summary.runs)} seeds with 95 % bootstrap "
        "interval; an empty recipe is the model's own."
    )
    return tables.write_table(wide.reset_index(), results, f"variants_{benchmark}", caption)


def own_variants(runs: pd.DataFrame) -> pd.DataFrame:
    """Our model with other options or recipes beside itself as it is, paired by seed.

    `variant, fraction, mean, low, high, difference, difference_low, difference_high, pairs`; the model as it is first.
    """
    runs = runs.assign(
        variant=[", ".join(filter(None, (row.options, row.recipe))) for row in runs.itertuples()]
    )
    plain = runs[runs.variant == ""].set_index(["fraction", "seed"]).avg_map
    rows = []
    for (variant, fraction), mine in runs.groupby(["variant", "fraction"], sort=False):
        both = (
            mine.set_index(["fraction", "seed"])
            .avg_map.to_frame("changed")
            .join(plain.rename("plain"), how="inner")
        )
        if len(both):
            difference = statistics.mean_interval(both.changed - both.plain)
            rows.append(
                (
                    variant or "as it is",
                    fraction,
                    *statistics.mean_interval(both.changed),
                    *difference,
                    len(both),
                )
            )
    table = pd.DataFrame(
        rows,
        columns=[
            "variant",
            "fraction",
            "mean",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
            "pairs",
        ],
    )
    return table.sort_values("variant", key=lambda one: one != "as it is", kind="stable", ignore_index=True)


def _own_model(runs, benchmark, results, draw):
    table = own_variants(runs)
    text = [
        f"{row.mean:.1f}"
        if row.variant == "as it is"
        else f"{row.difference:+.1f} [{row.difference_low:+.1f}, {row.difference_high:+.1f}]"
        for row in table.itertuples()
    ]
    wide = table.assign(text=text).pivot(index="variant", columns="fraction", values="text")
    wide = wide.loc[list(dict.fromkeys(table.variant))].fillna("")
    wide.columns = [f"{100 * fraction:g} %" for fraction in wide.columns]
    caption = (
        f"{OWN} on {benchmark} by share of the training recordings: avg mAP (%) as it is, and what each other option or recipe "
        f"changes (points, 95 % bootstrap interval over {_span(table.pairs)} seeds on the same recordings)."
    )
    draw(figures.changes(table[table.variant != "as it is"]), f"own_model_{benchmark}")
    return [
        tables.write_csv(table, results, f"own_model_values_{benchmark}"),
        tables.write_table(wide.reset_index(), results, f"own_model_{benchmark}", caption),
    ]


def _variance(runs, benchmark, results):
    rows = []
    for (model, fraction), mine in runs.groupby(["model", "fraction"], sort=False):
        try:
            parts = statistics.variance_components(mine)
        except ValueError:  # not all of the design has been run
            continue
        rows.append(
            {
                "model": model,
                "fraction": fraction,
                **parts,
                "subsets": mine.subset_seed.nunique(),
                "seeds": mine.seed.nunique(),
                "mean": mine.avg_map.mean(),
            }
        )
    if not rows:
        return []
    table = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "model": table.model,
            "recordings": [f"{100 * one:g} %" for one in table.fraction],
            "avg mAP": table["mean"].round(1),
            "draw of recordings": table.subset.round(2),
            "training seed": table.seed.round(2),
            "both together and rest": table.interaction.round(2),
            "design": [f"{row.subsets} × {row.seeds}" for row in table.itertuples()],
        }
    )
    caption = (
        f"Where the spread comes from on {benchmark}: standard deviation of avg mAP (points) by the draw of recordings, by the "
        "training seed, and by both together with what is left over; crossed design, two-way random effects."
    )
    return [
        tables.write_csv(table, results, f"variance_values_{benchmark}"),
        tables.write_table(shown, results, f"variance_{benchmark}", caption),
    ]


def beside_prior(summary: pd.DataFrame) -> pd.DataFrame:
    """`model, fraction, map, ours, rank, our_rank`: models and shares of the training recordings that the prior study and this one have."""
    prior = pd.read_csv(PRIOR).dropna(subset=["map"])
    both = prior.merge(
        summary[["model", "fraction", "mean"]].rename(columns={"mean": "ours"}), on=["model", "fraction"]
    )
    ranks = both.groupby("fraction")[["map", "ours"]].rank(ascending=False).astype(int)
    return both.assign(rank=ranks["map"], our_rank=ranks.ours)


def _beside_prior(rows, benchmark, results, draw):
    both = beside_prior(rows)
    if both.model.nunique() < 2:
        return []
    draw(figures.curves_beside_prior(both, benchmark), f"prior_data_efficiency_{benchmark}")
    lines = []
    for fraction, mine in both.groupby("fraction"):
        order = lambda column: " > ".join(mine.sort_values(column).model)  # noqa: B023
        tau = stats.kendalltau(mine["map"], mine.ours).statistic if len(mine) > 2 else float("nan")
        lines.append((f"{100 * fraction:g} %", order("rank"), order("our_rank"), round(tau, 2)))
    table = pd.DataFrame(
        lines,
        columns=[
            "recordings",
            "order on THUMOS14, prior study",
            f"order on {benchmark}, here",
            "Kendall's τ",
        ],
    )
    caption = (
        f"Order of the models that both have, by share of the training recordings: the prior study (Warchocki et al., 2023; "
        f"THUMOS14, I3D features, published sizes) and this one ({benchmark}, compact sizes)."
    )
    return [tables.write_table(table, results, f"prior_data_efficiency_{benchmark}", caption)]
