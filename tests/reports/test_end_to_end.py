"""Tables and figure of the whole way from a file to detections."""

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.reports import figures, tables
from tal_lib.reports.costs import end_to_end, page
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.report import tidy_tables


def measured(model="a", backbone="hog-hof", height=480, video_s=120.0, repeat=0, factor=1.0):
    parts = {"decoding_s": 10.0, "features_s": 20.0, "network_s": 4.0 * factor, "decode_nms_s": 6.0}
    total = 24.0 + parts["network_s"] + parts["decode_nms_s"]
    return parts | {
        "backbone": backbone,
        "random_weights": backbone == "resnet50",
        "height": height,
        "video_s": video_s,
        "model": model,
        "preset": "compact",
        "repeat": repeat,
        "total_s": total,
        "real_time_factor": total / video_s,
        "peak_memory_bytes": 2e8,
        "feature_macs": 6e12 if backbone == "resnet50" else None,
        "network_macs": 2e9,
        "threads_used": 2,
        "num_classes": 20,
        "window": 2304,
        "overlap": 384,
        "same_as_whole": True,
    }


COST = pd.DataFrame(
    [measured(repeat=repeat, factor=factor) for repeat, factor in enumerate((1.0, 1.5, 9.0))]
    + [measured(backbone="resnet50"), measured(video_s=59.9)]
)


def test_costs_are_those_of_a_minute_and_the_median_of_repeats():
    rows = end_to_end.per_minute(COST)
    first = rows.iloc[0]
    assert len(rows) == 3 and (first.decoding_s, first.network_s) == (5.0, 3.0)
    assert rows.feature_macs.dropna().tolist() == [3e12]
    table = end_to_end.by_video(rows).set_index("backbone")
    assert set(table.index) == {"hog-hof, 480p", "resnet50*, 480p"}
    long = table[table.minutes == "2"].loc["hog-hof, 480p"]
    shares = [int(long[name].split("(")[1].split(" %")[0]) for name in end_to_end.PARTS.values()]
    # 5, 10, 3 and 3 s: the network is the median of 2, 3 and 18 s
    assert shares == [24, 48, 14, 14] and long["feature GMACs"] == "–"
    # (24 + 4 + 6) / 120 and (24 + 36 + 6) / 120: the fastest and the slowest of the three
    assert (long["lowest to highest"], long.runs) == ("0.283 to 0.550", 3)
    once = table.loc["resnet50*, 480p"]
    assert (once["lowest to highest"], once["peak, lowest to highest"], once.runs) == ("–", "–", 1)
    peaks = COST[:3].assign(peak_memory_bytes=[1.84e8, 2e8, 3e8])
    (ends,) = end_to_end.by_video(end_to_end.per_minute(peaks))["peak, lowest to highest"]
    assert ends == "180 to 300"
    uneven = pd.concat([COST[:2], COST[:1].assign(model="b")])  # a model was added to a repeat
    assert end_to_end.by_video(end_to_end.per_minute(uneven)).runs.tolist() == [2]
    assert "runs" not in end_to_end.by_video(end_to_end.per_minute(COST[COST.repeat == 0]))
    assert end_to_end.by_model(rows.iloc[:1]).model.tolist() == ["a"]


def test_energy_is_told_per_minute_where_a_machine_measures_it(tmp_path):
    """300 J of two minutes are 150 J a minute; a machine without a counter has no column."""
    both = pd.concat([COST.assign(energy_j=300.0, device_name="with"), COST.assign(device_name="without")])
    layout = Layout(tmp_path, tmp_path / "figures")
    end_to_end.write({"end_to_end": both.assign(video="")}, Output(layout, "cost"))
    written = (tmp_path / "readers" / "cost").glob("end_to_end*.md")
    tables_of = {path.stem: path.read_text() for path in written}
    with_energy = [name for name, text in tables_of.items() if "extraction (J)" in text]
    assert with_energy == ["end_to_end"] and "end_to_end_without" in tables_of
    rows = end_to_end.by_video(end_to_end.per_minute(both[both.device_name == "with"]))
    assert rows[rows.minutes == "2"]["extraction (J)"].unique().tolist() == ["150"]


def test_what_a_minute_costs_is_said_of_videos_of_a_minute():
    text = end_to_end.in_words(COST.assign(device_name="c"))
    # 75 % = (10 + 20) / (10 + 20 + 4 + 6); of the first video, 30 / 42 = 71 % by the median of its repeats
    assert "video decoding and features take at least 71 % of the time" in text
    factors = "from 0.28 (resnet50 with random weights, 480p) to 0.57 (hog-hof, 480p)."  # 34 s of 59.9
    assert text.endswith(f"{factors} Among compact models the choice hardly matters.")
    older = end_to_end.in_words(COST.assign(device_name="c", cell="x", older=True))
    assert older.endswith("matters. 1 of 1 cells were computed by older code or from older data.")
    short = COST[COST.video_s < 59].assign(device_name="c")
    assert end_to_end.in_words(short) == end_to_end.in_words(COST.iloc[:0]) == ""


def test_a_bar_is_a_backbone_or_the_model_of_a_single_video():
    rows = end_to_end.per_minute(COST)
    assert end_to_end.bars(rows).way.tolist() == ["hog-hof, 480p, 2 min", "resnet50*, 480p, 2 min"]
    assert end_to_end.bars(rows).video_s.tolist() == [120, 120]
    two = end_to_end.per_minute(pd.DataFrame([measured("a"), measured("b")]))
    assert end_to_end.bars(two).way.tolist() == ["a", "b"]
    assert end_to_end.first_video(rows).backbone.tolist() == ["hog-hof"]


OLD_AND_NEW = pd.concat(
    [
        COST.assign(cell=[*"abcde"], older=[False, True, True, True, True]),
        COST[:1].assign(cell="f", older=True, height=1080),
    ]
)


def test_older_code_does_not_mix_with_the_present_code():
    rows = end_to_end.per_minute(OLD_AND_NEW)
    of_two_minutes = rows[(rows.backbone == "hog-hof") & (rows.video_s == 120) & (rows.height == 480)]
    # two older runs are left out, whose networks took 3 and 18 s per minute
    assert (of_two_minutes.runs.item(), of_two_minutes.network_s.item()) == (1, 2.0)
    table = end_to_end.by_video(rows)
    assert table.backbone.tolist() == [
        "hog-hof†, 480p",
        "hog-hof, 480p",
        "hog-hof†, 1080p",
        "resnet50*†, 480p",
    ]
    # only the present code's video of 480p; what only older code measured stays
    ways = ["hog-hof, 480p, 2 min", "resnet50*†, 480p, 2 min", "hog-hof†, 1080p, 2 min"]
    assert end_to_end.bars(rows).way.tolist() == ways


def test_captions_count_the_older_rows_that_are_shown(tmp_path):
    layout = Layout(tmp_path, tmp_path / "figures")
    end_to_end.write({"end_to_end": OLD_AND_NEW.assign(device_name="a", video="")}, Output(layout, "cost"))
    caption = lambda name: layout.reader("cost", name).with_suffix(".md").read_text().splitlines()[0]
    assert "3 of 4 cells were computed by older code or from older data (†)." in caption("end_to_end")
    printed = layout.reader("cost", "end_to_end").with_suffix(".tex").read_text()
    assert r"hog-hof\dag{}, 1080p" in printed and "(\\dag{})" in printed
    assert "older" not in caption("end_to_end_models")  # the present code measured its video


def test_a_file_of_somebody_is_a_video_of_its_own():
    rows = end_to_end.per_minute(pd.concat([COST.assign(video=""), COST.assign(video="clips/walk.mp4")]))
    assert len(rows) == 6 and set(rows.video) == {"", "walk.mp4"}
    assert set(end_to_end.by_video(rows).backbone) >= {"hog-hof, 480p", "hog-hof, 480p, walk.mp4"}


def test_a_minute_is_of_the_exact_length():
    """10.4 s are shown as 10 s; seconds per minute and real-time factor agree."""
    row = end_to_end.per_minute(pd.DataFrame([measured(video_s=10.4)])).iloc[0]
    assert row.total_s == pytest.approx(60 * row.real_time_factor) and row.video_s == 10


def test_captions_are_short_and_say_what_macs_are_of(tmp_path):
    layout = Layout(tmp_path, tmp_path / "figures")
    end_to_end.write(
        {"end_to_end": COST.assign(device_name="AMD EPYC, 2 cores", video="")}, Output(layout, "cost")
    )
    for name in ("end_to_end", "end_to_end_models"):
        caption = layout.reader("cost", name).with_suffix(".md").read_text().splitlines()[0]
        assert "GMACs per minute of video" in caption and len(caption.split()) < 50, caption
        assert ("–: the backbone has no network" in caption) == (name == "end_to_end")


@pytest.mark.parametrize("most", [1, 3])
def test_how_often_a_video_was_measured_is_said(most, tmp_path):
    layout = Layout(tmp_path, tmp_path / "figures")
    rows = COST[COST.repeat < most].assign(device_name="a", video="")
    end_to_end.write({"end_to_end": rows}, Output(layout, "cost"))
    caption = layout.reader("cost", "end_to_end").with_suffix(".md").read_text().splitlines()[0]
    assert ("measured once" in caption, "Medians over runs" in caption) == (most == 1, most == 3)


def test_the_main_machine_has_the_most_videos_not_the_most_models():
    few = pd.DataFrame([measured(model=f"{number}") for number in range(9)]).assign(device_name="few videos")
    assert end_to_end.main_machine(pd.concat([few, COST.assign(device_name="main")])) == "main"


def test_the_page_shows_the_machine_with_the_most_videos(tmp_path):
    layout = Layout(tmp_path, tmp_path / "figures")
    assert page.pages(layout) == {}
    with pytest.raises(TalError, match="no measured cost of a video"):
        end_to_end.measured(tmp_path)
    others = COST.iloc[:1].assign(device_name="other")
    every = pd.concat([others, COST.assign(device_name="main")]).assign(cell="x:0")
    tables.write_csv(every, layout.tables, "end_to_end")
    tables.write_csv(every.iloc[:3], layout.tables, "end_to_end_live")
    cost, live = end_to_end.measured(tmp_path)
    assert set(cost.device_name) == set(live.device_name) == {"main"} and (len(cost), len(live)) == (5, 2)
    assert page.pages(layout) == {"10_end_to_end": ("10_end_to_end.ipynb", {})}
    table = layout.reader("cost", "end_to_end")
    tables.write_table(
        pd.DataFrame({"a": [1]}), table, "From file to detections: seconds; measured with main."
    )
    assert page.notes(layout) == {
        "10_end_to_end": f"{page.STORED} From file to detections: seconds; measured with main. "
        "Tables: [end_to_end](../readers/cost/end_to_end.md)."
    }


def test_bars_are_seconds_of_an_hour():
    axes = figures.where_time_goes(COST.iloc[:1].assign(way="a"))
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([300, 600, 120, 180])
    assert axes.lines[0].get_xdata()[0] == pytest.approx(34 * 30)


def test_the_live_demo_is_told_per_minute_of_video():
    row = {"backbone": "hog-hof", "height": 480, "model": "a", "video_s": 30.06, "decoding_s": 6.0}
    row |= {"features_s": 3.0, "localization_s": 1.5, "drawing_s": 0.5, "real_time_factor": 11 / 30.06}
    rows = pd.DataFrame([row, row | {"decoding_s": 60.0}, row])
    table = end_to_end.by_live(rows)
    # 10.5 / 30.06: without drawing; 64.5 / 30.06: the slowest of the three runs
    assert table.to_numpy().tolist() == [
        ["hog-hof, 480p", "30", "a", "12.0", "5.99", "2.99", "0.998", "0.349", "0.349 to 2.15", 3]
    ]
    assert list(table)[-2:] == ["lowest to highest", "runs"]
    two = pd.concat([rows, pd.DataFrame([row | {"model": "b"}])])
    assert end_to_end.by_live(two)["lowest to highest"].tolist() == ["0.349 to 2.15", "–"]
    assert list(end_to_end.by_live(rows.iloc[:1]))[-1] == "real-time factor"


def test_every_run_of_the_live_demo_counts(cell):
    """Cells of longer videos measure the same minute: none takes the place of another."""
    live = {"backbone": "hog-hof", "height": 480, "model": "a", "video_s": 60.06, "real_time_factor": 0.2}
    records = [
        cell("end_to_end", "", 1.0, "a", number, np.zeros(2)) | {"tables": {"end_to_end_live": [live]}}
        for number in (1, 2)
    ]
    assert len(tidy_tables(records)["end_to_end_live"]) == 2


def test_parts_that_cannot_be_seen_are_not_in_the_legend():
    small = COST.iloc[:1].assign(way="a", network_s=1e-4)
    texts = figures.where_time_goes(small).figure.legends[0].get_texts()
    assert [text.get_text() for text in texts].count("network") == 0
    assert "box decoding and NMS" in [text.get_text() for text in texts]


def test_the_live_demo_has_the_main_machine_of_the_files(tmp_path):
    live = {"backbone": "hog-hof", "height": 480, "video": "", "model": "a", "video_s": 60.0}
    live |= {"decoding_s": 6.0, "features_s": 3.0, "localization_s": 1.5, "drawing_s": 0.5, "threads_used": 2}
    live = pd.DataFrame([live | {"real_time_factor": 0.2, "device_name": name} for name in "aabbb"])
    layout = Layout(tmp_path, tmp_path / "figures")
    data = {"end_to_end": COST.assign(device_name="a"), "end_to_end_live": live}
    end_to_end.write_live(data, Output(layout, "cost"))
    assert "threads of a." in layout.reader("cost", "end_to_end_live").read_text()
    assert "threads of b." in layout.reader("cost", "end_to_end_live_b").read_text()
