"""What models cost, for readers: inference, its growth, training, quantization, export, windows; tables and figures."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.cost.growth import growth_table, longest_text, longest_within
from tal_lib.cost.meters import QUIET
from tal_lib.files import study_root
from tal_lib.reports import figures, tables

# column: what its tables and figures are called, label, unit
COSTS = {
    "macs": ("macs", "GMACs", 1e9),
    "latency_s_median": ("latency", "latency of the network (ms, median)", 1e-3),
    "detect_s_median": ("detect", "latency with decoding and NMS (ms, median)", 1e-3),
    "peak_memory_bytes": ("memory", "peak memory (MB)", 1e6),
}
GROWTHS = {"latency_s_median": "time", "macs": "MACs", "peak_memory_bytes": "memory"}
LIMITS_GB = (0.5, 2, 8)
PRIOR = study_root() / "results" / "prior" / "warchocki_2023_inference.csv"


def write(data: dict[str, pd.DataFrame], results: Path, draw) -> list[Path]:
    """All tables and figures of costs that the data allow. draw: `draw(axes, name)` keeps a figure; returns the tables' paths."""
    written = []
    for name, section in (
        ("inference_cost", inference),
        ("training_step", training),
        ("quantization", quantization),
        ("export", export),
        ("inference_length", inference_length),
    ):
        if len(data.get(name, ())):
            written += section(data, results, draw)
    return written


def conditions(cost: pd.DataFrame):
    """(file stem, words, rows) of every benchmark's shape, preset, device, precision and number of threads measured."""
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
        counted = f", {threads:g} thread{'s' * (threads > 1)}" if device == "cpu" else ""
        other = tables.machine_suffix(device_name, main[device])
        words = f"{preset} models, {precision}, batch 1, {device_name}{counted}; D and K of {benchmark}"
        yield "_".join([benchmark, *extra, device]) + other, words, rows


def inference(data, results, draw):
    """Costs against length, their growth, the longest recording that fits, how well latencies repeat, and the prior study's figures."""
    cost, written, grown, longest = data["inference_cost"], [], [], []
    for stem, words, rows in conditions(cost):
        alike = (
            cost[["benchmark", "preset", "precision"]] == rows[["benchmark", "preset", "precision"]].iloc[0]
        ).all(axis=1)
        alike &= cost.device_name == rows.device_name.iloc[0]
        failed = (
            cost[alike & cost.latency_s_median.isna()].groupby("model").length_steps.min()
        )  # with decoding and NMS
        share = rows.groupby("length_steps").model.nunique() / rows.model.nunique()
        common = rows[rows.length_steps.map(share) >= 0.5]  # the prior study's lengths are of its own models
        for column, (name, label, unit) in COSTS.items():
            table = common.assign(value=common[column] / unit).pivot_table(
                index="model", columns="length_steps", values="value", aggfunc="median"
            )
            table = table.sort_values(table.columns[-1]).map(_short)
            table.columns = [f"{steps:,}" for steps in table.columns]
            caption = f"{label[0].upper()}{label[1:]} by recording length in steps: {words}."
            written.append(
                tables.write_table(table.fillna("–").reset_index(), results, f"{name}_{stem}", caption)
            )
            if common.length_steps.nunique() > 1:
                draw(
                    figures.cost_against_length(
                        common.assign(**{column: common[column] / unit}), column, label
                    ),
                    f"{name}_against_length_{stem}",
                )
        about = {"condition": stem}
        grown.append(growth_table(rows, GROWTHS).assign(**about))
        for model, mine in rows.groupby("model"):
            for limit in LIMITS_GB:
                steps, beyond = longest_within(mine.length_steps, mine.peak_memory_bytes, limit * 1e9)
                longest.append(
                    about
                    | {
                        "model": model,
                        "limit_gb": limit,
                        "steps": steps,
                        "extrapolated": beyond,
                        "longest_steps": mine.length_steps.max(),
                        "did_not_fit_at": failed.get(model, np.nan),
                    }
                )
    grown, longest = pd.concat(grown).dropna(subset=["exponent"]), pd.DataFrame(longest)
    if len(grown):
        written.append(tables.write_csv(grown, results, "growth"))
    written.append(tables.write_csv(longest, results, "longest_recording"))
    for stem, mine in grown.groupby("condition"):
        text = mine.assign(
            text=[f"{row.exponent:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in mine.itertuples()]
        )
        table = text.pivot(index="model", columns="cost", values="text")[list(GROWTHS.values())]
        fits = longest[longest.condition == stem].assign(
            text=lambda t: [_steps(row) for row in t.itertuples()]
        )
        fits = fits.pivot(index="model", columns="limit_gb", values="text").rename(
            columns=lambda limit: f"steps in {limit:g} GB"
        )
        caption = (
            "How cost grows: exponents e of cost ∝ lengthᵉ from 1,152 steps on with 95 % intervals, and the longest recording "
            f"whose pass fits into a given memory, weights excluded (≈: beyond what was measured, >: far beyond; <: decoding "
            f"did not fit there); {stem.replace('_', ' ')}."
        )
        written.append(tables.write_table(table.join(fits).reset_index(), results, f"growth_{stem}", caption))
    return written + _repeatability(cost, results) + _prior(cost, results, draw)


def _short(value):
    """Three figures, no exponent."""
    return value if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _steps(row):
    if row.steps > row.did_not_fit_at:
        return f"< {row.did_not_fit_at:,.0f}"
    return longest_text(row.steps, row.extrapolated, row.longest_steps)


def repeatability(cost: pd.DataFrame) -> pd.DataFrame:
    """Cells whose latency was measured twice: `model, length_steps, first_s, again_s, change` (again / first − 1), and whether the machine
    was `quiet` both times: the reference beside the samples at most `QUIET` times its fastest on that machine."""
    keys = ["benchmark", "preset", "device_name", "precision", "threads_used", "model", "length_steps"]
    slower = (
        cost.reference_s / cost.groupby("device_name").reference_s.transform("min")
        if "reference_s" in cost
        else np.inf
    )
    both = (
        cost.assign(slower=slower)
        .fillna({"slower": np.inf})
        .pivot_table(index=keys, columns="repeat", values=["latency_s_median", "slower"])
    )
    if not {0, 1} <= set(both.latency_s_median.columns):
        return pd.DataFrame()
    times = both.latency_s_median[[0, 1]].rename(columns={0: "first_s", 1: "again_s"})
    times = times.assign(
        change=times.again_s / times.first_s - 1, quiet=(both.slower[[0, 1]] <= QUIET).all(axis=1)
    )
    return times.dropna().reset_index()


def repeats(table: pd.DataFrame) -> list[str]:
    """How far latencies repeat, a sentence or two a machine. table: as `repeatability` makes it, or empty."""
    said = []
    for machine, rows in table.groupby("device_name", sort=False) if len(table) else []:
        change = 100 * rows.change.abs()
        said.append(
            f"{len(rows)} latencies were measured twice on {machine}, in another order, by another process: half of the medians "
            f"differ by less than {change.median():.1f} %, nine of ten by less than {change.quantile(0.9):.1f} %, "
            f"{100 * (change < 10).mean():.0f} % by less than 10 %, the worst by {change.max():.1f} %."
        )
        if 0 < rows.quiet.sum() < len(rows):
            quiet = change[rows.quiet]
            said[-1] += (
                f" Where the machine was quiet both times ({len(quiet)}, by the reference beside the samples): "
                f"{100 * (quiet < 10).mean():.0f} % by less than 10 %, the worst by {quiet.max():.1f} %."
            )
    return said


def _repeatability(cost, results):
    table = repeatability(cost) if "repeat" in cost else pd.DataFrame()
    return [tables.write_csv(table, results, "repeatability")] if len(table) else []


def beside_prior(cost: pd.DataFrame) -> pd.DataFrame:
    """The prior study's figures beside ours: `model, length_steps, gmacs, memory_mib, time_ms` (theirs: GPU, with NMS) and `our_gmacs,
    our_memory_mib, our_time_ms` (CPU, with NMS)."""
    prior = pd.read_csv(PRIOR)
    cost = tables.on_main_machine(cost[cost.device == "cpu"])
    mine = cost[(cost.benchmark == "thumos14") & (cost.preset == "paper") & (cost.precision == "float32")]
    mine = (
        mine.groupby(["model", "length_steps"])
        .agg(
            our_gmacs=("macs", "median"),
            our_memory_mib=("peak_memory_bytes", "median"),
            our_time_ms=("detect_s_median", "median"),
        )
        .reset_index()
    )
    mine = mine.assign(
        our_gmacs=mine.our_gmacs / 1e9,
        our_memory_mib=mine.our_memory_mib / 2**20,
        our_time_ms=1e3 * mine.our_time_ms,
    )
    return prior.merge(mine, on=["model", "length_steps"])


def _prior(cost, results, draw):
    both = beside_prior(cost) if PRIOR.is_file() else pd.DataFrame()
    if both.empty:
        return []
    draw(figures.beside_prior(both, "gmacs", "GMACs"), "prior_macs")
    draw(
        figures.beside_prior(both, "memory_mib", "peak memory (MiB); theirs on a GPU, weights included"),
        "prior_memory",
    )
    draw(figures.beside_prior(both, "time_ms", "time with NMS (ms); theirs on a GPU"), "prior_time")
    caption = (
        "Cost of the published sizes beside the figures of Warchocki et al. (2023), D and K of THUMOS14. MACs are comparable; their "
        "memory (weights included) and time are of a GPU, ours (weights excluded) of one CPU thread."
    )
    shown = both.map(lambda value: _short(value) if isinstance(value, float) else value).fillna("–")
    return [tables.write_table(shown, results, "prior_inference", caption)]


def training(data, results, draw):
    """Steps, memory, time to accuracy."""
    step, reached, curve = (data[name] for name in ("training_step", "training_milestones", "training_curve"))
    written, main = [], tables.main_machine(step)
    for (benchmark, machine), rows in step.groupby(["benchmark", "device_name"], sort=False):
        here = lambda table: table[(table.benchmark == benchmark) & (table.device_name == machine)]  # noqa: B023
        mine, stem = here(reached), benchmark + tables.machine_suffix(machine, main)
        both = (
            rows.groupby("model")
            .mean(numeric_only=True)
            .join(mine.groupby("model").mean(numeric_only=True), rsuffix="_of_run")
        )
        table = (
            pd.DataFrame(
                {
                    "params (M)": both.params / 1e6,
                    "ms a step": 1e3 * both.step_s_median,
                    "steps/s": both.steps_per_s,
                    "memory (MB)": both.peak_memory_bytes / 1e6,
                    "state (MB)": both.state_bytes / 1e6,
                    "training (s)": both.total_s,
                    "to 95 % of final (s)": both.near_final_s,
                    "to best (s)": both.best_s,
                    "final avg mAP": 100 * both.final_map,
                    "best avg mAP": 100 * both.best_map,
                }
            )
            .sort_values("to 95 % of final (s)")
            .map(_short)
        )
        threads = (
            "one CPU thread" if rows.threads_used.max() == 1 else f"{rows.threads_used.max():g} CPU threads"
        )
        caption = (
            f"Training cost on {benchmark}, batches of {rows.batch_size.iloc[0]:g} crops of at most {rows.crop_steps.max():g} steps "
            f"for every model, {machine}, {threads}. Memory: peak of a step above state (weights, gradients, "
            "moments). Times are of training alone; mAP of the test recordings at several epochs, which chose nothing."
        )
        written.append(tables.write_table(table.reset_index(), results, f"training_{stem}", caption))
        lines = here(curve)
        draw(figures.accuracy_over_time(lines.assign(map=100 * lines["map"])), f"accuracy_over_time_{stem}")
    return written


def quantization(data, results, draw):
    """How much faster, and how much worse, a model is in smaller numbers."""
    table, written = data["quantization"], []
    timed = table.dropna(subset=["latency_s_median"])
    main = tables.main_machine(timed)
    for (benchmark, threads, steps, machine), rows in timed.groupby(
        ["benchmark", "threads_used", "length_steps", "device_name"]
    ):
        shown = pd.DataFrame(
            {
                "model": rows.model,
                "variant": rows.variant,
                "converted layers": [f"{row.converted:g} of {row.layers:g}" for row in rows.itertuples()],
                "of weights (%)": (100 * rows.weight_share).round(),
                "of MACs (%)": (100 * rows.mac_share).round(),
                "file (MB)": (rows.file_bytes / 1e6).round(2),
                "latency (ms)": (1e3 * rows.latency_s_median).round(1),
                "times as fast": rows.speedup.round(2),
                "avg mAP": rows.avg_map.round(1),
                "lost": rows.map_lost.round(2),
            }
        )
        caption = (
            f"Smaller numbers on a CPU: {benchmark}, {steps:g} steps, {threads:g} thread(s), {machine}. A graph "
            "may hold a layer's weight once for each of its uses. Speed is relative to float32 in torch, measured in turns."
        )
        stem = f"quantization_{benchmark}_{threads:g}thread{'s' * (threads > 1)}{tables.machine_suffix(machine, main)}"
        written.append(tables.write_table(shown.fillna("–"), results, stem, caption))
        draw(figures.speed_and_loss(rows[rows.variant != "float32"]), stem)
    return written


def export(data, results, draw):
    """Which model can be written in which format, and how far its graph is from it."""
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
        "Exported graphs: largest difference from the model, relative to 1 + |value|, over several batches and lengths other than "
        "the traced one; or why there is no graph."
    )
    if (table.largest_difference > 1e-4).any():
        caption += (
            " Where it is above 1e-4, so is float32 itself: the model differs as much from itself in float64."
        )
    return [tables.write_table(shown, results, "export_parity", caption)]


def _reason(problem):
    """What stands between `cannot be …` and the remedy, without addresses of objects."""
    return (
        re.sub(r"<[^<>]*(<[^<>]*>)?[^<>]*>", "…", problem)
        .split(": ", 1)[-1]
        .split(" (", 1)[-1]
        .split(". ")[0]
        .rstrip(")")[:90]
    )


def inference_length(data, results, draw):
    """Whole recordings against windows of them."""
    table, written = data["inference_length"], []
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
            ("seconds_per_hour", "time", 1, "seconds for an hour of recording"),
            ("peak_memory_bytes", "memory", 1e6, "peak memory (MB) of the longest recording"),
        ):
            shown = (
                rows.assign(value=rows[column] / unit)
                .pivot_table(index="model", columns="choice", values="value")[order]
                .map(_short)
            )
            caption = (
                f"{label[0].upper()}{label[1:]}: {benchmark}, models run on whole recordings or on windows (steps) of them; "
                f"network, decoding and NMS on one CPU thread of {machine}; recordings of at most "
                f"{rows.longest_steps.max():,.0f} steps."
            )
            written.append(
                tables.write_table(shown.reset_index(), results, f"inference_length_{name}_{stem}", caption)
            )
        draw(figures.window_accuracy(rows), f"inference_length_{stem}")
    return written
