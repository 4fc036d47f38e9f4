from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tal_lib import TalError
from tal_lib.cost import describe_machine
from tal_lib.models import build
from tal_lib.reports import costs, provenance, tables
from tal_lib.reports.costs import accuracy, inference, page, prior, quantization
from tal_lib.reports.costs.present import as_built_today
from tal_lib.reports.costs.shapes import in_passes, short
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.pictures import DESCRIPTION


def measured(model, repeat, seconds, reference=1.0):
    return {
        "benchmark": "b",
        "preset": "compact",
        "device_name": "a processor",
        "precision": "float32",
        "threads_used": 1,
        "model": model,
        "length_steps": 288,
        "repeat": repeat,
        "latency_s_median": seconds,
        "reference_s": reference,
    }


def test_repeats_are_told_as_they_were_measured():
    cost = pd.DataFrame(
        [
            measured("a", 0, 1.0),
            measured("a", 1, 1.02),
            measured("b", 0, 2.0),
            measured("b", 1, 1.5, reference=2.0),
            measured("c", 0, 1.0),
        ]
    )  # measured once
    table = costs.repeatability(cost)
    assert table.model.tolist() == ["a", "b"] and table.quiet.tolist() == [True, False]
    assert table.change.tolist() == pytest.approx([0.02, -0.25])
    (text,) = costs.repeats(table)
    assert (
        text.startswith("2 latencies were measured twice on a processor")
        and "%, all by at most 25.0 %." in text
    )
    assert "For 1 of them" in text and text.endswith("quiet both times; these differ by at most 2.0 %.")
    assert costs.repeats(costs.repeatability(cost[cost.repeat == 0])) == []
    # a reference is slow or quiet among those with as many threads
    more = cost.assign(threads_used=2, reference_s=cost.reference_s / 2)
    quiet = costs.repeatability(pd.concat([cost, more])).quiet
    assert quiet.tolist() == [True, False, True, False]


def test_figures_of_a_table_are_written_alike(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c"],
            "ms": ["1,049", "3.30", "–"],
            "mAP": [82.0, 84.3, None],
            "steps": ["≈ 1,200", "< 30", "> 4"],
            "interval": ["1.0 [0.9, 1.1]", "2", "3"],
        }
    )
    lines = tables.write_table(table, tmp_path / "t.md", "Caption.").read_text().splitlines()
    assert [cell.strip() for cell in lines[4].strip("|").split("|")] == [
        "a",
        "1,049",
        "82.0",
        "≈ 1,200",
        "1.0 [0.9, 1.1]",
    ]
    assert [cell.strip() for cell in lines[6].strip("|").split("|")] == ["c", "–", "–", "> 4", "3"]
    assert [cell.strip().endswith(":") for cell in lines[3].strip("|").split("|")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert r"\begin{tabular}{lrrrr}" in (tmp_path / "t.tex").read_text()
    assert pd.read_csv(tmp_path / "t.csv").mAP.tolist()[:2] == [82.0, 84.3]


LENGTHS = (1152, 2304, 4608, 9216)


def costs_of(models, **changes):
    """Measured rows: peak memory is 10 MB + `models[name]` bytes a step, times are linear in the length."""
    about = {
        "benchmark": "b",
        "preset": "compact",
        "device": "cpu",
        "device_name": "c",
        "precision": "float32",
    }
    about |= {"threads_used": 1, "repeat": 0, "input_dim": 4, "num_classes": 2, "uncounted_ops": ""} | changes
    return pd.DataFrame(
        [
            about
            | {"model": model, "length_steps": steps, "length_s": steps / 2, "macs": 1e6 * steps}
            | {name: 1e-5 * steps for name in ("latency_s_median", "latency_s_p10", "latency_s_p90")}
            | {"detect_s_median": 2e-5 * steps, "peak_memory_bytes": 1e7 + slope * steps}
            for model, slope in models.items()
            for steps in LENGTHS
        ]
    )


def with_repeats(cost, share):
    """The same rows with an interval of the peak memory, `share` of it wide."""
    ends = {
        f"peak_memory_bytes_p{end}": cost.peak_memory_bytes * (1 + sign * share / 2)
        for end, sign in ((10, -1), (90, 1))
    }
    return cost.assign(memory_samples=9, **ends)


def test_a_caption_says_how_many_cells_have_older_code(tmp_path):
    cost = costs_of({"lean": 1000, "heavy": 100_000}).assign(cell=lambda rows: rows.model + ":1")
    marked = provenance.mark_older({"inference_cost": cost}, pd.DataFrame({"cell": ["heavy"]}))
    layout = Layout(tmp_path, tmp_path)
    inference.write(marked, Output(layout, "cost"))
    for name in ("latency_b_cpu", "growth_b_cpu"):
        caption = layout.reader("cost", name).with_suffix(".md").read_text().splitlines()[0]
        assert caption.endswith(" 1 of 2 cells were computed by older code or from older data."), caption
    nothing = provenance.mark_older({"inference_cost": cost}, pd.DataFrame({"cell": ["other"]}))
    assert provenance.of_older_code(nothing["inference_cost"]) == provenance.of_older_code(cost) == ""


def test_growth_and_limits_are_the_same_wherever_they_are_said(tmp_path):
    """The table of the report and what page 03 makes of its rows; the limits are those of the line."""
    cost, layout = costs_of({"lean": 1000, "heavy": 100_000}), Layout(tmp_path, tmp_path)
    lost = (
        cost[cost.model == "lean"].tail(1).assign(length_steps=18432, latency_s_median=np.nan, model="heavy")
    )
    cost = pd.concat([cost, lost], ignore_index=True)
    inference.write({"inference_cost": cost}, Output(layout, "cost"))
    tables.write_csv(cost, layout.tables, "inference_cost")
    ledger, machine = costs.measured(tmp_path, "b")
    ((stem, _, rows),) = costs.conditions(ledger)
    shown = costs.growth_for_readers(costs.exponents_of(rows), costs.longest_recordings(rows, ledger))
    written = tables.read_csv(layout.reader("cost", f"growth_{stem}").with_suffix(".csv"))
    assert shown.astype(str).values.tolist() == written.astype(str).values.tolist()
    limits = written.set_index("model")
    assert limits["steps in 0.5 GB"].to_dict() == {"heavy": "4,900", "lean": "> 73,728"}
    assert limits["steps in 2 GB"]["heavy"] == "< 18,432"  # a measured failure bounds the line
    assert machine == {"device_name": "c"}
    assert page.pages(layout) == {
        "03_inference_cost_b": (page.NOTEBOOK, {"shape_of": "b", "preset": "compact", "device": "cpu"})
    }
    assert page.notes(layout)["03_inference_cost_b"] == (
        f"{page.STORED} Compact models, float32, batch size 1, c, 1 thread; shape of b. "
        f"Tables: [latency_{stem}](../readers/cost/latency_{stem}.md)."
    )
    # another machine has more rows of all shapes: the table of this one's rows has its name
    other = pd.concat([cost.assign(device_name="d", benchmark=shape) for shape in ("x", "y")])
    both = pd.concat([cost, other], ignore_index=True)
    inference.write({"inference_cost": both}, Output(layout, "cost"))
    tables.write_csv(both, layout.tables, "inference_cost")
    assert f"latency_{stem}_c](" in page.notes(layout)["03_inference_cost_b"]
    assert " batch size 1, c, 1 thread; shape of b." in page.notes(layout)["03_inference_cost_b"]
    with pytest.raises(TalError, match="no measured cost of paper models"):
        costs.measured(tmp_path, "b", "paper")


@pytest.mark.parametrize(
    ("passes", "text"),
    [
        ([1, 3, 3], " 1 of 3 values has one pass, others 3."),
        ([1, 3, 2, 1], " 2 of 4 values have one pass, others 2 to 3."),
        ([1, 1], " Each value has one pass."),
        ([3, 3], ""),
        ([np.nan], ""),
    ],
)
def test_a_caption_says_how_many_measurements_have_one_pass(passes, text):
    assert in_passes(pd.DataFrame({"passes": passes})) == text


def test_captions_of_costs_are_short_and_count_passes(tmp_path):
    cost = costs_of({"lean": 1000, "heavy": 100_000}, device_name="AMD EPYC, 2 cores")
    cost = cost.assign(cell=cost.model, passes=[3] * 7 + [1])
    layout = Layout(tmp_path, tmp_path)
    marked = provenance.mark_older({"inference_cost": cost}, pd.DataFrame({"cell": ["heavy"]}))
    inference.write(marked, Output(layout, "cost"))
    about = "1 of 8 values has one pass, others 3."
    for name in ("latency", "detect", "memory", "growth", "macs"):
        caption = layout.reader("cost", f"{name}_b_cpu").with_suffix(".md").read_text().splitlines()[0]
        assert (about in caption) == (name != "macs") and len(caption.split()) < 50, caption
    with Image.open(layout.figure("cost", "latency_against_length_b_cpu")) as picture:
        assert about in picture.info[DESCRIPTION]


@pytest.mark.parametrize(
    ("steps", "beyond", "text"),
    [
        (38_815.2, True, "≈ 38,000"),  # not 39,000, which does not fit
        (13_199.999_999_99, False, "13,200"),  # a length on the line, but for the last bit
        (9_669.0, False, "9,660"),
        (915.7, False, "915"),
        (57.9, False, "57"),
        (0.0, False, "0"),
        (294_913.0, True, "> 294,912"),
        (np.nan, True, "> 36,864"),
    ],
)
def test_the_longest_recording_is_rounded_down(steps, beyond, text):
    row = {"model": "a", "limit_gb": 2, "steps": steps, "extrapolated": beyond, "longest_steps": 36_864}
    limits = pd.DataFrame([row | {"did_not_fit_at": np.nan}])
    exponents = pd.DataFrame(columns=["model", "cost", "exponent", "low", "high"])
    shown = costs.growth_for_readers(exponents, limits)
    assert shown["steps in 2 GB"].tolist() == [text]


def test_a_measured_failure_bounds_a_model_without_a_line():
    row = {"model": "a", "limit_gb": 8, "steps": np.nan, "extrapolated": True, "longest_steps": 9_216}
    exponents = pd.DataFrame(
        [("a", "time", 1.0, 0.7, 1.3), ("a", "MACs", 1.0, 0.8, 1.2)],
        columns=["model", "cost", "exponent", "low", "high"],
    )
    shown = costs.growth_for_readers(exponents, pd.DataFrame([row | {"did_not_fit_at": 18_432}]))
    assert shown["steps in 8 GB"].tolist() == ["< 18,432"]
    assert shown["MACs"].tolist() == ["1.00 [0.80, 1.20]"] and shown["time"].tolist() == ["–"]


def test_a_model_that_never_fitted_is_shorter_than_the_shortest_length():
    cost = costs_of({"lean": 1000, "heavy": 100_000}, device_name="m")
    rows = cost[cost.length_steps >= 9216]
    limits = costs.longest_recordings(rows, cost)
    exponents = pd.DataFrame(columns=["model", "cost", "exponent", "low", "high"])
    shown = costs.growth_for_readers(exponents, limits).set_index("model")
    assert shown["steps in 0.5 GB"]["heavy"] == f"< {rows.length_steps.min():,}"


@pytest.mark.parametrize(
    ("share", "text", "words"),
    [
        (0.01, "21.5", "spans 1.0 % of its median"),
        (0.1, "22", "9 or more fresh processes"),
        (None, "22", "in one process"),
    ],
)
def test_memory_has_the_digits_that_repeat(share, text, words):
    rows = costs_of({"a": 10_000})
    rows = rows if share is None else with_repeats(rows, share)
    assert costs.cost_by_length(rows, "peak_memory_bytes").loc["a", "1,152"] == text
    assert words in costs.spread_of_memory(rows)
    assert bool(costs.interval(rows, "peak_memory_bytes")) == (share is not None)


def test_a_table_of_many_lengths_has_those_of_many_models():
    """The prior study measured three models at lengths of its own."""
    lengths = [2**power for power in range(8, 18)]
    shared = costs_of(dict.fromkeys("abcd", 10_000)).iloc[:4].assign(model=list("abcd"))
    rows = pd.concat([shared.assign(length_steps=length) for length in lengths])
    alone = pd.concat([shared.head(1).assign(length_steps=length) for length in (300, 700, 900)])
    assert len(costs.cost_by_length(rows, "macs").columns) == 10
    assert len(costs.cost_by_length(pd.concat([rows, alone]), "macs").columns) == 10
    assert len(costs.cost_by_length(pd.concat([rows, alone.head(2)]), "macs").columns) == 12


def test_a_machine_is_described_in_words():
    """Each property that is measured has words; a property without a value is left out."""
    measured = describe_machine(seconds=0.01)
    table = costs.machine_in_words(measured | {"cuda": None})
    assert set(measured) <= set(page.MACHINE)
    assert table.loc["oneDNN", "the machine"] == measured["mkldnn"] and "CUDA" not in table.index


def test_memory_says_how_many_values_have_repeats():
    """A value that was measured again in a repeat is one value."""
    once, repeated = costs_of({"a": 10_000}), with_repeats(costs_of({"b": 10_000}), 0.1)
    text = costs.spread_of_memory(pd.concat([once, once, repeated, repeated]))
    assert text.startswith(f"For {len(repeated)} of {len(once) + len(repeated)} values it is the median of 9")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(5586.3, 3, "5,586"), (5586.3, 2, "5,600"), (21.52, 3, "21.5"), (9.96, 2, "10"), (2.04, 2, "2.0")],
)
def test_short_numbers(value, digits, text):
    assert short(value, digits) == text


def quantized():
    rows = [
        ("window_cnn", "float32", 1.0, 1.0, 0.0),
        ("window_cnn", "onnx int8 static", 2.893, 2.45, 1.837),
        ("window_cnn", "bfloat16", 2.16, 2.15, -0.19),
        ("window_cnn", "int8", 2.155, 2.15, 0.91),
        ("window_cnn", "onnx", 2.1, 2.15, 0.0),
        ("bilstm", "float32", 1.0, 1.0, 0.0),
        ("bilstm", "bfloat16", 1.1, 0.9, 0.0),
    ]
    return pd.DataFrame(
        [
            {"benchmark": "hapt", "model": model, "variant": variant, "threads_used": threads}
            | {"speedup": fast, "map_lost": lost, "latency_s_median": 0.01 / fast, "avg_map": 80 - lost}
            | {"converted": 1, "layers": 2, "weight_share": 0.5, "mac_share": 0.5, "file_bytes": 1e6}
            | {"length_steps": 720, "device_name": "c"}
            for model, variant, one_thread, two_threads, lost in rows
            for threads, fast in ((1, one_thread), (2, two_threads))
        ]
    )


def test_what_lower_precision_gained_is_derived_from_the_table(tmp_path):
    text = costs.gained(quantized())
    assert text == (
        "1 of 2 models becomes at least 1.3 times as fast as in float32 and loses at most 1 point of avg mAP "
        "(1 thread). On 2 threads, 1 of 2 does. The largest such speed-up is 2.16 times: bfloat16 of "
        "window_cnn or int8 of window_cnn. The largest at any loss is 2.89 times: static int8 of window_cnn "
        "(ONNX Runtime), which loses 1.84 points."
    )
    harmless = costs.gained(quantized().assign(map_lost=0.0))
    assert "The largest such speed-up is 2.89 times: static int8 of window_cnn (ONNX Runtime)." in harmless
    assert "at any loss" not in harmless
    assert costs.gained(quantized().iloc[:0]) == ""
    graph = quantized()[quantized().variant.isin(["float32", "onnx"])]
    assert costs.gained(graph) == ""  # its precision is not lower
    layout = Layout(tmp_path, tmp_path)
    quantization.write({"quantization": quantized()}, Output(layout, "quantization"))
    table = tables.read_csv(layout.reader("quantization", "quantization_hapt").with_suffix(".csv"))
    static = table[table.variant == "onnx int8 static"].iloc[0]
    assert (static["speed-up, 1 thread"], static["speed-up, 2 threads"], static["change of avg mAP"]) == (
        2.89,
        2.45,
        -1.84,
    )
    assert len(table) == len(quantized()) / 2
    assert static["converted"] == "1 graph weight" and set(table.converted) == {
        "1 graph weight",
        "1 of 2 layers",
    }


class _Output:
    """Keeps the captions of figures, by name."""

    def __init__(self):
        self.shown = {}

    def figure(self, axes, name, caption):
        self.shown[name] = caption


@pytest.mark.parametrize("equal", [True, False])
def test_accuracy_beside_cost_is_of_the_equal_arm_where_there_is_one(equal, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        accuracy.figures, "accuracy_against_cost", lambda table, *_, folds: drawn.append((table, folds))
    )
    runs = pd.DataFrame(
        {
            "cell": [f"{model}{seed}" for model in "ab" for seed in range(2)],
            "benchmark": "b",
            "model": [model for model in "ab" for _ in range(2)],
            "preset": "compact",
            "fraction": 1.0,
            "seed": [0, 1] * 2,
            "subset_seed": -1,
            "options": "",
            "recipe": "",
            "stream": "",
            "tiou": 0.5,
            "map": [0.5, 0.5, 0.4, 0.4],
        }
    )
    ranked = pd.DataFrame({"benchmark": "b", "fraction": [1.0] * 3, "model": ["a", "b", "timeline_prior"]})
    ranked = ranked.assign(mean=[70.0, 80.0, 5.0], low=60.0, high=90.0, folds=5)
    out = _Output()
    data = {"data_efficiency": runs, "inference_cost": costs_of({"a": 1e3, "b": 2e3})}
    accuracy.write(data, ranked if equal else ranked.iloc[:0], out)
    table, folds = drawn[0]
    assert folds == equal and dict(zip(table.model, table["mean"], strict=True)) == (
        {"a": 70.0, "b": 80.0} if equal else {"a": 50.0, "b": 40.0}
    )
    assert all(("and the equal recipe against" in caption) == equal for caption in out.shown.values())


def test_costs_of_a_former_design_are_left_out():
    today = sum(p.numel() for p in build("window_cnn", input_dim=8, num_classes=3).parameters())
    about = {"model": "window_cnn", "preset": "compact", "input_dim": 8, "num_classes": 3, "options": ""}
    table = pd.DataFrame(
        [
            about | {"params": today, "macs": 1},
            about | {"params": today + 1, "macs": 2},  # another network of the same name
            about | {"params": today + 1, "macs": 3, "options": "width=9"},
            about | {"params": 5, "macs": 4, "model": "a_plug_in"},  # not known in this session
            about | {"params": None, "macs": 5},  # it did not fit: nothing was measured
        ]
    )
    assert as_built_today(table).macs.tolist() == [1, 3, 4, 5]
    assert as_built_today(table.iloc[:0]).empty and as_built_today(table[["model"]]).equals(table[["model"]])


def test_passes_beside_the_prior_study_are_those_of_the_same_rows(monkeypatch):
    """The same length at another shape, in other numbers, or not in the prior study does not count."""
    row = {"benchmark": "thumos14", "preset": "paper", "device": "cpu", "device_name": "c", "passes": 1}
    row |= {"precision": "float32", "model": "actionformer", "length_steps": 200, "macs": 1e9}
    row |= {"peak_memory_bytes": 1e8, "detect_s_median": 0.1}
    others = ({"benchmark": "activitynet"}, {"precision": "bfloat16"}, {"length_steps": 201})
    cost = pd.DataFrame([row, *(row | other | {"passes": 3} for other in others)])
    notes = []
    monkeypatch.setattr(prior.figures, "beside_prior", lambda *given: notes.append(given[-1]))
    prior.write_prior(cost, SimpleNamespace(figure=lambda *_: None, table=lambda *_: None))
    assert [note.endswith(" Here each value has one pass.") for note in notes] == [False, True, True]
