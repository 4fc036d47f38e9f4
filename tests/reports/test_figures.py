"""Every figure is legible in a column and on a telephone, and says what its points and bars are."""

import colorsys
import html
import inspect
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb, to_rgba
from PIL import Image

from tal_lib import models
from tal_lib.reports import figures, pictures, results_page, theme
from tal_lib.reports.costs.shapes import COSTS
from tal_lib.reports.figures.axes import runs_note, with_enough_runs
from tal_lib.reports.figures.families import MOST, groups_of, model_of
from tal_lib.reports.figures.labels import GREY, name_at_points, spread_out
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.tables import Best, number_of_runs, read_table, short_names
from tal_lib.writing import REPOSITORY

MODELS = ["local_global", "actionformer", "tridet", "temporalmaxer", "action_mamba", "afsd", "gaf"]
MODELS += ["bmn + classifier", "bsn + classifier", "ssn", "tadtr", "bilstm", "stale"]
PHONE = 390  # pixels
LEAST = 8.9  # pixels, the least size of letters there


def grid(models=MODELS, runs=1, **columns):
    """A row for every model and combination of the columns' values; `runs` rows each."""
    rows = pd.MultiIndex.from_product([models, *columns.values()], names=["model", *columns]).to_frame(
        index=False
    )
    return pd.concat([rows] * runs, ignore_index=True)


def scores(table, runs=5):
    """The table with made-up scores and intervals, different in every row."""
    mean = 50 + 40 * np.random.default_rng(0).random(len(table))
    return table.assign(mean=mean, low=mean - 2, high=mean + 2, runs=runs)


def values(name, table, top=90.0):
    return table.assign(**{name: np.linspace(1, top, len(table))})


def costs():
    table = values("v", grid(length_steps=[288, 576, 1152]))
    return table.assign(v_p10=table.v * 0.9, v_p90=table.v * 1.1)


def errors(*columns):
    kinds = ["true positive", "double detection", "wrong label", "localization", "confusion", "background"]
    return values("value", pd.MultiIndex.from_product([*columns, kinds]).to_frame(index=False), 20)


def buckets():
    table = pd.MultiIndex.from_product(
        [["map_n", "missed"], ["coverage", "length", "instances"], ["XS", "S", "M"], range(3)],
        names=["analysis", "characteristic", "bucket", "seed"],
    ).to_frame(index=False)
    return values("value", table).assign(span="0.1–0.2", segments=12)


SEGMENTS = pd.DataFrame({"start": [0.0, 3], "end": [2.0, 5], "label": ["walk", "sit"], "recording": "r"})
WAY = ["decoding_s", "features_s", "network_s", "decode_nms_s", "total_s", "real_time_factor"]
PRIOR = grid(["actionformer", "tridet", "tadtr"], length_steps=[200, 400], fraction=[0.1, 1.0])
FOUR = ["actionformer", "tridet", "temporalmaxer", "mean"]
CASES = {
    "annotation_budget": lambda: figures.annotation_budget(
        scores(grid(FOUR, people=[0.25, 0.5, 1.0], annotated=[0.25, 0.5, 1.0])).assign(
            segments_trained=lambda table: 971 * table.people * table.annotated
        )
    )[0],
    "size_curves": lambda: figures.size_curves(
        values(
            "macs",
            scores(grid(MODELS[:6], benchmark=["hapt", "sfinge3d"], fraction=[0.1, 1.0], size=[1, 2, 3])),
        ).assign(macs=lambda table: 2e8 * 3.0 ** table["size"]),
        "macs",
        values("cost", grid(MODELS[:1], benchmark=["hapt", "sfinge3d"], fraction=[0.1, 1.0])).assign(
            cost="macs", from_cost=6e8, to_cost=5.4e9
        ),
    )[0],
    "training_time": lambda: figures.training_time(
        scores(grid(FOUR[:2], fraction=[0.1, 0.4], use=["base", "more steps", "larger model", "more data"]))
    )[0],
    "accuracy_against_cost": lambda: figures.accuracy_against_cost(
        values("ms", scores(grid())).assign(cost_low=1.0, cost_high=99.0),
        "ms",
        f"{COSTS['detect_s_median'][1].replace(', median', '')}, 720 steps",
    ),
    "accuracy_over_time": lambda: figures.accuracy_over_time(
        values("map", grid(epoch=[1, 2, 3])).assign(seconds=lambda table: 10.0 * table.epoch)
    ),
    "ap_by_class": lambda: figures.ap_by_class(
        pd.DataFrame({"label": ["a", "b"], "tiou": 0.5, "ap": [0.1, 0.2]})
    ),
    "average_recall": lambda: figures.average_recall(values("ar", grid(runs=3, an=[1, 10, 100]))),
    "beside_prior": lambda: figures.beside_prior(
        PRIOR.assign(gmacs=2.0, our_gmacs=1.0), "gmacs", "GMACs", True, "No intervals are known."
    ),
    "class_matrix": lambda: figures.class_matrix(
        values("ap", grid(label=["walking_downstairs", "sit"])).pivot(
            index="label", columns="model", values="ap"
        )
    ),
    "cost_against_length": lambda: figures.cost_against_length(
        costs(), "v", "latency (ms)", ("v_p10", "v_p90")
    ),
    "curves_beside_prior": lambda: figures.curves_beside_prior(
        PRIOR.assign(map=60.0, ours=80.0, low=70.0, high=90.0), "hapt"
    ),
    "data_efficiency": lambda: figures.data_efficiency(scores(grid(fraction=[0.1, 0.2, 1.0]))),
    "error_impact": lambda: figures.error_impact(
        errors(MODELS).set_axis(["model", "error", "value"], axis=1)
    ),
    "error_profile": lambda: figures.error_profile(
        errors(["1G", "2G"]).set_axis(["bucket", "error", "value"], axis=1)
    ),
    "errors_by_fraction": lambda: figures.errors_by_fraction(
        errors([0.1, 1.0], [0, 1]).set_axis(["fraction", "seed", "error", "value"], axis=1)
    ),
    "expected_best": lambda: figures.expected_best(
        values("expected", grid(benchmark=["hapt", "50salads"], fraction=[0.1, 1.0], trials=[1, 2, 3]))
    )[0],
    "factorial": lambda: figures.factorial(
        grid(benchmark=["mean", "50salads"], fraction=[0.1, 0.2, 1.0]).assign(
            plain=50.0,
            plain_low=48.0,
            plain_high=52.0,
            equal=60.0,
            equal_low=58.0,
            equal_high=62.0,
            p_adjusted=[0.01, 0.5] * 39,
        ),
        {("mean", 0.1): 5.0},
        {("50salads", 0.1): 2564.0},
    )[0],
    "gap_lengths": lambda: figures.gap_lengths(pd.Series([0.1, 0.5, 2.0])),
    "inference_length": lambda: figures.inference_length(
        values("avg_map", grid(["a"], window=[64, 128, 0], overlap=[0, 32])).assign(
            seconds_per_hour=[1, 2, 3, 4, 5, 6]
        )
    ),
    "loss_curve": lambda: figures.loss_curve(pd.DataFrame({"epoch": [1, 2], "total": [2.0, 1.0]})),
    "map_by_tiou": lambda: figures.map_by_tiou(values("map", grid(runs=3, tiou=[0.3, 0.5, 0.7]))),
    "open_set": lambda: figures.open_set(
        scores(
            grid(["stale", "text_pyramid (text=minilm)"], seen=[0.5, 0.75], part=list(figures.accuracy.PARTS))
        )
    ),
    "probability_matrix": lambda: figures.probability_matrix(
        values("p", grid(other=MODELS), 1.0).pivot(index="model", columns="other", values="p")
    ),
    "recording": lambda: figures.recording(
        np.zeros((6, 5)), SEGMENTS, 1.0, 2.0, 7.0, {"acc": 3, "gyro": 2}, "a"
    ),
    "segment_lengths": lambda: figures.segment_lengths(SEGMENTS),
    "sensitivity": lambda: figures.sensitivity(buckets(), pd.Series({"map_n": 50.0, "missed": 10.0})),
    "speed_and_loss": lambda: figures.speed_and_loss(
        values("speedup", grid(variant=["int8", "bfloat16", "onnx", "onnx int8 static"]), 3).assign(
            map_lost=0.5
        )
    ),
    "timeline": lambda: figures.timeline(SEGMENTS, SEGMENTS.assign(score=0.9), 6.0),
    "variants": lambda: figures.variants(scores(grid(variant=["acc", "gyro", "early", "late"]))),
    "where_time_goes": lambda: figures.where_time_goes(
        pd.DataFrame({"way": ["hog-hof, 480p", "resnet50, 480p"]} | dict.fromkeys(WAY, 2.0))
    ),
    "window_accuracy": lambda: figures.window_accuracy(
        values("avg_map", grid(window=[0, 64, 128])).assign(overlap=lambda table: table.window / 2)
    ),
}


def test_panels_with_one_axis_show_the_larger_values_of_the_second():
    first = figures.beside_prior(PRIOR.assign(gmacs=9.0, our_gmacs=1.0), "gmacs", "GMACs", True)
    assert [ax.get_ylim()[0] for ax in first.figure.axes] == [0, 0]
    assert min(ax.get_ylim()[1] for ax in first.figure.axes) >= 9
    plt.close(first.figure)


@pytest.mark.parametrize("detections", [SEGMENTS.assign(score=0.9), SEGMENTS.iloc[:0].assign(score=0.9)])
def test_a_timeline_shows_whole_rows(detections):
    ax = figures.timeline(SEGMENTS, detections, 6.0)
    assert ax.get_ylim() == (-0.5, 1.5)  # two labels, each in the middle of its row
    plt.close(ax.figure)


def test_points_at_the_ends_of_an_axis_are_whole():
    ax = figures.sensitivity(buckets(), pd.Series({"map_n": 50.0, "missed": 10.0}))
    points = [line for axes in ax.figure.axes for line in axes.lines if line.get_marker() in ("o", "s")]
    assert points and not any(line.get_clip_on() for line in points)
    plt.close(ax.figure)


def test_epochs_are_whole_numbers():
    ax = figures.loss_curve(pd.DataFrame({"epoch": [1, 2], "total": [2.0, 1.0]}))
    assert {float(tick) % 1 for tick in ax.get_xticks()} == {0.0}
    plt.close(ax.figure)


# one run or data alone
OF_ONE = ("ap_by_class", "gap_lengths", "loss_curve", "recording", "segment_lengths", "timeline")


def test_every_figure_has_a_case():
    assert set(CASES) == set(figures.__all__) - {"described", "pareto_front"}


def is_coloured(line):
    return len(line.get_xdata()) and np.ptp(to_rgb(line.get_color())) > 0.05


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_legible_on_a_telephone_and_says_what_its_points_are(name):
    figure = CASES[name]().figure
    scale = PHONE / figure.get_figwidth() / 72
    shown = [text for text in figure.findobj(plt.Text) if text.get_text().strip() and text.get_visible()]
    small = {
        text.get_text(): text.get_fontsize() * scale for text in shown if text.get_fontsize() * scale < LEAST
    }
    assert not small
    assert max(sum(map(is_coloured, ax.lines)) for ax in figure.axes) <= MOST or name == "timeline"
    words = " ".join(" ".join(text.get_text() for text in shown).split())
    if name not in OF_ONE:
        assert re.search("interval|[Bb]ars:|Median|Mean|Better: a run", figure.get_supxlabel()), name
        assert "+ classifier" not in words
        assert ("the study's classifier" in words) == (name in WITH_CLASSIFIER)
    # nothing, names at the right included, is outside the picture by more than a letter
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.width <= theme.WIDTH + 0.2, (name, box.width)
    assert over_each_other([text for text in shown if text not in outside(figure)]) == []
    plt.close(figure)


def outside(figure):
    """The labels of ticks beyond the ends of their axes, which are not drawn."""
    ticks = [(axis, tick) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.majorTicks]
    shown = lambda axis, tick: (
        min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    )
    return {label for axis, tick in ticks if not shown(axis, tick) for label in (tick.label1, tick.label2)}


def over_each_other(texts):
    """The pairs of texts whose boxes share an area."""
    boxes = [(text.get_text(), plt.Text.get_window_extent(text)) for text in texts]  # without arrows
    return [
        (first, second)
        for place, (first, box) in enumerate(boxes)
        for second, other in boxes[:place]
        if min(box.x1, other.x1) - max(box.x0, other.x0) > 0.5
        and min(box.y1, other.y1) - max(box.y0, other.y0) > 0.5
    ]


def test_the_numbers_of_a_large_matrix_do_not_run_together():
    """With all models of the study, and three figures in the squares of the diagonal."""
    size = len(theme._MODELS)
    table = pd.DataFrame(0.99 + 0.01 * np.eye(size), index=theme._MODELS, columns=theme._MODELS)
    figure = figures.probability_matrix(table).figure
    figure.draw_without_rendering()
    numbers = [text for text in figure.axes[0].texts if text.get_text()]
    assert over_each_other(numbers) == [] and len(numbers) == size**2 - size
    assert "without a number: 100" in figure.get_supxlabel()
    plt.close(figure)


WITH_CLASSIFIER = {  # the others do not use it, or show no model of proposals
    "accuracy_against_cost",
    "class_matrix",
    "data_efficiency",
    "error_impact",
    "expected_best",
    "factorial",
    "map_by_tiou",
    "probability_matrix",
    "variants",
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_described_where_a_notebook_draws_it(name):
    text = figures.described(f"from x import figures\nshow(figures.{name}(table)[0])")
    assert len(text.split()) >= 4 and "`" not in text and text.endswith(".")
    assert text.split()[0] in inspect.getdoc(getattr(figures, name))
    assert figures.described("figures.unknown(1); figure.savefig()") == ""


def test_the_notes_explain_marks_that_are_absent_or_starred():
    table = grid(["tridet", "stale"], benchmark=["hapt"], fraction=[0.1]).assign(plain=50.0, equal=50.0)
    ends = dict.fromkeys(["plain_low", "equal_low"], 0.0) | dict.fromkeys(["plain_high", "equal_high"], 99.0)
    ways = pd.DataFrame({"way": ["resnet50*", "resnet50*"]} | dict.fromkeys(WAY, [1.0, 3.0]))
    drawn = [
        figures.factorial(table.assign(**ends, p_adjusted=1.0), {})[0],
        figures.where_time_goes(ways),
    ]
    notes = [ax.figure.get_supxlabel().replace("\n", " ") for ax in drawn]
    assert (
        "95 % interval of the score, over folds and people" in notes[0]
        and "*: the difference of the recipes" in notes[0]
    )
    assert "Floor" not in notes[0]
    assert "Network and NMS: median of 2 models; black line: lowest to highest." in notes[1]
    assert "50.00 %" in [text.get_text() for text in drawn[1].texts]  # the four parts are equal
    assert "*: random" in notes[1]
    for ax in drawn:
        plt.close(ax.figure)


def test_a_large_family_has_several_panels():
    panels = groups_of(MODELS)
    assert list(panels) == ["one stage", "one stage, panel 2", "proposals", "other families"]
    assert sum(panels.values(), []) == MODELS and max(map(len, panels.values())) <= MOST


def test_a_second_line_of_a_model_is_dashed_in_its_colour_beside_the_first():
    lines = [name for model in MODELS for name in (model, f"{model}, bfloat16")]
    panels = groups_of(lines)
    assert sorted(sum(panels.values(), [])) == sorted(lines) and max(map(len, panels.values())) <= MOST
    assert all(
        (f"{model}, bfloat16" in panel) == (model in panel) for panel in panels.values() for model in MODELS
    )
    table = values("latency_s_median", grid(["bsn", "bsn, bfloat16", "tridet"], length_steps=[288, 576]))
    ax = figures.cost_against_length(table, "latency_s_median", "latency (ms)")
    drawn = {line.get_label(): line for line in ax.lines}
    first, second, other = (drawn[name] for name in ("bsn", "bsn, bfloat16", "tridet"))
    assert first.get_color() == second.get_color() != other.get_color()
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert second.get_markerfacecolor() != second.get_color()
    plt.close(ax.figure)
    assert model_of("local_global (paper, width=9)") == "local_global (paper, width=9)"
    table = table.rename(columns={"latency_s_median": "macs"})
    ax = figures.cost_against_length(table, "macs", "GMACs")  # the same in every precision
    assert sorted(line.get_label() for line in ax.lines) == ["bsn", "tridet"]
    plt.close(ax.figure)


def test_the_line_of_a_name_that_crosses_the_panel_is_grey():
    table = values("latency_s_median", grid(["bsn", "tridet"], length_steps=[288, 576, 36_864]))
    table = table[(table.model != "bsn") | (table.length_steps < 1000)]
    ax = figures.cost_against_length(table, "latency_s_median", "latency (ms)")
    colours = {text.get_text(): text.arrow_patch.get_edgecolor() for text in ax.texts}
    assert colours["bsn"] == to_rgba(GREY) != colours["tridet"]
    plt.close(ax.figure)


def test_a_recording_names_its_streams_and_the_values_of_its_colours():
    ax = CASES["recording"]()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["acc", "gyro"]
    assert [float(tick) for tick in ax.get_yticks()] == [1.5, 4.0]
    assert "value of the feature" in [axes.get_ylabel() for axes in ax.figure.axes]
    assert ax.images[0].get_extent()[:2] == [0.5, 6.5]  # steps every second over two: the first is at 1 s
    plt.close(ax.figure)


def test_a_timeline_without_sure_detections_says_so():
    ax = figures.timeline(SEGMENTS, SEGMENTS.assign(score=0.1), 6.0)
    assert ax.get_title() == "annotated (grey); no detection has a score ≥ 0.3"
    plt.close(ax.figure)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(sorted), st.floats(0.01, 0.3))
def test_names_are_apart_and_near_their_lines(heights, gap):
    places = spread_out(heights, gap)
    assert (np.diff(places) >= gap - 1e-9).all()
    if gap * (len(heights) - 1) <= 1:  # all fit into the panel
        assert places.min() >= -1e-9 and places.max() <= 1 + 1e-9
    else:
        assert places.sum() == pytest.approx(sum(heights), abs=1e-6)  # no drift up or down
    if (np.diff(heights) >= gap).all():
        assert places == pytest.approx(heights)


@pytest.mark.parametrize("seed", range(5))
def test_names_stand_at_their_points(seed):
    """Inside the panel, over no point and no other name; with a line if another point is nearer."""
    points = dict(zip(FOUR, np.random.default_rng(seed).uniform(0.1, 0.9, (4, 2))))
    points["twin"] = points[FOUR[0]] + 0.02
    _, ax = plt.subplots(figsize=(4.2, 2.0))
    for x, y in points.values():
        ax.plot(x, y, marker="o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    name_at_points(ax, points, dict.fromkeys(points, "#0072B2"))
    ax.figure.draw_without_rendering()
    panel, places = ax.get_window_extent(), {name: ax.transData.transform(at) for name, at in points.items()}
    assert {text.get_text() for text in ax.texts} == set(points) and over_each_other(ax.texts) == []
    for text in ax.texts:
        box = plt.Text.get_window_extent(text)
        assert panel.contains(*box.min) and panel.contains(*box.max)
        assert not any(box.contains(*place) for place in places.values())
        apart = {name: np.hypot(*(np.clip(at, box.min, box.max) - at)) for name, at in places.items()}
        assert text.arrow_patch or min(apart, key=apart.get) == text.get_text()
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("runs", "known", "text"),
    [
        ([5, 5], [True, True], "Mean of 5 seeds; bars: 95 % interval."),
        (
            [1, 5],
            [False, True],
            "Mean of 1 to 5 seeds; bars: 95 % interval. One run has no bar.",
        ),
        (
            [2, 5],
            [False, True],
            "Mean of 2 to 5 seeds; bars: 95 % interval. Fewer than three runs, or equal ones, have no bar.",
        ),
        ([2, 2], [False, False], "Mean of 2 seeds, without intervals."),
        ([1, 1], [False, False], "One run each, so there is no interval."),
        (None, [False, False], "No intervals are known."),
    ],
)
def test_the_note_says_how_many_runs_there_are(runs, known, text):
    table = pd.DataFrame({"low": np.where(known, 1.0, np.nan)}).assign(**({"runs": runs} if runs else {}))
    assert runs_note(table) == text
    if any(known):
        assert runs_note(table.assign(high=101.0)) == f"{text} Bars are cut at 0 and 100."


def test_the_note_names_the_models_with_fewer_runs():
    table = pd.DataFrame({"model": ["a", "a", "b", "floor"], "runs": [5, 5, 5, 1], "low": 1.0})
    assert runs_note(table) == "Mean of 5 seeds (floor: 1); bars: 95 % interval."
    assert runs_note(table.assign(runs=[5, 3, 5, 1])).startswith("Mean of 1 to 5 seeds;")  # a: 5 and 3
    many = pd.DataFrame({"model": list("abcde"), "runs": [5, 1, 1, 1, 1], "low": 1.0})
    assert runs_note(many).startswith("Mean of 1 to 5 seeds;")
    assert runs_note(many.assign(runs=[5, 5, 1, 2, 1])).startswith("Mean of 5 seeds (c: 1, d: 2, e: 1);")
    recipes = pd.DataFrame({"recipe": ["", "a=1, b=2"], "runs": [3, 1]})
    assert number_of_runs(recipes, "seeds", by="recipe") == "3 seeds (“a=1, b=2”: 1)"
    assert number_of_runs(recipes.iloc[1:], "seeds") == "1 seed"


def test_two_runs_have_no_bar_in_a_figure():
    table = pd.DataFrame({"low": [1.0, 2.0], "high": [3.0, 4.0], "runs": [2, 3]})
    assert with_enough_runs(table).notna().to_numpy().tolist() == [[False, False, True], [True] * 3]
    assert with_enough_runs(table.drop(columns="runs")).low.tolist() == [1.0, 2.0]


def test_short_names_say_what_they_leave_out():
    table, text = short_names(
        pd.DataFrame({"model": ["bmn + classifier", "ssn", "bsn + classifier (width=9)"]})
    )
    assert table.model.tolist() == ["bmn", "ssn", "bsn (width=9)"]
    assert text == "bmn, bsn (width=9): with the study's classifier."
    matrix = pd.DataFrame({"model": ["ssn", "bmn + classifier"], "bmn + classifier": [1.0, 2.0]})
    table, text = short_names(matrix)
    assert table.to_dict("list") == {"model": ["ssn", "bmn"], "bmn": [1.0, 2.0]}
    assert text == "bmn: with the study's classifier."
    assert short_names(table)[1] == ""


def test_a_table_for_readers_has_the_short_names(tmp_path):
    out = Output(Layout(results=tmp_path))
    out.table(pd.DataFrame({"model": ["prn + classifier"], "avg mAP": [9.0]}), "some", "Some table.")
    caption, table = read_table(tmp_path / "readers" / "accuracy" / "some.md")
    assert table.model.tolist() == ["prn"]
    assert caption == "Some table. prn: with the study's classifier."
    out.table(pd.DataFrame({"model": ["prn + classifier"]}), "other", "5 seeds (prn + classifier: 3).")
    caption, _ = read_table(tmp_path / "readers" / "accuracy" / "other.md")
    assert caption == "5 seeds (prn: 3). prn: with the study's classifier."
    classes = pd.DataFrame({"class": ["x"], "prn + classifier": [9.0], "ssn": [8.0]})
    out.table(
        classes, "classes", "AP.", Best(high=(...,), by_row=True)
    )  # a name that became short still wins
    assert r"\textbf{9" in (tmp_path / "readers" / "accuracy" / "classes.tex").read_text()


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_dark_form_keeps_the_hue_and_inverts_the_lightness(colour):
    dark = pictures.dark_colours(np.array(colour, np.uint8))
    (hue, light, _), (other, lightness, _) = (
        colorsys.rgb_to_hls(*(np.array(each) / 255)) for each in (colour, dark)
    )
    if np.ptp(colour) > 60:  # the background has a slight tint of its own
        assert min(abs(hue - other), 1 - abs(hue - other)) < 0.06
    assert lightness == pytest.approx(0.07 + 0.87 * (1 - light), abs=0.02)


def png(picture):
    content = io.BytesIO()
    picture.save(content, "PNG", dpi=(200, 200))
    return content.getvalue()


def test_a_picture_and_its_dark_form_describe_themselves(tmp_path):
    light, dark = tmp_path / "figures" / "a.png", tmp_path / "figures" / "a@dark.png"
    light.parent.mkdir()
    white = Image.new("RGBA", (8, 8), "white")
    white.putpixel((1, 2), (0, 0, 0, 255))
    small = pictures.small_png(png(white), 'mAP ≥ 5 % of "a" <b>')
    light.write_bytes(small)
    alone = pictures.embedded(light, dark, tmp_path)
    dark.write_bytes(pictures.dark_png(small))
    assert pictures.description_of(light) == pictures.description_of(dark) == 'mAP ≥ 5 % of "a" <b>'
    assert alone == '<img alt="mAP ≥ 5 % of &quot;a&quot; &lt;b&gt;" src="figures/a.png">'
    both = pictures.embedded(light, dark, tmp_path)
    assert alone in both and 'srcset="figures/a@dark.png"' in both and "prefers-color-scheme: dark" in both
    with Image.open(dark) as picture:
        assert picture.mode == "P" and picture.convert("RGB").getpixel((0, 0)) == pictures.NIGHT
        assert picture.convert("RGB").getpixel((1, 2)) == (240, 240, 240)
    (tmp_path / "no.png").write_bytes(b"png")
    assert (
        pictures.description_of(tmp_path / "no.png") == pictures.description_of(tmp_path / "none.png") == ""
    )


def test_pages_take_the_words_of_a_picture_from_the_picture(tmp_path):
    layout = Layout(tmp_path / "results", tmp_path / "figures")
    template = tmp_path / "page.template.md"
    template.write_text("# Page\n\n{{figure:equal:factorial}}\n")
    page = results_page.write(layout, tmp_path / "README.md", template)
    assert "*Not drawn yet.*" in page.read_text()
    axes = CASES["factorial"]()
    paths = layout.figure("equal", "factorial"), layout.dark_figure("equal", "factorial")
    theme.save(axes.figure, paths[0], "Both recipes of every model.", paths[1])
    plt.close(axes.figure)
    text = results_page.write(layout, tmp_path / "README.md", template).read_text()
    assert '<img alt="Both recipes of every model." src="figures/equal/factorial.png">' in text
    assert 'srcset="figures/equal/factorial@dark.png"' in text
    assert layout.all_figures() == [paths[0]]  # other pages have one form


PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)|<img alt=\"([^\"]*)\" src=\"([^\"]+)\"")


@pytest.mark.parametrize("template", [results_page.README, results_page.TEMPLATE], ids=lambda path: path.name)
def test_pictures_of_the_pages_are_filled_in_with_their_descriptions(template):
    shown = [match for match in PICTURE.findall(template.read_text()) if "figures/" in match[1] + match[3]]
    assert not shown and "{{figure:" in template.read_text()


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md"])
def test_the_words_of_a_picture_are_its_description(page):
    for *_, text, address in PICTURE.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        if address:
            assert len(text.split()) >= 6 and html.unescape(text) == pictures.description_of(
                REPOSITORY / address
            )


def test_every_model_has_a_colour_and_marker_that_no_other_has():
    styles = [theme.style(name) for name in models.names()]
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == len(styles)


def test_gains_without_errors_are_cut_at_zero_and_say_so():
    kinds = ["wrong label", "localization"]
    rows = [("a", kind, value) for kind in kinds for value in (0.0, 0.0, 1.0)]
    table = pd.DataFrame(rows, columns=["model", "error", "value"])
    figure = figures.error_impact(table).figure
    assert "Bars are cut at 0." in " ".join(figure.get_supxlabel().split())
    assert "0 and 100" not in figure.get_supxlabel()
    axes = figures.error_impact(table[table.error == "localization"])
    assert axes.lines[0].get_ydata().tolist() == [0.0]  # one type is on the line of its model
    plt.close("all")


def test_kinds_of_int8_are_explained_where_there_are_several():
    rows = pd.DataFrame({"variant": ["int8", "int8 linear", "bfloat16"], "speedup": 1.5, "map_lost": 0.0})
    for table, explained in ((rows, True), (rows[rows.variant != "int8 linear"], False)):
        text = figures.speed_and_loss(table).figure.get_supxlabel()
        assert ("linear: without convolutions" in " ".join(text.split())) == explained
    plt.close("all")
