"""Which costs are shown, their measurement conditions, and the format of their values."""

import pandas as pd

from tal_lib.reports import tables

# column: (name of its tables and figures, label, unit)
COSTS = {
    "macs": ("macs", "GMACs", 1e9),
    "latency_s_median": ("latency", "latency of the network (ms, median)", 1e-3),
    "detect_s_median": ("detect", "latency with decoding and NMS (ms, median)", 1e-3),
    "peak_memory_bytes": ("memory", "peak memory (MB)", 1e6),
}
# the same for costs that only some machines can measure; shown where there is a value
OPTIONAL_COSTS = {
    "joules_per_minute": ("energy", "energy (joules per minute of recording)", 1),
    "peak_reserved_bytes": ("reserved", "memory reserved on the GPU (MB), weights included", 1e6),
    "gpu_utilisation": ("utilisation", "GPU utilisation: time with a running kernel (%)", 0.01),
}


def with_energy_per_minute(cost: pd.DataFrame) -> pd.DataFrame:
    """The table with `joules_per_minute`: joules of a pass per minute of the recording.

    Without measured energy the table is unchanged.
    """
    if "energy_j" not in cost:
        return cost
    return cost.assign(joules_per_minute=pd.to_numeric(cost.energy_j) / (cost.length_s / 60))


def conditions(cost: pd.DataFrame):
    """Yield (file stem, text, rows) of every measured condition.

    A condition is a benchmark's shape, preset, device, precision and number of threads.
    """
    keys = ["benchmark", "preset", "device_name", "device", "precision", "threads_used"]
    measured = cost.dropna(subset=["latency_s_median"])
    main = {device: tables.main_machine(rows) for device, rows in measured.groupby("device")}
    for (benchmark, preset, device_name, device, precision, threads), rows in measured.groupby(
        keys, sort=False
    ):
        extra = [
            part
            for part in (
                "" if preset == "compact" else preset,
                "" if precision == "float32" else precision,
                "" if threads == 1 or device != "cpu" else f"{threads:g}threads",
            )
            if part
        ]
        counted = f", {threads_in_words(threads)}" if device == "cpu" else ""
        other = tables.machine_suffix(device_name, main[device])
        words = f"{preset} models, {precision}, batch size 1, {device_name}{counted}; shape of {benchmark}"
        yield "_".join([benchmark, *extra, device]) + other, words, rows


def threads_in_words(count: float) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count:g} thread" if count == 1 else f"{count:g} threads"


def short(value, digits: int = 3) -> str:
    """A value with three significant digits, without exponent; from 100 on with all before the point.

    digits: 2 for values whose third digit does not repeat; further digits are zeros.
    """
    if pd.isna(value):
        return value
    if digits < 3:
        value = float(f"{value:.{digits}g}")
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


NOISY = 0.02  # a value has two digits if its interval is wider than this share of it


def interval(rows: pd.DataFrame, column: str) -> list[str]:
    """The columns of the tenth and the ninetieth percentile of a cost; none if they were not measured."""
    stem = column.removesuffix("_median")
    names = [f"{stem}_p10", f"{stem}_p90"]
    return names if set(names) <= set(rows) and rows[names].notna().all(axis=1).any() else []


def in_passes(rows: pd.DataFrame) -> str:
    """A sentence for a caption: how many values were measured in one pass alone, and the number of passes of
    the others. Empty if none, or if it is not known.
    """
    passes = rows.passes.dropna() if "passes" in rows else pd.Series(dtype=float)
    once, others = int((passes == 1).sum()), passes[passes > 1]
    if not once:
        return ""
    if others.empty:
        return " Each value has one pass."
    ends = dict.fromkeys(f"{count:g}" for count in (others.min(), others.max()))
    some = f"{once:,} of {len(passes):,} values {'has' if once == 1 else 'have'} one pass"
    return f" {some}, others {' to '.join(ends)}."


def digits(rows: pd.DataFrame, column: str) -> int:
    """How many digits of the median of a cost repeat: 3, or 2 if it is noisy or was measured once."""
    names = interval(rows, column)
    if not names:
        return 2
    return 3 if ((rows[names[1]] - rows[names[0]]) / rows[column]).median() <= NOISY else 2
