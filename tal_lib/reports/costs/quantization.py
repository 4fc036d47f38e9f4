"""Lower precision: what it gains in time, and what it loses in mAP."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import threads_in_words
from tal_lib.reports.provenance import of_older_code

PLAIN = "float32"
FULL_PRECISION = (PLAIN, "onnx")  # variants
LOST = 1.0  # points of avg mAP; a variant that loses at most this keeps the accuracy
ALIKE = 0.01  # times; speed-ups that differ by less are read as one
GAIN = 1.3  # times as fast as float32; a smaller gain is not worth another format


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write time and mAP of every model and variant: one table for all numbers of threads, a figure each."""
    timed = data["quantization"].dropna(subset=["latency_s_median"])
    main = tables.main_machine(timed)
    for (benchmark, steps, machine), rows in timed.groupby(["benchmark", "length_steps", "device_name"]):
        stem = f"quantization_{benchmark}"
        if timed[timed.benchmark == benchmark].length_steps.nunique() > 1:
            stem += f"_{steps:g}"
        suffix = tables.machine_suffix(machine, main)
        caption = (
            f"Quantization and lower precision on a CPU: {benchmark}, {steps:g} steps, {machine}. ms: "
            "latency of the network. Speed-up: over float32 in torch; the variants take turns. Converted: "
            "layers, or int8 weights of an ONNX graph (several per layer). "
            f"{gained(rows)}{tables.classified(rows.model)}{of_older_code(rows)}"
        )
        shown = table(rows)
        fast = tuple(name for name in shown if name.startswith("speed-up"))
        slow = tuple(name for name in shown if name.startswith("ms"))
        best = tables.Best(high=(*fast, "avg mAP"), low=("file (MB)", *slow), within=("model",))
        out.table(shown, stem + suffix, caption, best)
        for threads, some in rows.groupby("threads_used"):
            axes = figures.speed_and_loss(some[some.variant != PLAIN], LOST)
            pictured = (
                f"Speed-up over torch in float32 by runtime and precision on {benchmark}, {steps:g} steps, "
                f"{threads_in_words(threads)} of {machine}: a row per model, a panel per runtime."
            )
            out.figure(axes, f"{stem}_{threads_in_words(threads).replace(' ', '')}{suffix}", pictured)


def _signed(value):
    """`+0.05`, `-1.84`; `0.00` without a sign."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Table for readers: one row per model and variant; latency and speed for each number of threads."""
    keys = ["model", "variant"]
    each = rows.groupby(keys, sort=False).first()
    change = ["–" if pd.isna(value) else _signed(-value) for value in each.map_lost]
    columns = {"avg mAP": each.avg_map.round(1), "change of avg mAP": change}
    for threads, some in rows.groupby("threads_used"):
        at = some.groupby(keys)[["latency_s_median", "speedup"]].median()
        columns[f"ms, {threads_in_words(threads)}"] = (1e3 * at.latency_s_median).round(1)
        columns[f"speed-up, {threads_in_words(threads)}"] = at.speedup.round(2)
    columns |= {
        "file (MB)": (each.file_bytes / 1e6).round(2),
        "converted": [_converted(variant, row) for (_, variant), row in zip(each.index, each.itertuples())],
        "converted weights (%)": (100 * each.weight_share).round(),
        "converted MACs (%)": (100 * each.mac_share).round(),
    }
    return pd.DataFrame(columns, index=each.index).reset_index()


def _converted(variant, row):
    """`8 of 8 layers`. A graph has no layers, only stored weights: one or several for each of them."""
    if variant.startswith("onnx"):
        return f"{row.converted:g} graph weight{'' if row.converted == 1 else 's'}"
    return f"{row.converted:g} of {row.layers:g} layers"


def gained(quantization: pd.DataFrame) -> str:
    """What lower precision gained, in words; empty without a timed variant.

    Which models gain and keep their accuracy, the largest such gain, and the largest one at any loss.

    Args:
        quantization: timed rows of one machine. The smallest number of threads counts; of the others, the
            number of models that become faster is given.
    """
    timed = quantization.dropna(subset=["latency_s_median", "speedup"])
    rows = timed[timed.threads_used == timed.threads_used.min()]
    rows = rows[~rows.variant.isin(FULL_PRECISION)].dropna(subset=["map_lost"])
    if rows.empty:
        return ""
    top, kept = rows.loc[rows.speedup.idxmax()], rows[rows.map_lost <= LOST]
    many, whole = kept[kept.speedup >= GAIN].model.nunique(), rows.model.nunique()
    become, lose = ("becomes", "loses") if many == 1 or whole == 1 else ("become", "lose")
    sentences = [
        f"{many} of {whole} model{'s' * (whole > 1)} {become} at least {GAIN:g} times as fast as in float32 "
        f"and {lose} at most {LOST:g} point of avg mAP "
        f"({threads_in_words(top.threads_used)}).{_on_more_threads(timed)}"
    ]
    if len(kept):
        best = kept[kept.speedup > kept.speedup.max() - ALIKE].sort_values("speedup", ascending=False)
        names = " or ".join(map(_name, best.itertuples()))
        which = "such speed-up" if many else f"speed-up with at most {LOST:g} point lost"
        sentences.append(f"The largest {which} is {best.speedup.max():.2f} times: {names}.")
    if top.map_lost > LOST:
        sentences.append(
            f"The largest at any loss is {top.speedup:.2f} times: {_name(top)}, which loses "
            f"{top.map_lost:.2f} points."
        )
    return " ".join(sentences)


def _on_more_threads(timed):
    """` On 2 threads, 5 of 16 do.`: of each number of threads but the smallest, the models that gain."""
    text = ""
    for threads, rows in list(timed[~timed.variant.isin(FULL_PRECISION)].groupby("threads_used"))[1:]:
        gain = rows[(rows.map_lost <= LOST) & (rows.speedup >= GAIN)]
        many, whole = gain.model.nunique(), rows.model.nunique()
        text += f" On {threads_in_words(threads)}, {many} of {whole} {'does' if many == 1 else 'do'}."
    return text


def _name(row):
    """`static int8 of window_cnn (ONNX Runtime)` for the variant `onnx int8 static`."""
    words = row.variant.split()
    runtime = " (ONNX Runtime)" if words[0] == "onnx" else ""
    kind = " ".join(reversed(words[1:])) if runtime else row.variant
    return f"{kind} of {row.model}{runtime}"
