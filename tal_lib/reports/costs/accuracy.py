"""Accuracy against cost: the Pareto front of the models."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import COSTS, digits, threads_in_words
from tal_lib.reports.efficiency.runs import FLOOR, main_arm

STEPS = 720  # six minutes of HAPT; the nearest measured length is shown


def medians(cost: pd.DataFrame, benchmark: str) -> tuple[int, pd.DataFrame]:
    """(length in steps, a row per model) of compact models in float32 on the CPU of one machine.

    The rows are medians over repeated measurements, at the measured length nearest to `STEPS` and with the
    fewest threads. `memory_digits`: how many digits of the peak memory repeat. The table is empty if the
    benchmark's costs were not measured. `attrs["where"]`: the conditions in words.
    """
    cost = tables.on_main_machine(cost[cost.device == "cpu"]).dropna(subset=["latency_s_median"])
    measured = cost[
        (cost.preset == "compact") & (cost.precision == "float32") & (cost.benchmark == benchmark)
    ]
    if measured.empty:
        return 0, measured
    steps = min(measured.length_steps.unique(), key=lambda length: abs(length - STEPS))
    measured = measured[
        (measured.length_steps == steps) & (measured.threads_used == measured.threads_used.min())
    ]
    columns = [*COSTS, "latency_s_p10", "latency_s_p90"]
    by_model = tables.with_shown_names(measured).groupby("model")
    known = {model: digits(rows, "peak_memory_bytes") for model, rows in by_model}
    table = by_model[columns].median().assign(memory_digits=pd.Series(known)).reset_index()
    counted = threads_in_words(measured.threads_used.iloc[0])
    table.attrs["where"] = f" (compact, float32, batch size 1, {measured.device_name.iloc[0]}, {counted})"
    return steps, table


def write(data: dict[str, pd.DataFrame], ranked: pd.DataFrame, out) -> None:
    """Write one figure per cost: avg mAP at the largest fraction against the cost of `medians`.

    Accuracy is that of the equal arm. A benchmark without it, as in a quick study, has that of `main_arm`.

    Args:
        data: tidy tables of the official split.
        ranked: the table of `equal.ranking.ranking`; it may be empty.
    """
    equal = ranked[ranked.model != FLOOR].assign(runs=ranked.folds)
    summary = tables.efficiency_summary(main_arm(data["data_efficiency"]))
    for benchmark in dict.fromkeys([*equal.benchmark, *summary.benchmark]):
        steps, costs = medians(data["inference_cost"], benchmark)
        if costs.empty:
            continue
        arm = benchmark in set(equal.benchmark)
        rows = equal if arm else summary
        rows = rows[rows.benchmark == benchmark]
        both = rows[rows.fraction == rows.fraction.max()].merge(costs, on="model")
        for value, (name, label, unit) in COSTS.items() if len(both) > 1 else ():
            spread = {"cost_low": both.latency_s_p10 / unit, "cost_high": both.latency_s_p90 / unit}
            table = both.assign(**{value: both[value] / unit}, **(spread if name == "latency" else {}))
            where = " (compact)" if name == "macs" else costs.attrs["where"]
            at = label.replace(", median", "")  # on one line with the number of steps
            axes = figures.accuracy_against_cost(table, value, f"{at}, {steps:,} steps", folds=arm)
            shown = (
                f"avg mAP on {benchmark} with {100 * both.fraction.max():g} % of the labels"
                f"{' and the equal recipe' * arm} against {label} at {steps:,} steps{where}. "
                f"{both.model.nunique()} "
                "models with intervals, and their Pareto front."
            )
            out.figure(axes, f"accuracy_{name}_{benchmark}", shown)
