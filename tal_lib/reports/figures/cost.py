"""Cost figures: against length, against accuracy, over the training, in lower precision."""

from functools import partial
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from tal_lib.evaluation.statistics import summarise
from tal_lib.reports.figures.accuracy import lines_of
from tal_lib.reports.figures.axes import (
    GAP_AXIS,
    STRETCHED,
    VARIANTS,
    legend_above,
    note,
    plain_log,
    runs_note,
    space_by_what_is_missing,
    spread_ticks,
    with_enough_runs,
)
from tal_lib.reports.figures.families import model_of, model_panels
from tal_lib.reports.figures.labels import GREY, name_at_points, name_at_right
from tal_lib.reports.tables.names import short_names
from tal_lib.reports.tables.summaries import number_of_runs
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

PERCENTILES = "tenth to ninetieth percentile"
VISIBLE = 0.005  # of the longest bar: about a pixel


def cost_against_length(
    table: pd.DataFrame, value: str, label: str, interval=(), about: str = "", more: str = ""
):
    """A cost of each model by recording length, both axes logarithmic; a panel per family.

    table: `model, length_steps, <value>`.
    interval: the columns of the ends of the value's interval, drawn as bars; empty: none.
    about: what the values are if there is no interval. more: a sentence on how often they were measured.
    """
    table = short_names(table.dropna(subset=[value]))[0]
    if value == "macs":  # the same in every precision
        table = table.assign(model=table.model.map(model_of))
    names = ["x", "y", *(("low", "high") if len(interval) else ())]
    lines = {
        str(model): rows.groupby("length_steps")[[value, *interval]]
        .median()
        .reset_index()
        .set_axis(names, axis=1)
        for model, rows in table.sort_values("length_steps").groupby("model", sort=False)
    }
    lengths = table.length_steps
    ticks = spread_ticks(
        lengths.unique(), max(1.9, (lengths.max() / lengths.min()) ** (1 / 6))
    )  # six labels fit

    def prepare(ax):
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        plain_log(ax.yaxis)

    drawn = len(interval) and (table[interval[1]] > table[interval[0]]).any()
    one_value = "One measurement each, so there is no interval."
    text = about or (one_value if len(interval) else "No interval is drawn.")
    if drawn:
        of_what = "fresh processes" if value == "peak_memory_bytes" else "repeated runs of the network"
        text = f"Median of {of_what}; bars: {PERCENTILES}."
    xlabel = "recording length (steps, log scale)"
    return model_panels(lines, prepare, xlabel, f"{label}, log scale", f"{text} {more}".strip())


def inference_length(table: pd.DataFrame):
    """avg mAP against the time for an hour of recording: a marker per window size, a line per overlap.

    table: `window, overlap` (steps; window 0 is the whole recording), `avg_map` (%), `seconds_per_hour`.
    """
    ax = new_axes(figsize=(WIDTH, 2.8))
    windows = table[table.window > 0]
    shares = (windows.overlap / windows.window).round(2)
    for index, (share, rows) in enumerate(windows.groupby(shares)):
        colour, marker = VARIANTS[index % len(VARIANTS)]
        rows = rows.sort_values("window")
        ax.plot(
            rows.seconds_per_hour,
            rows.avg_map,
            marker=marker,
            color=colour,
            markersize=4.5,
            linewidth=0.9,
            label=f"{100 * share:g} % overlap",
        )
        for row in rows.itertuples():
            ax.annotate(
                f"{row.window:g}",
                (row.seconds_per_hour, row.avg_map),
                xytext=(4, 4),  # lines fall to the right
                textcoords="offset points",
                fontsize=SMALL,
                color=colour,
            )
    whole = table[table.window == 0]
    ax.plot(
        whole.seconds_per_hour,
        whole.avg_map,
        marker="*",
        color="#000000",
        markersize=9,
        linestyle="none",
        label="whole recording",
    )
    xlabel = "processing time (s) per hour of recording, log scale"
    ax.set(xlabel=xlabel, ylabel="avg mAP (%)", xscale="log")
    plain_log(ax.xaxis)
    legend_above(ax, 3)
    note(ax, "Numbers: steps of the windows. One run, so there is no interval.")
    return ax


def window_accuracy(table: pd.DataFrame):
    """avg mAP of each model by inference window, with half-overlapping windows; a panel per family.

    table: `model, window, overlap, avg_map` (%); window 0 is the whole recording, at the right.
    """
    table = short_names(table)[0]
    half = (table.overlap / table.window.clip(lower=1)).round(2) == 0.5
    windows = sorted(set(table.window) - {0})
    place = {window: number for number, window in enumerate([*windows, 0])}
    shown = table[(table.window == 0) | half]
    shown = shown.assign(place=shown.window.map(place))
    summary = with_enough_runs(summarise(shown, ["model", "place"], "avg_map"))

    def prepare(ax):
        ax.set_xticks(range(len(place)), [*(f"{window:g}" for window in windows), "whole"])

    about = f"Neighbouring windows overlap by half. {runs_note(summary, runs='runs')}"
    xlabel = "window (steps; whole: no windows)"
    return model_panels(lines_of(summary, "place"), prepare, xlabel, "avg mAP (%)", about)


def speed_and_loss(table: pd.DataFrame, lost: float = 1.0):
    """Speed-up of each model's variants over float32: a row per model, a panel per runtime.

    Open markers lose more than `lost` points of avg mAP.

    table: `variant, speedup, map_lost` and optionally `model, latency_s_median, latency_s_p10,
    latency_s_p90`.
    """
    table = short_names(table.assign(model=table.model if "model" in table else "model"))[0]
    table = table.dropna(subset=["speedup"])
    runtimes = {
        "torch": ~table.variant.str.startswith("onnx"),
        "ONNX Runtime": table.variant.str.startswith("onnx"),
    }
    runtimes = {name: chosen for name, chosen in runtimes.items() if chosen.any()}
    order = table.groupby("model").speedup.max().sort_values().index
    looks = dict(zip(dict.fromkeys(table.variant), cycle(VARIANTS)))  # the same in both panels
    size = (WIDTH, 0.19 * len(order) + 1.9)
    axes = new_axes(ncols=len(runtimes), sharex=True, sharey=True, squeeze=False, figsize=size).flat
    for ax, (runtime, chosen) in zip(axes, runtimes.items(), strict=True):
        kinds = list(dict.fromkeys(table[chosen].variant))
        for index, kind in enumerate(kinds):
            colour, marker = looks[kind]
            rows = table[table.variant == kind]
            y = order.get_indexer(rows.model) + 0.26 * (1 - 2 * index / max(1, len(kinds) - 1))
            if {"latency_s_p10", "latency_s_p90", "latency_s_median"} <= set(rows):
                ends = [rows.speedup * rows.latency_s_median / rows[f"latency_s_p{end}"] for end in (90, 10)]
                ax.hlines(y, *ends, color=colour, linewidth=0.7)
            ax.plot([], [], marker=marker, color=colour, linestyle="none", markersize=3.5, label=_shown(kind))
            for keeps, face in ((True, colour), (False, "white")):
                these = ((rows.map_lost <= lost) == keeps).to_numpy()
                ax.plot(
                    rows.speedup[these],
                    y[these],
                    marker=marker,
                    color=colour,
                    markerfacecolor=face,
                    linestyle="none",
                    markersize=3.5,
                )
        ax.axvline(1, color="#999999", linewidth=0.8, zorder=0)
        ax.set(xscale="log", xlabel="speed-up (log scale)", ylim=(-0.6, len(order) - 0.4))
        plain_log(ax.xaxis)
        ax.legend(title=runtime, alignment="left", loc="lower left", bbox_to_anchor=(-0.05, 1))
    axes[0].set_yticks(range(len(order)), order)
    known = "latency_s_p90" in table
    bars = "Bars: tenth to ninetieth percentile of the latency." if known else "No intervals were measured."
    note(
        axes[0],
        "Speed-up: latency of the network in float32, divided by that of the variant; 1 is equal. Open: it "
        f"loses more than {lost:g} point of avg mAP. {_about_int8(table.variant)}{bars} One trained "
        "network per model. Without a marker: "
        "not exported, or not measured. Sorted by the largest speed-up.",
    )
    return axes[0]


def _about_int8(variants):
    """What the kinds of int8 are, where there are several."""
    if not {"int8", "int8 linear"} <= set(variants):
        return ""
    torchao = "; torchao: by that library" if "int8 torchao" in set(variants) else ""
    return f"torch, int8: linear layers, LSTMs and convolutions; linear: without convolutions{torchao}. "


def _shown(variant):
    """`onnx int8 static` → `int8, static`; `int8` → `int8`, of all layers."""
    words = variant.removeprefix("onnx").split()
    return ", ".join([words[0], " ".join(words[1:])] if len(words) > 1 else words) or "float32"


def where_time_goes(table: pd.DataFrame, once: bool = False):
    """Where an hour of video goes: a bar per way, its parts end to end, in seconds of work per hour of video.

    table: `way` (name of the bar; `*` marks random weights, `†` older code), `decoding_s, features_s`,
    `network_s, decode_nms_s` and `total_s` (of any stretch of video), `real_time_factor`. Several rows of a
    way (models, which share one extraction) give their median, and the range of the time end to end. The
    diamond is this time, in which decoding and features overlap. At the right: the percentage of network,
    box decoding and NMS in the work, whose bars may be too short to see. Then the legend leaves them out.
    once: each video was measured once.
    """
    parts = {"decoding_s": "video decoding", "features_s": "features", "network_s": "network"}
    parts |= {"decode_nms_s": "box decoding and NMS"}
    to_hour = 3600 * table.real_time_factor / table.total_s
    hours = table[["way"]].assign(**{name: table[name] * to_hour for name in [*parts, "total_s"]})
    by_way = hours.groupby("way", sort=False)
    hours, counts = by_way.median().sort_values("total_s"), by_way.size()
    ends = by_way.total_s.agg(["min", "max"]).reindex(hours.index)
    ax = new_axes(figsize=(WIDTH, 1.5 + 0.3 * len(hours)))
    at, left = np.arange(len(hours))[::-1], np.zeros(len(hours))
    colours = [VARIANTS[place][0] for place in (0, 5, 2, 4)]
    for colour, (column, label) in zip(colours, parts.items()):
        seen = hours[column].max() > VISIBLE * hours.total_s.max()
        name = label if seen else "_nolegend_"
        ax.barh(at, hours[column], left=left, height=0.62, color=colour, label=name, linewidth=0)
        left = left + hours[column].to_numpy()
    ax.hlines(at, ends["min"], ends["max"], color="#000000", linewidth=1)
    diamond = {"linestyle": "none", "marker": "D", "markersize": 4, "color": "#000000"}
    ax.plot(hours.total_s, at, **diamond, label="end to end")
    ax.axvline(3600, color="#999999", linewidth=0.8, zorder=0)
    work = hours[list(parts)].sum(axis=1)
    right = {"xycoords": ax.get_yaxis_transform(), "fontsize": SMALL, "va": "center"}
    for y, share in zip(at, 100 * hours[["network_s", "decode_nms_s"]].sum(axis=1) / work, strict=True):
        ax.annotate(f"{share:.2f} %", (1.02, y), annotation_clip=False, **right)
    ax.annotate("network\nand NMS", (1.02, len(hours) - 0.35), annotation_clip=False, **right)
    ax.set_yticks(at, hours.index)
    ax.set(xlabel="processing time (s) per hour of video", xlim=(0, None))
    ax.grid(axis="y", visible=False)
    legend_above(ax, 3)
    text = "One run each, so there is no interval."
    if counts.max() > 1:
        is_wide = (ends["max"] - ends["min"]).max() > 0.01 * hours.total_s.max()
        line = "; black line: lowest to highest" if is_wide else ""
        number = number_of_runs(counts.to_frame("runs"), "models")
        text = f"Network and NMS: median of {number}{line}."
    if once:
        text += " Each video was measured once: trust the shares more than the seconds."
    signs = {"*": "random weights, for the cost alone", "†": "measured by older code"}
    signs = "".join(
        f" {sign}: {meaning}."
        for sign, meaning in signs.items()
        if hours.index.str.contains(sign, regex=False).any()
    )
    scaled = "Scaled to an hour from the longest video measured. Grey line: real time."
    bars = "End to end: decoding and features overlap. Bars: parts timed alone, at another time."
    beyond = "A marker beyond its bar: the machine was slower then, or the overlap cost time."
    note(ax, f"{bars} {beyond} {scaled} {text}{signs}")
    return ax


def accuracy_over_time(curve: pd.DataFrame):
    """avg mAP of each model by training time: the mean over its seeds; a panel per family.

    curve: `model, epoch, seconds, map` (in %).
    """
    curve = short_names(curve)[0]
    keys = ["model", "epoch"]
    seconds = curve.groupby(keys).seconds.mean().reset_index()
    summary = with_enough_runs(summarise(curve, keys, "map")).merge(seconds, on=keys)

    def prepare(ax):
        ax.set(ylim=(0, 100), xscale="log")
        plain_log(ax.xaxis)

    about = f"{runs_note(summary)} Markers: scores of the test recordings. No model is chosen by them."
    lines = lines_of(summary, "seconds")
    xlabel = "training time (s, log scale)"
    return model_panels(lines, prepare, xlabel, "avg mAP (%)", about, name=partial(name_at_right, far=0.0))


def accuracy_against_cost(table: pd.DataFrame, cost: str, label: str, folds: bool = False):
    """avg mAP of each model with its interval against a cost; a panel per family. The line is the Pareto
    front of all models; the names of its models are bold.

    table: `model, mean, low, high` (in %), the cost column, and optionally `runs` and the cost's interval
    `cost_low, cost_high`.
    folds: the means and intervals are over folds and people or recordings, not over seeds.
    """
    table, classified = short_names(with_enough_runs(table))
    front = table[pareto_front(table[cost].to_numpy(), table["mean"].to_numpy())].sort_values(cost)
    points = table.set_index("model").rename(columns={cost: "x", "mean": "y"})

    def draw(ax, lines, looks):
        ax.plot(front[cost], front["mean"], color="#999999", linewidth=0.8, zorder=0)
        others = points.drop(index=list(looks))
        ax.plot(others.x, others.y, color=GREY, marker="o", markersize=3, linestyle="none", zorder=1)
        for model, (colour, marker) in looks.items():
            row = points.loc[model]
            across = [[row.x - row.cost_low], [row.cost_high - row.x]] if "cost_low" in row else None
            down = [[row.y - row.low], [row.high - row.y]]
            ax.errorbar(
                row.x,
                row.y,
                yerr=np.nan_to_num(down),
                xerr=across,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1,
                linestyle="none",
                label=model,
            )

    def prepare(ax):
        ax.set(xscale="log")
        space_by_what_is_missing(ax, table)
        plain_log(ax.xaxis)

    bars = "95 % interval" + " over folds and people or recordings" * folds
    across = f"; across: {PERCENTILES}" if "cost_low" in table else ""
    about = (
        f"{runs_note(table, bars + across, 'folds' if folds else 'seeds')} Line and bold names: Pareto front "
        f"of the means, not tested. {STRETCHED} {classified}".rstrip()
    )
    lines = {str(model): points.loc[[model]] for model in points.index}
    bold = set(front.model)
    xlabel = f"{label}, log scale"
    return model_panels(lines, prepare, xlabel, GAP_AXIS, about, draw=draw, bold=bold, name=name_at_points)


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Which points (N,) are on the Pareto front.

    No other point has less cost and no less gain, or more gain at no more cost.
    """
    beaten = (
        (cost[None] <= cost[:, None])
        & (gain[None] >= gain[:, None])
        & ((cost[None] < cost[:, None]) | (gain[None] > gain[:, None]))
    ).any(1)
    return ~beaten
