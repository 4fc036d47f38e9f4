"""Findings of the study, and advice on which model to use.

Each answer comes from the results tables. It is left out if the tables lack the data. Where there is an equal
arm (`reports.equal`), accuracy is compared in it alone.
"""

from collections.abc import Iterable

import pandas as pd

from tal_lib.models.parts import registry
from tal_lib.reports import cards, tables, unseen
from tal_lib.reports.costs import quantization
from tal_lib.reports.costs.shapes import short
from tal_lib.reports.efficiency.runs import OUR_MODEL, main_arm
from tal_lib.reports.equal import sentences
from tal_lib.reports.equal.arms import MEAN, percent
from tal_lib.reports.escape import markdown

CLOSE = 2.0  # points of avg mAP; a smaller difference counts as close
DAYS = 0.2  # relative; whole recordings timed on another day took up to 17 % less, with the same code
TIE = 0.05  # relative; measured costs that differ by less are equal within their repeatability


def headlines(read, benchmarks: Iterable[str] = ("hapt",)) -> list[str]:
    """The study's findings, as paragraphs in Markdown. read: see `advice`.

    Where there is an equal arm, they are its findings. Else they are those of each benchmark, by own recipes.
    """
    benchmarks = list(benchmarks)
    if lines := sentences.findings(read, _macs_of_the_ranked(read, benchmarks[0] if benchmarks else "hapt")):
        return [markdown(line) for line in lines]
    return [line for benchmark in benchmarks for line in _of_own_recipes(read, benchmark)]


def _of_own_recipes(read, benchmark):
    """The findings on a benchmark where each model has its own recipe."""
    lines, where = [], f"On {markdown(benchmark)},"
    ranking, best, needed = (
        read(f"{name}_values_{benchmark}") for name in ("aggregate_ranking", "against_the_best", "annotation")
    )
    if len(ranking):
        first = ranking.iloc[0]
        close = ranking[(ranking.low <= first.iqm) & (ranking.high >= first.iqm)].model.iloc[1:]
        lines.append(
            f"{where} **{markdown(first.model)}** ranks first over all label fractions (interquartile mean "
            f"{first.iqm:.1f} avg mAP, [{first.low:.1f}, {first.high:.1f}]). Next are "
            f"{', '.join(map(markdown, ranking.model.iloc[1:4]))}."
        )
        if len(close):
            lines[-1] += f" The intervals of {', '.join(map(markdown, close))} contain this mean too."
    if len(best):
        ahead = best[best.difference > 0]
        lines.append(
            f"{where} **{OUR_MODEL}**, this study's model, is ahead of the best other model at {len(ahead)} "
            f"of {len(best)} label fractions. Each model has its own recipe. The differences range from "
            f"{best.difference.min():+.1f} to {best.difference.max():+.1f} points."
        )
    recipes = read(f"recipes_values_{benchmark}")
    given = (
        recipes[recipes.recipe.str.contains("rotate=30") & (recipes.model != OUR_MODEL)]
        if len(recipes)
        else recipes
    )
    for fraction, rows in given.groupby("fraction") if len(given) and len(best) else []:
        top = rows.loc[rows.changed.idxmax()]
        own_mean = best[best.fraction == fraction].own_mean
        if len(own_mean):
            lines.append(
                f"{where} {rows.model.nunique()} other models were trained with the recipe of {OUR_MODEL}. "
                f"The best at {100 * fraction:g} % of the labels is {markdown(top.model)} with "
                f"{top.changed:.1f} avg mAP ({top.difference:+.1f} from the recipe). {OUR_MODEL} has "
                f"{own_mean.iloc[0]:.1f}."
            )
    if len(needed):
        few, reach_90 = needed.iloc[0], int((needed.needs_90 < float("inf")).sum())
        bound = "at most " * bool(few.needs_80 <= few.get("fewest", 0))
        least = (
            f"{where} {markdown(few.model)} needs the fewest annotated segments for 80 avg mAP: {bound}"
            f"{few.needs_80:.0f}."
            if few.needs_80 < float("inf")
            else f"{where} no model reaches 80 avg mAP with all annotated segments."
        )
        lines.append(f"{least} {reach_90} of {len(needed)} models reach 90 with all of them.")
    return lines


def advice(read, benchmark: str = "hapt", long_shape: str = "thumos14") -> pd.DataFrame:
    """The model to use in each situation: `situation, use, because, from`.

    Where there is an equal arm, accuracy is from it: a winner is named only if it is told apart from all
    others, and costs are compared among the models that no benchmark tells apart from its best. Costs of an
    older network are left out.

    Args:
        read: `read(name)` → the results table of that name, empty if there is none.
        benchmark: the benchmark for accuracy, and for costs at its shape.
        long_shape: the benchmark whose shape gives the costs of long recordings.
    """
    answers = []

    def say(situation, model, because, table):
        answers.append({"situation": situation, "use": model, "because": because, "from": table})

    judged = _by_equal_arm(read, say, benchmark) or _by_own_recipes(read, say, benchmark)
    if not judged:
        return pd.DataFrame(columns=["situation", "use", "because", "from"])
    cost, tie = _cpu_costs(read), _tie(read)
    for labels, close, near in judged:
        _on_a_cpu(read, say, benchmark, cost, tie, labels, close, near)
    _, close, near = judged[-1]  # with the most labels
    _costs(read, say, benchmark, long_shape, cost, tie, close, near)
    for answer in unseen.answers(read("open_set")):
        say(*answer)
    return pd.DataFrame(answers)


def _by_equal_arm(read, say, benchmark):
    """Add the answers on accuracy of the equal arm.

    Returns:
        for each label fraction that is asked, the most labels last: the labels in words (empty for the most),
        the models that every benchmark advises, and that in words; empty without an equal arm.
    """
    questions = sentences.questions(read)
    macs = _macs_of_the_ranked(read, benchmark)
    advised: dict[str, dict[str, set[str]]] = {}  # labels -> benchmark -> models
    most = dict(questions)  # the last question of a benchmark has the most labels
    for name, fraction in questions:
        rows = sentences.ranked(read, name, fraction)
        where = "mean over benchmarks" if name == MEAN else name
        few = f"few labels ({percent(fraction)})"
        labels = "all labels" if fraction == 1 else few
        say(f"{labels}, {where}", *sentences.verdict(rows, macs), f"equal_{name}")
        key = "" if fraction == most[name] else few
        advised.setdefault(key, {})[name] = set(sentences.advised(rows).model)
    return [(labels, *_close(labels, advised[labels])) for labels in sorted(advised, reverse=True)]


def _close(labels, models):
    """The models that every benchmark advises, and that in words. models: benchmark -> its models."""
    close = set.intersection(*models.values())
    where = "in the mean over benchmarks" if MEAN in models else f"on {sentences.listed(models, 'and')}"
    at = f"with {labels or 'the most labels'} {where}"
    if len(close) == 1:
        return close, f"of the best models {at} (only {min(close)})"
    return close, f"of the {len(close)} leading models {at}"


def _by_own_recipes(read, say, benchmark):
    """The same of a study without an equal arm: each model by its own recipe, close by `CLOSE` points."""
    efficiency = read("data_efficiency")
    if efficiency.empty or not (efficiency.benchmark == benchmark).any():
        return []
    runs = efficiency[efficiency.benchmark == benchmark].fillna({"recipe": "", "options": "", "stream": ""})
    summary = tables.efficiency_summary(main_arm(runs))
    few, most = (
        summary[summary.fraction == pick].set_index("model")["mean"]
        for pick in (summary.fraction.min(), summary.fraction.max())
    )
    smallest = percent(summary.fraction.min())
    for situation, means in ((f"few labels ({smallest} of the recordings)", few), ("all labels", most)):
        ranked = means.sort_values(ascending=False)
        then = ", ".join(f"{name} {value:.1f}" for name, value in ranked.iloc[1:3].items())
        because = f"{ranked.iloc[0]:.1f} avg mAP. Next: {then}."
        say(situation, ranked.index[0], because, f"data_efficiency_{benchmark}")
    near = f"within {CLOSE:g} points of the best ({most.idxmax()}, {most.max():.1f})"
    return [("", set(most[most >= most.max() - CLOSE].index), near)]


def _cpu_costs(read):
    """Costs on one thread of a CPU: compact models in float32, by their shown names."""
    cost = read("inference_cost")
    if cost.empty:
        return cost
    cost = _measured(cost[cost.device == "cpu"], read("stale"))
    cost = cost[(cost.preset == "compact") & (cost.precision == "float32") & (cost.threads_used == 1)]
    return tables.with_shown_names(cost.assign(options=""))


def _at_usual_length(rows):
    """(steps, rows): costs at the measured length next to 720 steps."""
    steps = min(rows.length_steps.unique(), key=lambda length: abs(length - 720))
    return steps, rows[rows.length_steps == steps]


def _macs(read, benchmark, wanted):
    """Shown name → MACs at about 720 steps of the wanted models; None if none are measured.

    What the table lacks, because the model has changed since, is counted here: MACs need no machine.
    """
    cost = _cpu_costs(read)
    rows = cost[cost.benchmark == benchmark] if len(cost) else cost
    if not len(rows):
        return None
    steps, rows = _at_usual_length(rows)
    known = rows.groupby("model").macs.median().dropna().to_dict()
    for name in registry.names() if {"input_dim", "num_classes"} <= set(rows) else ():
        shown = tables.shown_name(name, "compact")
        if shown in wanted and shown not in known and registry.origin(name).startswith("tal_lib."):
            shape = int(rows.input_dim.iloc[0]), int(rows.num_classes.iloc[0])
            known[shown] = 1e9 * cards.counted(name, *shape, int(steps))[1]
    return pd.Series({name: macs for name, macs in known.items() if name in wanted}, dtype=float)


def _macs_of_the_ranked(read, benchmark):
    """`_macs` of all models of the equal arm; None without an equal arm."""
    ranked = read(sentences.RANKED)
    return _macs(read, benchmark, set(ranked.model)) if len(ranked) else None


def _measured(rows, stale, *, trained=False):
    """The rows of a table of costs on the main machine, without the cells of other code than today's and
    without other sizes of a model.

    trained: whether training matters, as for the time to an accuracy. A cost of the network alone is the same
    after training by an older recipe.
    """
    rows = tables.as_preset(tables.on_main_machine(rows))
    if not len(rows) or not len(stale) or "cell" not in rows:
        return rows
    areas = stale.groupby("cell").area.agg(list)
    older = [
        any(_concerns(area, row.model, trained) for area in areas.get(row.cell, []))
        for row in rows.itertuples()
    ]
    return rows[~pd.Series(older, rows.index)]


def _concerns(area, model, trained):
    """Whether a cost of a model depends on an area of the code. A cell names areas of other models too."""
    kind, _, name = area.partition("/")
    if kind in ("models", "presets", "recipes") and name in registry.every_name() and name != model:
        return False
    return trained or not (kind in ("recipes", "training", "evaluation") or area.startswith("data"))


def _end_to_end(read, benchmark):
    """Shown name → seconds for an hour of recording of a trained model: network, decoding and NMS, one
    thread."""
    rows = _measured(read("inference_length"), read("stale"))
    if rows.empty:
        return pd.Series(dtype=float)
    rows = rows[(rows.benchmark == benchmark) & (rows.window == 0) & (rows.threads_used == 1)]
    rows = tables.with_shown_names(rows.assign(preset="compact", options="", stream=""))
    return rows.groupby("model").seconds_per_hour.median()


def _tie(read):
    """Relative difference up to which two times tie: no repeated latency differed by more."""
    table = read("repeatability")
    return max(TIE, float(table.change.abs().max())) if len(table) else TIE


def _fastest(times, tie, more="as long", why=""):
    """(models, sentences) of the smallest cost and of those that tie with it. times: model → cost.

    tie: relative; `DAYS` is the allowance for times of different days. why: the reason of another tie.
    """
    level = times[times <= times.min() * (1 + tie)].sort_values()
    others = times.drop(level.index).sort_values()
    text = ""
    if len(level) > 1:
        of = "the allowance for different days" if tie == DAYS else why or "the repeatability of latencies"
        text = f" They tie within {_percent(tie)} %, {of}."
    if len(others):
        text += f" Next: {others.index[0]}, {others.iloc[0] / level.iloc[0]:.2f} times {more}."
    return " or ".join(level.index), text


def _percent(share):
    """A share in percent with two digits, or more before the point."""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}"


def _between_evaluations(curve, rows):
    """Seconds of training between two evaluations of the runs in `rows`; 0 if they are not known.

    The time to a mAP is interpolated, so it is not known better than this.
    """
    if not len(curve):
        return 0.0
    seconds = curve[curve.cell.isin(rows.cell)].sort_values("seconds").groupby("cell").seconds
    between = seconds.diff().dropna()
    return float(between.median()) if len(between) else 0.0


def _unknown(close, known):
    """A sentence on the models without a measurement by the code of today."""
    missing = sorted(set(close) - set(known))
    return f" Not measured: {', '.join(missing)}." * bool(missing)


def _on_a_cpu(read, say, benchmark, cost, tie, labels, close, near):
    """Add the answer for one thread of a CPU, among the models close to the best with these labels.

    cost: from `_cpu_costs`; tie: from `_tie`.
    """
    situation = f"{labels} on a CPU, one thread" if labels else "a CPU only, one thread"
    times = _end_to_end(read, benchmark)
    times = times[times.index.isin(close)]
    if len(times):
        use, text = _fastest(times, max(tie, DAYS))
        because = (
            f"{times.min():.2f} s per hour of recording, trained with all labels: network, decoding and NMS. "
            f"The fastest {near}.{text}{_unknown(close, times.index)}"
        )
        say(situation, use, because, f"inference_length_time_{benchmark}")
    elif len(here := _with_latency(cost, benchmark, close)):
        steps, at = _at_usual_length(here)
        medians = at.groupby("model").detect_s_median.median()
        use, text = _fastest(medians, tie)
        because = (
            f"{1e3 * medians.min():.1f} ms for {steps:,} steps, untrained: network, decoding and NMS. The "
            f"fastest {near}.{text}"
        )
        say(situation, use, because, f"detect_{benchmark}_cpu")


def _with_latency(cost, benchmark, close):
    """The costs of these models at a benchmark's shape that were timed. cost: from `_cpu_costs`."""
    if cost.empty:
        return cost
    return cost[(cost.benchmark == benchmark) & cost.model.isin(close)].dropna(subset=["latency_s_median"])


def _costs(read, say, benchmark, long_shape, cost, tie, close, near):
    """Add answers that weigh accuracy against a cost, among the models close to the best.

    cost: from `_cpu_costs`; tie: from `_tie`.
    """
    if len(cost):
        here = _with_latency(cost, benchmark, close)
        if len(here):
            steps, _ = _at_usual_length(here)
            macs = _macs(read, benchmark, close)
            use, text = _fastest(macs, 0, "as many")
            say(
                "little computation",
                use,
                f"{macs.min() / 1e9:.2f} GMACs for {steps:,} steps. The fewest {near}.{text}",
                f"macs_{benchmark}_cpu",
            )
        far = cost[(cost.benchmark == long_shape) & cost.model.isin(close)]
        far = far.dropna(subset=["detect_s_median"])
        if len(far):
            steps = far.length_steps.max()
            at = far[far.length_steps == steps].groupby("model")[["detect_s_median", "peak_memory_bytes"]]
            at = at.median()
            use, text = _fastest(at.detect_s_median, tie)
            least = at.peak_memory_bytes.min()
            lean = at.index[at.peak_memory_bytes <= least * (1 + TIE)]
            say(
                f"long recordings ({steps:,} steps)",
                use,
                f"{at.detect_s_median.min():.2f} s with decoding and NMS, untrained, so every point is a "
                f"candidate. The fastest {near}.{text} Least memory: "
                f"{sentences.listed(lean, 'or')}, {short(least / 1e6)} MB.",
                f"detect_{long_shape}_cpu",
            )
    milestones = _measured(read("training_milestones"), read("stale"), trained=True)
    if len(milestones):
        rows = milestones[(milestones.benchmark == benchmark) & milestones.model.isin(close)]
        reached = rows.groupby("model").near_final_s.median()
        if len(reached):
            between = _between_evaluations(read("training_curve"), rows[rows.model == reached.idxmin()])
            within, usual = between / reached.min(), max(tie, DAYS)
            why = "the time between two evaluations" if within > usual else ""
            use, text = _fastest(reached, max(usual, within), why=why)
            say(
                "little time to train",
                use,
                f"{reached.min():.0f} s to 95 % of its final mAP on one thread (default recipe, one run). "
                f"The shortest {near}.{text}{_unknown(close, reached.index)}",
                f"training_{benchmark}",
            )
    numbers = _measured(read("quantization"), read("stale"))
    if len(numbers):
        rows = numbers[
            (numbers.benchmark == benchmark)
            & numbers.model.isin(close)
            & (numbers.threads_used == 1)
            & ~numbers.variant.isin(quantization.FULL_PRECISION)
        ]
        rows, known = rows[rows.map_lost <= 1].dropna(subset=["latency_s_median"]), rows.model
        if len(rows):
            rows = rows.sort_values("latency_s_median").drop_duplicates("model")
            best = rows.iloc[0]
            use, text = _fastest(
                pd.Series(list(rows.latency_s_median), rows.model + ", " + rows.variant), tie
            )
            same = numbers[(numbers.model == best.model) & (numbers.variant == best.variant)]
            same = same[(same.benchmark == benchmark) & (same.threads_used > 1)].sort_values("threads_used")
            for more in same.drop_duplicates("threads_used").dropna(subset=["speedup"]).itertuples():
                text = f" On {more.threads_used:g} threads it is {more.speedup:.2f} times as fast.{text}"
            say(
                "smallest latency with lower precision",
                use,
                f"{1e3 * best.latency_s_median:.1f} ms at {best.length_steps:,.0f} steps for the network "
                f"alone on one thread, {best.speedup:.2f} times as fast as float32. {abs(best.map_lost):.2f} "
                f"points of avg mAP {'lost' if best.map_lost >= 0 else 'gained'} (untuned).{text}"
                f"{_unknown(close, known)}",
                f"quantization_{benchmark}",
            )
