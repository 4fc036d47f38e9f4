"""Cost figures: against length, against accuracy, over the training, in lower precision."""

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from tal_lib.reports.figures.axes import (
    VARIANTS,
    legend_beside,
    plain_log,
    space_by_what_is_missing,
    spread_ticks,
)
from tal_lib.reports.figures.families import MOST, family_panels
from tal_lib.reports.theme import new_axes, style


def cost_against_length(table: pd.DataFrame, value: str, label: str, interval=(), ax=None):
    """A cost against the recording length, both axes logarithmic; many models have a panel per family.

    table: `model, length_steps, <value>`.
    interval: the columns of the ends of the value's interval, drawn as bars; empty: none.
    """
    table = table.dropna(subset=[value])
    lines = {
        str(model): rows.groupby("length_steps")[[value, *interval]].median().reset_index()
        for model, rows in table.sort_values("length_steps").groupby("model", sort=False)
    }
    panels = ax is None and len(lines) > MOST
    ticks = spread_ticks(table.length_steps.unique(), 2.5 if panels else 1.3)  # closer labels would overlap

    def prepare(ax):
        ax.set(xscale="log", yscale="log", xlabel="recording length (steps)")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30 if panels or len(ticks) > 6 else 0)
        ax.xaxis.set_minor_locator(NullLocator())
        plain_log(ax.yaxis)

    if panels:
        names = ["x", "y", *(("low", "high") if len(interval) else ())]
        return family_panels({m: line.set_axis(names, axis=1) for m, line in lines.items()}, prepare, label)
    ax = new_axes(ax, figsize=(5.6, 3.4))
    for model, line in lines.items():
        colour, marker = style(model)
        ax.plot(line.length_steps, line[value], marker=marker, color=colour, label=model, markersize=4)
        if len(interval):
            ax.vlines(line.length_steps, *(line[name] for name in interval), color=colour, linewidth=1)
    prepare(ax)
    ax.set_ylabel(label)
    legend_beside(ax, table.sort_values("length_steps").groupby("model")[value].last())
    return ax


def inference_length(table: pd.DataFrame, ax=None):
    """avg mAP against the time for an hour of recording: one marker per window size, one line per overlap.

    table: `window, overlap` (steps; window 0 is the whole recording), `avg_map` (%), `seconds_per_hour`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.2))
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
            label=f"windows, {100 * share:g} % overlap",
        )
        for row in rows.itertuples():
            ax.annotate(
                f"{row.window:g}",
                (row.seconds_per_hour, row.avg_map),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
    whole = table[table.window == 0]
    ax.plot(
        whole.seconds_per_hour,
        whole.avg_map,
        marker="*",
        color="#000000",
        markersize=10,
        linestyle="none",
        label="whole recording",
    )
    ax.set(xlabel="seconds per hour of recording", ylabel="avg mAP (%)", xscale="log")
    plain_log(ax.xaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def window_accuracy(table: pd.DataFrame, ax=None):
    """avg mAP by inference window, with half-overlapping windows; the whole recording is at the right.

    table: `model, window, overlap, avg_map` (%); window 0 is the whole recording.
    """
    ax = new_axes(ax, figsize=(5.6, 3.4))
    windows = sorted(set(table.window) - {0})
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows[(rows.window == 0) | ((rows.overlap / rows.window.clip(lower=1)).round(2) == 0.5)]
        rows = rows.groupby("window").avg_map.mean()
        order = [*(window for window in windows if window in rows.index), 0]
        at = [len(windows) if window == 0 else windows.index(window) for window in order]
        ax.plot(at, rows.loc[order], marker=marker, color=colour, label=model, markersize=4, linewidth=1.2)
    ax.set_xticks(range(len(windows) + 1), [*(f"{window:g}" for window in windows), "whole"])
    ax.set(xlabel="window (steps), neighbours overlap by half", ylabel="avg mAP (%)")
    legend_beside(ax, table[table.window == 0].groupby("model").avg_map.mean())
    return ax


def speed_and_loss(table: pd.DataFrame, ax=None):
    """mAP lost against the speed-up over float32, one marker per variant and model.

    table: `variant, speedup, map_lost` and optionally `model`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.0))
    for index, (variant, rows) in enumerate(table.groupby("variant", sort=False)):
        colour, marker = VARIANTS[index % len(VARIANTS)]
        ax.plot(
            rows.speedup,
            rows.map_lost,
            marker=marker,
            color=colour,
            linestyle="none",
            markersize=5,
            label=variant,
            markerfacecolor="none" if index >= len(VARIANTS) else colour,
        )
    ax.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel="speed-up over float32", ylabel="avg mAP lost (points)")
    plain_log(ax.xaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def where_time_goes(table: pd.DataFrame, ax=None):
    """Where an hour of video goes: a bar per way, its parts end to end, in seconds of work per hour of video.

    table: `way` (name of the bar), `decoding_s, features_s, network_s, decode_nms_s` and `total_s` (of any
    stretch of video), `real_time_factor`. Several rows of a way give their median. The diamond is the whole
    way, in which decoding and features overlap.
    """
    parts = {"decoding_s": "decoding", "features_s": "features", "network_s": "network"}
    parts |= {"decode_nms_s": "decode and NMS"}
    to_hour = 3600 * table.real_time_factor / table.total_s
    hours = table[["way"]].assign(**{name: table[name] * to_hour for name in [*parts, "total_s"]})
    hours = hours.groupby("way", sort=False).median()
    ax = new_axes(ax, figsize=(5.6, 1.2 + 0.32 * len(hours)))
    at, left = np.arange(len(hours))[::-1], np.zeros(len(hours))
    colours = [VARIANTS[place][0] for place in (0, 5, 2, 4)]
    for colour, (column, label) in zip(colours, parts.items()):
        ax.barh(at, hours[column], left=left, height=0.62, color=colour, label=label, linewidth=0)
        left = left + hours[column].to_numpy()
    ax.plot(hours.total_s, at, linestyle="none", marker="D", markersize=4, color="#000000", label="whole way")
    ax.axvline(3600, color="#999999", linewidth=0.8, zorder=0)
    ax.set_yticks(at, hours.index)
    ax.set(xlabel="processing time (s) per hour of video", xlim=(0, None))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize="small", columnspacing=1.0)
    return ax


def accuracy_over_time(curve: pd.DataFrame, ax=None):
    """avg mAP against the training time in seconds: one line per model, the mean over its seeds.

    curve: `model, epoch, seconds, map` (in %).
    """
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for place, (model, rows) in enumerate(curve.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows.groupby("epoch")[["seconds", "map"]].mean()
        ax.plot(
            rows.seconds, rows["map"], marker=marker, color=colour, label=model, markersize=3.5, linewidth=1.2
        )
    ax.set(xlabel="training time (s)", ylabel="avg mAP (%)", ylim=(0, 100), xscale="log")
    plain_log(ax.xaxis)
    legend_beside(ax, curve.groupby("model")["map"].last())
    return ax


def accuracy_against_cost(table: pd.DataFrame, cost: str, label: str, ax=None):
    """avg mAP with its interval against a cost. The Pareto front of the models is a line.

    table: `model, mean, low, high` (in %), the cost column, and optionally its interval `cost_low,
    cost_high`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for row in table.itertuples():
        colour, marker = style(row.model)
        x, y = getattr(row, cost), row.mean
        across = [[x - row.cost_low], [row.cost_high - x]] if "cost_low" in table else None
        ax.errorbar(
            x,
            y,
            yerr=[[y - row.low], [row.high - y]],
            xerr=across,
            color=colour,
            marker=marker,
            capsize=2,
            linestyle="none",
            label=row.model,
        )
    front = pareto_front(table[cost].to_numpy(), table["mean"].to_numpy())
    line = table[front].sort_values(cost)
    ax.plot(line[cost], line["mean"], color="#999999", linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel=label)
    space_by_what_is_missing(ax, table)
    plain_log(ax.xaxis)
    legend_beside(ax, table.set_index("model")["mean"])
    return ax


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
