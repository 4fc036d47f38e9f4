"""Annotation files as people have them: what is mended, what gets a remark, what is refused, and what is
read."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.data import check_benchmark, load_benchmark, read_annotations
from tal_lib.data.remarks import (
    USUAL_RATES,
    beyond_remarks,
    label_remarks,
    length_remarks,
    looks_like,
    same_label,
)


def entry(*segments, **changes):
    annotations = [{"segment": [s, e], "label": label} for s, e, label in segments or [(1, 4, "x")]]
    return {"subset": "training", "duration": 60.0, "annotations": annotations} | changes


def written(tmp_path, database, mark=""):
    path = tmp_path / "annotations.json"
    path.write_text(mark + json.dumps({"database": database}), encoding="utf-8")
    return path


def read(tmp_path, database, **options):
    return read_annotations(written(tmp_path, database), repair=True, **options)


def texts(content):
    return [str(remark) for remark in content.repairs]


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    assert len(read_annotations(written(tmp_path, {"r": entry()}, "\ufeff")).segments) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration": True}, "duration: True is not a number"),
        ({"duration": "long"}, "duration: 'long' is not a number"),
        ({"duration": float("nan")}, "duration: nan is not"),
        ({"duration": None}, "duration: None is not a number"),
        ({"fps": -25}, "fps: -25 is not at least"),
        ({"fps": "25/0"}, "fps: '25/0' is not a rate"),
        ({"fps": [25]}, r"fps: \[25\] is not"),
        ({"subset": 3}, "subset: 3 is not text"),
        ({"subset": "tests"}, "unknown subset 'tests'.*Did you mean test"),
        ({"annotations": {"segment": [1, 2]}}, "annotations: .* is not a list"),
        ({"annotations": [5]}, "annotations.1: 5 is not"),
        ({"annotations": [{"label": "x"}]}, r"annotations.1\W+segment is missing"),
        ({"annotations": [{"segment": [1, 2]}]}, r"annotations.1\W+label is missing"),
        ({"annotations": [{"segment": [1, 2, 3], "label": "x"}]}, r"annotations.1\W+segment"),
        (
            {"annotations": [{"segment": ["a", 2], "label": "x"}]},
            r"annotations.1\W+segment.1: 'a' is not a number",
        ),
        ({"annotations": [{"segment": [True, 2], "label": "x"}]}, r"annotations.1\W+segment.1: True"),
        *(
            (
                {"annotations": [{"segment": [1, 2], "label": label}]},
                r"annotations.1\W+label: .* is not a label",
            )
            for label in ("", "  ", None, True, 1.5, ["x"])
        ),
    ],
)
def test_entries_that_do_not_fit_are_named(tmp_path, changes, message):
    with pytest.raises(TalError, match=f"recording r1: {message}") as error:
        read(tmp_path, {"r0": entry(), "r1": entry() | changes})
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "\u202eabc"])
def test_ids_are_one_line_of_text(tmp_path, name):
    with pytest.raises(TalError, match="annotations.json: recording id .* is empty or holds"):
        read(tmp_path, {name: entry()})


@pytest.mark.parametrize("rate", [25, "25", "25/1", 25.0])
def test_rates(tmp_path, rate):
    assert read(tmp_path, {"r": entry(fps=rate)}).recordings.fps.tolist() == [25.0]


@pytest.mark.parametrize("rate", [None, 0, ""])
def test_unknown_rates(tmp_path, rate):
    assert read(tmp_path, {"r": entry(fps=rate)}).recordings.fps.isna().all()


@pytest.mark.parametrize("start", [float("nan"), None, "nan", float("inf")])
def test_a_segment_without_times_is_dropped_and_said(tmp_path, start):
    database = {"r": entry((1, 4, "x"), (start, 5, "x"))}
    content = read(tmp_path, database)
    assert len(content.segments) == 1 and "which is not finite, dropped" in texts(content)[0]
    assert content.repairs[0].kind == "repaired" and content.repairs[0].recording == "r"
    with pytest.raises(TalError, match="recording r: segment .* not finite"):
        read_annotations(tmp_path / "annotations.json")


def test_label_ids(tmp_path):
    def content(*pairs):
        rows = [{"segment": [1, 2], "label": label, "label_id": number} for number, label in pairs]
        return read(tmp_path, {"r": entry(annotations=rows)})

    assert content((0, "a"), (3, "b"), ("3", "b")).label_ids == {0: "a", 3: "b"}
    assert content((0, "a"), (None, "b")).label_ids == {0: "a"}
    for pairs, remark in (
        ([(0, "a"), (0, "b")], "label_id 0 is both 'a' and 'b'"),
        ([(0, "a"), (-1, "b")], "label_id -1 is not a whole number"),
        ([(True, "a")], "label_id True"),
        ([(1.5, "a")], "label_id 1.5"),
    ):
        assert content(*pairs).label_ids == {} and remark in texts(content(*pairs))[0]
    assert read(tmp_path, {"r": entry()}).label_ids == {}


def test_real_label_ids(real_data):
    ids = read_annotations(real_data("thumos14/thumos14.json"), repair=True).label_ids
    assert sorted(ids) == list(range(20)) and ids[7] == "Diving" and ids[4] == "CliffDiving"


def in_unit(factor, recordings=6, count=5, seed=0, fps=None):
    """Recordings whose segments fill them, their times multiplied by a factor."""
    rng, database = np.random.default_rng(seed), {}
    for number in range(recordings):
        starts = np.sort(rng.uniform(5, 55, count))
        rows = [(round(start * factor, 3), round((start + 3) * factor, 3), "x") for start in starts]
        database[f"r{number}"] = entry(*rows) | ({"fps": fps} if fps else {})
    return database


@pytest.mark.parametrize(
    ("factor", "fps", "message"),
    [
        (25, None, "as frame numbers at about (24|25) frames a second would"),
        (30, None, "as frame numbers at about 30 frames a second would"),
        (25, 25, "as frame numbers at the stated 25 frames a second would"),
        (60, None, "as frame numbers at about 60 frames a second would"),
        (1000, None, "as milliseconds would"),
    ],
)
def test_times_that_are_no_seconds_are_refused(tmp_path, factor, fps, message):
    with pytest.raises(TalError, match=rf"annotations.json: \d+ of 30 segments lie far beyond.*{message}"):
        read(tmp_path, in_unit(factor, fps=fps))
    assert not texts(read(tmp_path, in_unit(1)))


def test_a_minority_beyond_their_recording_gets_a_remark(tmp_path):
    database = in_unit(1) | {"odd": in_unit(25)["r0"]}
    assert any("of 35 segments lie far beyond" in text for text in texts(read(tmp_path, database)))
    slightly = {"r": entry((1, 4, "x"), (50, 60.4, "x"))}  # as published files have some
    assert texts(read(tmp_path, slightly)) == [
        "r: segment 50–60.4 s goes beyond the recording, kept as published"
    ]


@settings(max_examples=60, deadline=None)
@given(rate=st.sampled_from(USUAL_RATES), seed=st.integers(0, 1000))
def test_the_rate_that_frames_look_like_is_near_theirs(rate, seed):
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 1, (8, 12))
    rows = [(f"r{i}", s * 57 * rate, (s * 57 + 3) * rate, "x") for i in range(8) for s in starts[i]]
    table = pd.DataFrame(rows, columns=["recording", "start", "end", "label"])
    durations = pd.Series(60.0, index=[f"r{i}" for i in range(8)])
    told = looks_like(table, durations)
    assert float(told.split(" at about ")[1].split()[0]) == pytest.approx(rate, rel=0.25)


def test_labels_that_are_most_likely_one_get_a_remark():
    table = pd.DataFrame({"label": ["walk"] * 3 + ["Walk ", "jump_up", "jump up", "sit "]})
    told = [str(remark) for remark in label_remarks(table)]
    assert len(told) == 3 and "'jump up' (1 segments) and 'jump_up' (1 segments) differ only in" in told[1]
    assert "'Walk ' (1 segments) and 'walk' (3 segments)" in told[0] and "'sit ' begins or ends" in told[2]
    assert same_label("Wave_hand ") == same_label("wave  hand") != same_label("wavehand")


def lengths(*values, label="x"):
    rows = [(f"r{i}", 10.0, 10.0 + value, label) for i, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label"])


def test_lengths_far_outside_their_class():
    """35 s among 1 to 2 s is a typing error; classes that vary, or have few segments, are left alone."""
    usual = np.random.default_rng(0).uniform(1, 2, 20)
    (remark,) = length_remarks(lengths(*usual, 35.0))
    assert remark.recording == "r20" and remark.kind == "length" and "lasts 35 s" in remark.text
    (short,) = length_remarks(lengths(*usual, 0.05))
    assert "lasts 0.05 s" in short.text
    assert not length_remarks(lengths(1, 1, 1, 1, 4.9)) and len(length_remarks(lengths(1, 1, 1, 1, 5.1))) == 1
    assert not length_remarks(lengths(*np.geomspace(0.1, 100, 30)))  # varies over three decades
    assert not length_remarks(lengths(1, 1, 1, 35))  # too few to say
    assert not length_remarks(pd.concat([lengths(*usual), lengths(35, 36, 40, 33, 35, label="y")]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1000), min_size=5, max_size=30), st.floats(0.1, 10))
def test_the_unit_of_lengths_does_not_matter(values, factor):
    """Log lengths: whichever unit, the same segments are outliers (but for those within rounding of the
    bound)."""
    base = pd.Series(values).median()
    values = [value for value in values if abs(np.log(value / base)) < 1.5 or abs(np.log(value / base)) > 1.7]
    told = [
        {remark.recording for remark in length_remarks(lengths(*(v * f for v in values)))} for f in (1, 2.0)
    ]
    assert told[0] == told[1]


def test_a_hundred_thousand_recordings_with_one_duplicate_end(tmp_path):
    """A search for the duplicate that is quadratic, as it was, would take hours."""
    entry_json = json.dumps(entry())
    rows = ",".join(f'"r{i}": {entry_json}' for i in range(100_000))
    path = tmp_path / "a.json"
    path.write_text(f'{{"database": {{{rows}, "r99999": {entry_json}}}}}')
    with pytest.raises(TalError, match="'r99999' is listed twice"):
        read_annotations(path)


SPLITS = {
    "training testing": {"train": "training", "test": "testing"},
    "Train Test": {"train": "Train", "test": " Test "},
    "training validation": {"train": "training", "test": "validation"},
    "train val": {"train": "train", "test": "val"},
    "validation test": {"train": "validation", "test": "test"},
}


@pytest.mark.parametrize("names", SPLITS)
def test_split_names_as_people_write_them(clips, change, names):
    folder = clips(4, 2, names=tuple(SPLITS[names].values()))
    data = load_benchmark(str(folder))
    assert data.splits == ("test", "train")[::-1] and len(data.recordings("train")) == 4
    assert len(data.annotations("test")) == 6


def test_a_test_split_without_labels_gives_way_to_validation(clips, change):
    """As ActivityNet has it: the labels of `testing` are not published."""
    folder = clips(4, 4)

    def edit(database):
        for number in (4, 5):
            database[f"clip{number:07d}"]["subset"] = "validation"
        for number in (6, 7):
            database[f"clip{number:07d}"]["annotations"] = []

    change(folder, edit)
    data = load_benchmark(str(folder))
    assert data.recordings("test") == ["clip0000004", "clip0000005"] and len(data.recordings()) == 6
    assert any("the 2 of subset test have no annotations" in str(remark) for remark in data.notes)


def test_all_three_splits_stay(clips, change):
    folder = clips(4, 4)
    change(folder, lambda database: database["clip0000004"].update(subset="validation"))
    assert load_benchmark(str(folder)).splits == ("train", "test", "validation")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", ".", "a/../../outside", "x" * 5000])
def test_no_id_leads_out_of_the_features_folder(clips, change, name):
    folder = clips()
    np.save(folder / "outside.npy", np.zeros((119, 8)))
    change(folder, lambda database: database.update({name: database["clip0000000"]}))
    data = load_benchmark(str(folder))
    with pytest.raises(TalError, match="feature file not found"):
        data.features(name)
    assert data.files.missing(data.recordings()) == [name]


def test_ids_with_folders_are_found_below(clips, change):
    folder = clips()
    (folder / "features" / "P01").mkdir()
    (folder / "features" / "clip0000000.npy").rename(folder / "features" / "P01" / "P01_01.npy")
    change(folder, lambda database: database.update({"P01/P01_01": database.pop("clip0000000")}))
    data = load_benchmark(str(folder))
    assert not data.files.missing(data.recordings()) and len(data.features("P01/P01_01")) == 119


def test_prefixed_names_are_found_unless_they_belong_to_another(clips, change):
    """`v_` is passed over on either side, but never so that one recording gets another's features."""
    folder = clips(3, 1, file="v_{}.npy")
    data = load_benchmark(str(folder))
    assert not data.files.missing(data.recordings())
    change(folder, lambda database: database.update(v_clip0000000=database["clip0000000"]))
    assert load_benchmark(str(folder)).files.missing(["clip0000000", "v_clip0000000"]) == ["clip0000000"]
    bare = clips(3, 1, name="bare")
    change(bare, lambda database: database.update(v_clip0000001=database.pop("clip0000001")))
    assert not load_benchmark(str(bare)).files.missing(["v_clip0000001"])


@pytest.mark.parametrize("text", ["{}", '{"database": {}}'])
def test_an_empty_file(clips, text):
    folder = clips()
    (folder / "annotations.json").write_text(text)
    with pytest.raises(TalError, match="clips.*(no 'database'|no recording in it)"):
        load_benchmark(str(folder))


def test_a_missing_annotation_file_names_what_is_there(clips):
    folder = clips()
    (folder / "annotations.json").rename(folder / "activity_net.v1-3.min.json")
    with pytest.raises(TalError, match="annotations.json: .* Rename activity_net.v1-3.min.json"):
        load_benchmark(str(folder))


def test_remarks_reach_the_check(clips, change):
    folder = clips(8)

    def edit(database):
        database["clip0000001"]["annotations"][0]["label"] = "Wave_hand"
        database["clip0000002"]["annotations"][1]["segment"] = [0.1, 59.0]
        database["clip0000003"]["annotations"][1]["segment"] = [55.0, 200.0]

    change(folder, edit)
    kinds = check_benchmark(str(folder)).kind.value_counts().to_dict()
    # `Wave_hand` has one segment, so each fold lacks it in its test or its training part
    assert kinds == {"labels": 1, "length": 2, "suspect": 1, "as published": 1, "folds": 5}


def test_published_files_are_far_from_refused(real_data):
    """The share of segments far beyond their recording in THUMOS14 and ActivityNet, against the limit."""
    real_data("thumos14/thumos14.json")
    data = load_benchmark("thumos14")
    durations = pd.Series({name: data.duration(name) for name in data.recordings()})
    (remark,) = beyond_remarks(data.annotations(), durations)
    assert "30 of 6,365 segments" in str(remark) and "frames" not in str(remark)
