"""From file to detections: seconds and MACs of a minute of video, memory, and the share of each part."""

import math
from functools import partial
from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import short
from tal_lib.reports.layout import nearest
from tal_lib.reports.provenance import mark_older, of_older_code

PARTS = {
    "decoding_s": "video decoding",
    "features_s": "features",
    "network_s": "network",
    "decode_nms_s": "box decoding and NMS",
}
BEST_VIDEO = tables.Best(
    low=("features", "end to end", "real-time factor", "feature GMACs", "peak (MB)"), within=("minutes",)
)
BEST_MODEL = tables.Best(low=("network", "box decoding and NMS", "end to end", "network GMACs", "peak (MB)"))
VIDEO = ["backbone", "random_weights", "height", "video", "video_s"]
LIVE = ["backbone", "height", "video", "video_s", "model"]
two_digits = partial(short, digits=2)  # of a peak: the third one differs between processes


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write one table by backbone and video, one by model on the longest video, and one figure."""
    cost = data["end_to_end"]
    main, usual = main_machine(cost), cost.threads_used.mode()[0]
    for (machine, threads), rows in cost.groupby(["device_name", "threads_used"], sort=False):
        cells, rows = _present(rows, VIDEO), per_minute(rows)
        once = " Each pair of backbone and video was measured once."
        of_models = f"Localization: medians of {_numbers(rows)} models."
        if (rows.runs > 1).any():
            of_models = f"Medians over runs (localization: {_numbers(rows)} models)."
        suffix = _suffix(machine, main, threads, usual)
        made = (
            "rendered H.264 videos, 30 frames/s" if (rows.video == "").all() else "named or rendered videos"
        )
        about = f"seconds and GMACs per minute of video; {threads:g} CPU threads of {machine}; {made}"
        caption = (
            f"From file to detections: {about}. Parts: timed alone. End to end, the first two overlap. "
            f"{of_models} –: the backbone has no network. *: random weights."
            f"{' J: energy of video decoding and features, per minute.' if _energy(rows) else ''}"
            f"{once if (rows.runs == 1).all() else ''}{_older(cells)}"
        )
        out.table(by_video(rows), f"end_to_end{suffix}", caption, BEST_VIDEO)
        first = first_video(rows)
        caption = (
            f"Localization by model, video of {first.video_s.iloc[0] / 60:,.3g} minutes, features of "
            f"{first.backbone.iloc[0]}: {about}. “as whole”: windows give the result of the recording."
            f"{' Medians over runs.' if (first.runs > 1).any() else ''}"
            f"{of_older_code(cells.merge(first[VIDEO].drop_duplicates()))}"
        )
        out.table(by_model(first), f"end_to_end_models{suffix}", caption, BEST_MODEL)
        drawn = bars(rows)
        single = bool((drawn.runs == 1).all())
        axes = figures.where_time_goes(drawn, single)
        shown = (
            f"Seconds of work per hour of video, measured with {machine}: video decoding, features, network, "
            "box decoding and NMS. A bar per backbone and height of the pictures."
            f"{once if single else ' Medians over runs.'}"
            f"{_older(cells.merge(drawn[VIDEO].drop_duplicates()))}"
        )
        out.figure(axes, f"end_to_end{suffix}", shown)


def measured(results: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of `end_to_end.csv` and `end_to_end_live.csv` from the main machine.

    Raises:
        TalError: the first table has no rows.
    """
    layout = nearest(results)
    cost, live, stale = (
        tables.read_csv(layout.table(name)) for name in ("end_to_end", "end_to_end_live", "stale")
    )
    if cost.empty:
        raise TalError(
            "no measured cost of a video",
            where=layout.table("end_to_end"),
            remedy="Run `tal sweep end_to_end` and `tal report`, or leave `results` empty to measure.",
        )
    cost, live = mark_older({"end_to_end": cost, "end_to_end_live": live}, stale).values()
    main = main_machine(cost)
    return cost[cost.device_name == main], live[live.device_name == main] if len(live) else live


def main_machine(cost: pd.DataFrame) -> str:
    """The machine that has measured the most pairs of backbone and video; a pair has a row per model."""
    pairs = ["device_name", *(name for name in VIDEO if name in cost)]
    return tables.main_machine(cost.drop_duplicates(pairs))


def bars(rows: pd.DataFrame) -> pd.DataFrame:
    """The longest video of each backbone and height, with the bar of the figure as `way`.

    A bar is a backbone, height and length, or a model if there is a single video; `rows` from `per_minute`.
    Rows of older code are left out, if a backbone and height have others.
    """
    rows = _present(rows, ["backbone", "height"])
    longest = rows[rows.video_s == rows.groupby(["backbone", "height", "video"]).video_s.transform("max")]
    names = _names(longest) + ", " + (longest.video_s / 60).map(lambda minutes: f"{minutes:.3g} min")
    return longest.assign(way=names if names.nunique() > 1 else longest.model)


def first_video(rows: pd.DataFrame) -> pd.DataFrame:
    """The models on the longest video of the first backbone, at its smallest height."""
    longest = bars(rows)
    longest = longest[longest.backbone == longest.backbone.iloc[0]]
    longest = longest[longest.height == longest.height.min()]
    return longest[longest.video == longest.video.iloc[0]]


def write_live(data: dict[str, pd.DataFrame], out) -> None:
    """Write the table of the live demo's way."""
    table = data["end_to_end_live"]
    # the main machine is that of the tables of files: on another the live demo may have more runs
    main, usual = main_machine(data.get("end_to_end", table)), table.threads_used.mode()[0]
    for (machine, threads), rows in table.groupby(["device_name", "threads_used"], sort=False):
        caption = (
            "The live demo: seconds of work per minute of video, median over runs. The model runs on its "
            "history after every step. The real-time factor leaves out drawing, which happens only for "
            f"viewers. {threads:g} CPU threads of {machine}.{_older(_present(rows, LIVE))}"
        )
        suffix = _suffix(machine, main, threads, usual)
        out.table(by_live(rows), f"end_to_end_live{suffix}", caption)


def by_live(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per backbone, video and model of the live demo, for readers: the median over runs.

    Runs are repeats, and cells of longer videos, which measure the same minute again. Where a row has
    several, the range of its real-time factor is beside the median. Rows of older code as in `per_minute`.
    """
    parts = {"decoding_s": "video decoding", "features_s": "features", "localization_s": "localization"}
    parts |= {"drawing_s": "drawing"}
    work_s = rows.decoding_s + rows.features_s + rows.localization_s  # drawing serves viewers only
    rows = rows.assign(real_time_factor=work_s / rows.video_s)
    rows = _present(rows.assign(**{part: 60 * rows[part] / rows.video_s for part in parts}), LIVE)
    middle = rows.groupby(LIVE)[[*parts, "real_time_factor"]].median().reset_index()
    middle["older"] = rows.groupby(LIVE).older.any().to_numpy()
    shown = {
        "backbone": _names(middle.assign(random_weights=False)),
        "seconds of video": middle.video_s.map("{:.0f}".format),
        "model": middle.model,
    }
    shown |= {name: middle[part].map(short) for part, name in parts.items()}
    shown["real-time factor"] = middle.real_time_factor.map(short)
    factors = rows.groupby(LIVE).real_time_factor.agg(["min", "max", "count"]).reset_index()
    return pd.DataFrame(
        shown | _range(factors["min"], factors["max"], factors["count"]) | _runs(factors["count"])
    )


def _range(low, high, runs, name="lowest to highest", form=short):
    """The column that says how far a value of several runs differs; none if all ran once."""
    if (runs == 1).all():
        return {}
    ends = [f"{form(least)} to {form(most)}" for least, most in zip(low, high)]
    return {name: [both if n > 1 else "–" for both, n in zip(ends, runs)]}


def _runs(runs):
    """The column with the number of runs; none if all ran once."""
    return {} if (runs == 1).all() else {"runs": runs.astype(int)}


def per_minute(cost: pd.DataFrame) -> pd.DataFrame:
    """One row per video, backbone and model: the median over repeats, parts in seconds per minute.

    `video_s` is rounded to seconds, `video` is the name of the file, empty for a rendered video. `low, high`
    are the ends of the real-time factor over its `runs`, `low_bytes, high_bytes` those of the peak. Rows of
    older code (`provenance.mark_older`) are left out where the present code has measured the same backbone
    and video, with any model; `older` says which ones remain.
    """
    scaled = [*PARTS, "total_s", "feature_macs", "network_macs", *_energy(cost)]
    cost = _present(cost.assign(**{name: 60 * cost[name] / cost.video_s for name in scaled}), VIDEO)
    keys = [*VIDEO, "model", "preset", "num_classes"]
    rows = cost.groupby(keys, sort=False)[[*scaled, "real_time_factor", "peak_memory_bytes"]].median()
    rest = ["threads_used", "window", "overlap", "same_as_whole", "older"]  # the same in all runs
    rest = cost.groupby(keys, sort=False)[rest].first()
    runs = cost.groupby(keys, sort=False)
    ends = runs.real_time_factor.agg(low="min", high="max", runs="count")
    peaks = runs.peak_memory_bytes.agg(low_bytes="min", high_bytes="max")
    return rows.join(rest).join(ends).join(peaks).reset_index()


def _present(rows, keys):
    """The rows, `_named`, without those of older code where others have the same keys. Adds `older`."""
    rows = _named(rows if "older" in rows else rows.assign(older=False))
    return rows[~rows.older | rows.groupby(keys).older.transform("all")]


def _older(rows):
    """The sentence of a caption about rows of older code, which have a dagger."""
    return of_older_code(rows, mark=" (†)")


def _named(rows):
    """The rows with the name of their video's file, and its length in whole seconds."""
    files = rows.video.fillna("") if "video" in rows else pd.Series("", rows.index)
    return rows.assign(video=[Path(file).name for file in files], video_s=rows.video_s.round())


def by_video(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per backbone and video, for readers; `rows` from `per_minute`."""
    values = [*PARTS, "total_s", "real_time_factor", "peak_memory_bytes", "feature_macs", "network_macs"]
    values += [*_energy(rows), "low", "high", "low_bytes", "high_bytes"]
    middle = rows.groupby(VIDEO)[values].median().reset_index()
    middle["runs"] = rows.groupby(VIDEO).runs.max().to_numpy()  # models may have different numbers
    middle["older"] = rows.groupby(VIDEO).older.any().to_numpy()
    parts = middle[list(PARTS)]
    shares = parts.div(parts.sum(axis=1), axis=0)
    shown = {"backbone": _names(middle), "minutes": (middle.video_s / 60).map(lambda value: f"{value:.3g}")}
    for column, name in PARTS.items():
        shown[name] = [
            f"{short(value)} ({100 * share:.0f} %)" for value, share in zip(parts[column], shares[column])
        ]
    shown |= {
        "end to end": middle.total_s.map(short),
        "real-time factor": middle.real_time_factor.map(short),
        **_range(middle.low, middle.high, middle.runs),
        **_runs(middle.runs),
        "feature GMACs": (middle.feature_macs / 1e9).map(short),
        "network GMACs": (middle.network_macs / 1e9).map(short),
        "peak (MB)": (middle.peak_memory_bytes / 1e6).map(two_digits),
        **_range(
            middle.low_bytes / 1e6,
            middle.high_bytes / 1e6,
            middle.runs,
            "peak, lowest to highest",
            two_digits,
        ),
    }
    if _energy(rows):
        shown["extraction (J)"] = middle.energy_j.map(short)
    return pd.DataFrame(shown).fillna("–")


def _energy(rows):
    """The column of the energy of decoding and features, if a machine measured it."""
    return ["energy_j"] if "energy_j" in rows and rows.energy_j.notna().any() else []


def in_words(cost: pd.DataFrame) -> str:
    """What a minute of video costs, from measured rows (see `provenance.mark_older`), in words.

    Empty without a video of a minute.
    """
    if not len(cost):
        return ""
    cost = cost[cost.device_name == main_machine(cost)]
    rows, cells = per_minute(cost), _present(cost, VIDEO)
    rows = rows[rows.video_s >= 60]
    if not len(rows):
        return ""
    middle = rows.groupby(VIDEO)[[*PARTS, "real_time_factor"]].median().reset_index()
    parts = middle[list(PARTS)]
    before = (parts.decoding_s + parts.features_s) / parts.sum(axis=1)
    names, factor = (
        _names(middle.assign(older=False)).str.replace("*", " with random weights"),
        middle.real_time_factor,
    )
    ends = [f"{factor[at]:.2f} ({names[at]})" for at in (factor.idxmin(), factor.idxmax())]
    return (
        "In videos of a minute and more, video decoding and features take at least "
        f"{math.floor(100 * before.min())} % of the time of the parts (median over the models). Real-time "
        f"factors range there from {' to '.join(ends)}. Among compact models the choice hardly matters."
        f"{of_older_code(cells[cells.video_s >= 60])}"
    )


def by_model(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model on one video, for readers; `rows` from `per_minute`."""
    rows = rows.sort_values("total_s")
    return pd.DataFrame(
        {
            "model": rows.model,
            "network": rows.network_s.map(short),
            "box decoding and NMS": rows.decode_nms_s.map(short),
            "end to end": rows.total_s.map(short),
            "network GMACs": (rows.network_macs / 1e9).map(short),
            "peak (MB)": (rows.peak_memory_bytes / 1e6).map(two_digits),
            "window": rows.window.map("{:,.0f}".format),
            "overlap": rows.overlap.map("{:,.0f}".format),
            "as whole": rows.same_as_whole.map({True: "yes", False: "no"}),
        }
    )


def _numbers(rows):
    """How many models were measured with a backbone and video: `17`, or `3 to 17`."""
    counts = rows.groupby(VIDEO).model.nunique()
    return " to ".join(str(count) for count in sorted({counts.min(), counts.max()}))


def _suffix(machine, main, threads, usual):
    """What tells the files of another machine or number of threads apart."""
    return tables.machine_suffix(machine, main) + ("" if threads == usual else f"_{threads:g}_threads")


def _names(rows):
    """Backbone, height of the pictures and file, if it is not rendered, as text."""
    signs = rows.random_weights.map({True: "*", False: ""}) + rows.older.map({True: "†", False: ""})
    file = rows.video.map(lambda name: f", {name}" if name else "")
    return rows.backbone + signs + ", " + rows.height.astype(int).astype(str) + "p" + file
