"""Inference cost against length, its growth, and the longest recording that fits in memory."""

import pandas as pd

from tal_lib.cost.growth import FIRST
from tal_lib.reports import figures, tables
from tal_lib.reports.costs.growth import (
    did_not_fit,
    exponents_of,
    growth_for_readers,
    longest_recordings,
)
from tal_lib.reports.costs.prior import write_prior
from tal_lib.reports.costs.repeatability import write_repeatability
from tal_lib.reports.costs.shapes import (
    COSTS,
    OPTIONAL_COSTS,
    conditions,
    digits,
    in_passes,
    interval,
    short,
    with_energy_per_minute,
)
from tal_lib.reports.provenance import of_older_code

NOT_DRAWN = ("peak_reserved_bytes", "gpu_utilisation", "joules_per_minute")  # a table is enough
WITHOUT_INTERVAL = {  # what a figure says of values without one
    "macs": "Counted, not measured: there is no interval.",
    "detect_s_median": "Median of the passes, each in a process of its own; no interval was measured.",
    "peak_memory_bytes": "One process per pass, so there is no interval.",
}
MOST = 12  # lengths in a table: more do not fit beside each other
OF_THE_CPU = ("macs", "detect_s_median")  # of a GPU or of a second CPU, a table is enough


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write costs against length, their growth and the longest recordings.

    It also writes the repeatability of latencies and the comparison with the prior study.
    """
    cost, grown, longest = data["inference_cost"], [], []
    for stem, words, rows in conditions(cost):
        _write_against_length(rows, stem, words, _main_machine(cost, rows.iloc[0]), cost, out)
        exponents, limits = exponents_of(rows), longest_recordings(rows, cost)
        if len(exponents):
            fitted = rows[rows.length_steps >= FIRST]
            tried = cost.loc[fitted.index.union(did_not_fit(cost, rows).index)]
            caption = (
                f"Growth exponents from {FIRST:,} steps on, longest recordings that fit (signs: "
                f"docs/costs.md): {words}.{in_passes(fitted)}{of_older_code(tried)}"
            )
            out.table(growth_for_readers(exponents, limits), f"growth_{stem}", caption)  # no value is best
        grown.append(exponents.assign(condition=stem))
        longest.append(limits.assign(condition=stem)[["condition", *limits]])
    for name, parts in (("growth", grown), ("longest_recording", longest)):
        if table := [part for part in parts if len(part)]:
            out.data(pd.concat(table), name)
    write_repeatability(cost, out)
    write_prior(cost, out.about("prior"))


def _main_machine(cost, about):
    """The machine with the most rows of a shape and preset: a CPU, if one measured them."""
    alike = cost[(cost.benchmark == about.benchmark) & (cost.preset == about.preset)]
    on_cpu = alike[alike.device == "cpu"]
    return tables.main_machine(on_cpu if len(on_cpu) else alike)


def _write_against_length(rows, stem, words, main, every, out):
    """Write each cost by model and length. MACs are the same everywhere: only the main machine has them.

    every: the rows of all conditions, which say what models there are.
    """
    common = with_energy_per_minute(of_common_lengths(rows))
    absent = sorted(set(every.model) - set(common.model))
    missing = f" Not measured here: {', '.join(absent)}." if absent else ""
    optional = {
        column: about
        for column, about in OPTIONAL_COSTS.items()
        if column in common and common[column].notna().mean() >= 0.5
    }
    for column, (name, label, unit) in (COSTS | optional).items():
        if common[column].isna().all():  # MACs that were not counted
            continue
        if column == "macs" and common.device_name.iloc[0] != main:
            continue
        table = cost_by_length(common, column)
        about = f"{label[0].upper()}{label[1:]} by recording length (steps): {words}."
        measured = "" if column == "macs" else in_passes(common)  # MACs are counted once
        caption = about + measured
        if column == "peak_memory_bytes":
            caption += " Noisy values have two digits."  # docs/costs.md says which
        caption += of_older_code(common)
        out.table(table.reset_index(), f"{name}_{stem}", caption, tables.LOWEST)
        if common.length_steps.nunique() > 1 and _is_drawn(common, column, main):
            scaled = common.assign(**{at: common[at] / unit for at in (column, *interval(common, column))})
            axes = figures.cost_against_length(
                scaled,
                column,
                label,
                interval(common, column),
                WITHOUT_INTERVAL.get(column, ""),
                f"{measured.strip()}{missing}".strip(),
            )
            models = f"{common.model.nunique()} models, a panel per family"
            shown = f"{about} {models}.{measured}"
            out.figure(axes, f"{name}_against_length_{stem}", shown)


def _is_drawn(rows, column, main):
    """Whether a cost has a figure beside its table; elsewhere than on the main machine, latency and memory of
    compact models alone.
    """
    first = rows.iloc[0]  # the rows are of one condition
    elsewhere = column not in OF_THE_CPU and first.preset == "compact"
    return (
        first.precision == "float32" and column not in NOT_DRAWN and (first.device_name == main or elsewhere)
    )


def of_common_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of lengths that at least a third of the models have, if there are more than `MOST` lengths.

    The lengths of the prior study have only its models.
    """
    if rows.length_steps.nunique() <= MOST:
        return rows
    models = rows.groupby("length_steps").model.nunique()
    return rows[rows.length_steps.map(models) >= min(models.max(), rows.model.nunique() / 3)]


def cost_by_length(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A cost as text: one row per model, one column per length, the cheapest at the longest length first.

    Peak memory has only the digits that repeat. Only common lengths are shown (`of_common_lengths`).

    Args:
        column: one of `COSTS` or `OPTIONAL_COSTS`.
    """
    unit = (COSTS | OPTIONAL_COSTS)[column][2]
    rows = of_common_lengths(rows)
    values = rows.pivot_table(index="model", columns="length_steps", values=column, aggfunc="median") / unit
    text = values.map(short)
    if column == "peak_memory_bytes":
        for (model, steps), group in rows.groupby(["model", "length_steps"]):
            text.loc[model, steps] = short(values.loc[model, steps], digits(group, column))
    text = text.loc[values.sort_values(values.columns[-1]).index]
    return text.rename(columns=lambda steps: f"{steps:,}").rename_axis(columns=None).fillna("–")


def spread_of_memory(rows: pd.DataFrame) -> str:
    """A sentence on how far the peak memory repeats in fresh processes."""
    names = interval(rows, "peak_memory_bytes")
    if not names:
        return "It was measured in one process per pass, so values have two digits."
    known = rows.dropna(subset=names)
    if known.memory_samples.max() < 2:
        return "It was measured in one process, so its spread is not known."
    spread = (known[names[1]] - known[names[0]]) / known.peak_memory_bytes
    keys = [
        name for name in ("model", "length_steps", "precision", "threads_used") if name in rows
    ]  # repeats: one value
    some, every = (len(part.drop_duplicates(keys)) for part in (known, rows))
    which = f"For {some} of {every} values it" if some < every else "It"
    return (
        f"{which} is the median of {known.memory_samples.min():.0f} or more fresh processes"
        f"{' (the others: one process per pass, two digits)' if some < every else ''}. From the tenth to "
        f"the ninetieth percentile, it spans {100 * spread.median():.1f} % of its median (median over rows; "
        f"at most {100 * spread.max():.0f} %). Values that span more than 2 % have two digits."
    )
