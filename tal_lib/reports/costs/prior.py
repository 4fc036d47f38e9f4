"""Our costs compared with the prior study's."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import in_passes, short
from tal_lib.reports.layout import Layout

PRIOR = Layout().prior / "warchocki_2023_inference.csv"
WORDS = {  # columns of `beside_prior` for readers
    "length_steps": "steps",
    "gmacs": "GMACs, prior study",
    "memory_mib": "memory (MiB), prior study",
    "time_ms": "time (ms), prior study",
    "time_ms_std": "std of time (ms), prior study",
    "our_gmacs": "GMACs, this study",
    "our_memory_mib": "memory (MiB), this study",
    "our_time_ms": "time (ms), this study",
}


def beside_prior(cost: pd.DataFrame) -> pd.DataFrame:
    """The prior study's costs with ours.

    `model, length_steps, gmacs, memory_mib, time_ms` are theirs (GPU, with NMS); `our_gmacs, our_memory_mib,
    our_time_ms` are ours (CPU, with NMS).
    """
    prior = pd.read_csv(PRIOR)
    ours = (
        _ours(cost)
        .groupby(["model", "length_steps"])
        .agg(
            our_gmacs=("macs", "median"),
            our_memory_mib=("peak_memory_bytes", "median"),
            our_time_ms=("detect_s_median", "median"),
        )
        .reset_index()
    )
    ours = ours.assign(
        our_gmacs=ours.our_gmacs / 1e9,
        our_memory_mib=ours.our_memory_mib / 2**20,
        our_time_ms=1e3 * ours.our_time_ms,
    )
    return prior.merge(ours, on=["model", "length_steps"])


def _ours(cost):
    """The rows that are comparable: published sizes at the shape of THUMOS14 on the main CPU, float32."""
    cost = tables.on_main_machine(cost[cost.device == "cpu"])
    return cost[(cost.benchmark == "thumos14") & (cost.preset == "paper") & (cost.precision == "float32")]


def write_prior(cost: pd.DataFrame, out) -> None:
    """Write tables and figures of the models that both studies have measured."""
    both = beside_prior(cost) if PRIOR.is_file() else pd.DataFrame()
    if both.empty:
        return
    where = "Prior study: on a GPU{}. This study: on one CPU thread{}. Not comparable: each has its own axis."
    measured = _ours(cost).merge(both[["model", "length_steps"]], on=["model", "length_steps"])
    passes = in_passes(measured).replace(" Each", " Here each")
    for column, name, label, about in (
        ("gmacs", "macs", "GMACs", "Counted by both studies, so there are no intervals."),
        (
            "memory_mib",
            "memory",
            "peak memory (MiB)",
            where.format(", weights included", ", without weights") + passes,
        ),
        ("time_ms", "time", "time with NMS (ms)", where.format("", "") + passes),
    ):
        axes = figures.beside_prior(both, column, label, name == "macs", about)
        shown = (
            f"{label[0].upper()}{label[1:]} of {both.model.nunique()} models of published size by recording "
            "length in steps, in this study and in the prior study: a panel each."
        )
        out.figure(axes, f"prior_{name}", shown)
    caption = (
        "Cost of the published sizes in the prior study (Warchocki et al., 2023) and in this study, at "
        "THUMOS14's feature width and number of classes. MACs are comparable; memory and time are not. Prior "
        "study: on a GPU, weights included in the memory. This study: on one CPU thread, weights excluded."
    )
    shown = both.map(lambda value: short(value) if isinstance(value, float) else value).fillna("–")
    out.table(shown.rename(columns=WORDS), "prior_inference", caption)
