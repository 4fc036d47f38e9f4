"""Published data sets by name: splits, tIoUs and time axes; annotations in the form of their owners."""

import json

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import list_benchmarks, load_benchmark, shape_of
from tal_lib.data.published import PUBLISHED

FINE = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))
COARSE = (0.1, 0.2, 0.3, 0.4, 0.5)
DENSE = tuple(round(0.1 * n, 1) for n in range(1, 10))
# name: subsets in the file (train, test, another), tIoUs, columns, classes, stride and first centre (s)
FACTS = {
    "hacs": (("training", "validation", "testing"), FINE, 2304, 200, 8 / 15, 16 / 15),
    "multithumos": (("training", "validation", None), DENSE, 2048, 65, 4 / 30, 8 / 30),
    "epic_kitchens_verb": (("train", "val", "test"), COARSE, 2304, 97, 16 / 30, 16 / 30),
    "epic_kitchens_noun": (("train", "val", "test"), COARSE, 2304, 300, 16 / 30, 16 / 30),
    "ego4d_mq": (("train", "val", "test"), COARSE, 2304, 110, 16 / 30, 16 / 30),
    "fineaction": (("training", "validation", "testing"), FINE, 1280, 106, 16 / 30, 8 / 30),
    "charades": (("training", "testing", None), DENSE, 1024, 157, 8 / 24, 0.0),
}


def entry(subset, **changes):
    annotated = [{"segment": [1.0, 3.5], "label": "x"}, {"segment": [4, 6], "label": "y"}]
    row = {"subset": subset, "duration": "12.0", "frame": 300, "annotations": annotated} | changes
    return row | ({"annotations": []} if subset in ("test", "testing") and "Charades" not in changes else {})


def put(root, name, database, file=0):
    place = root / PUBLISHED[name].folder
    place.mkdir(exist_ok=True)
    path = place / PUBLISHED[name].files[file]
    path.write_text(json.dumps({"database": database}))
    return place


@pytest.mark.parametrize("file", [0, -1])
@pytest.mark.parametrize("name", FACTS)
def test_facts_of_each_data_set(tmp_path, name, file):
    (train, test, other), tious, columns, classes, stride_s, centre = FACTS[name]
    database = {"a": entry(train), "b": entry(test, annotations=entry(train)["annotations"])}
    database |= {"c": entry(other, annotations=[])} if other else {}
    place = put(tmp_path, name, database, file)
    data = load_benchmark(name, tmp_path)
    assert (data.recordings("train"), data.recordings("test")) == (["a"], ["b"])
    assert data.tious == tious and data.feature_spec.dim == columns and data.classes == ("x", "y")
    rate = 25 / 30 if name == "multithumos" else 1  # the recordings' own rate: 300 frames in 12 s
    assert data.time_axis("a")[0] == pytest.approx(stride_s / rate)
    assert data.time_axis("a")[1] / 2 == pytest.approx(centre / rate, abs=1e-4)
    shape = shape_of(name)
    assert (shape.input_dim, shape.num_classes) == (columns, classes)
    assert shape.stride_s == pytest.approx(stride_s)
    features = place / "features"
    features.mkdir()
    np.save(features / "a.npy", np.zeros((5, columns), np.float32))
    assert data.name == name and load_benchmark(name, tmp_path).features("a").shape == (5, columns)


def test_multithumos_of_temporalmaxer(tmp_path):
    """Its subsets are named as THUMOS14's: validation is for training."""
    put(
        tmp_path,
        "multithumos",
        {"a": entry("validation"), "b": entry("test", annotations=entry("")["annotations"])},
    )
    data = load_benchmark("multithumos", tmp_path)
    assert (data.recordings("train"), data.recordings("test")) == (["a"], ["b"])


def test_other_features_keep_the_rate_of_the_recordings(tmp_path):
    place = put(tmp_path, "hacs", {"a": entry("training", fps=24), "b": entry("validation")})
    (place / "features").mkdir()
    (place / "features" / "spec.json").write_text('{"streams": {"big": 4}, "stride_frames": 8}')
    data = load_benchmark("hacs", tmp_path)
    assert data.time_axis("a") == pytest.approx((8 / 24, 8 / 24))
    assert data.time_axis("b") == pytest.approx((8 / 25, 8 / 25))  # 300 frames in 12 s


def test_missing_files_and_subsets(tmp_path, capsys):
    for name in PUBLISHED:
        with pytest.raises(TalError, match=f"annotations of {name} not found. Put .*json there"):
            load_benchmark(name, tmp_path)
    put(tmp_path, "hacs", {"a": entry("training")})
    with pytest.raises(TalError, match="hacs.json: no recording of subset validation .there are train"):
        load_benchmark("hacs", tmp_path)
    assert main(["data", "check", "fineaction", "--root", str(tmp_path)]) == 2
    assert "annotations of fineaction not found" in capsys.readouterr().err
    assert list_benchmarks(tmp_path).set_index("benchmark").here[["hacs", "charades"]].tolist() == [
        "annotations",
        "no",
    ]
    (tmp_path / "hacs" / "features").mkdir()
    assert list_benchmarks(tmp_path).set_index("benchmark").here["hacs"] == "yes"


EPIC = {
    "EPIC_100_train.csv": "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,"
    "stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,noun_class\n"
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3\n"
    "P01_01_1,P01,P01_01,00:00:02.629,00:01:04.37,00:01:06.17,262,370,turn on light,turn-on,6,light,114\n",
    "EPIC_100_validation.csv": "video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
    "P02_01,01:00:00.00,01:00:02.50,3,3\n",
    "EPIC_100_video_info.csv": "video_id,duration,fps,resolution\nP01_01,1652.15,59.94,1920x1080\n"
    "P02_01,3700.0,50.0,1920x1080\n",
    "EPIC_100_verb_classes.csv": "id,key,instances,category\n3,open,\"['open']\",access\n"
    "6,turn-on,\"['turn-on', 'light']\",monitor\n",
}


def epic(tmp_path, **changes):
    place = tmp_path / "epic_kitchens"
    place.mkdir(exist_ok=True)
    for name, text in (EPIC | changes).items():
        (place / name).write_text(text)
    return place


def test_epic_kitchens_as_published(tmp_path):
    """EPIC_100_*.csv: github.com/epic-kitchens/epic-kitchens-100-annotations, README."""
    epic(tmp_path)
    verbs = load_benchmark("epic_kitchens_verb", tmp_path)
    assert list(verbs.annotations("train").itertuples(index=False, name=None)) == [
        ("P01_01", 0.14, 3.37, "open"),
        ("P01_01", 64.37, 66.17, "turn-on"),
    ]
    assert verbs.annotations("test").start.tolist() == [3600.0] and verbs.duration("P01_01") == 1652.15
    assert verbs.time_axis("P01_01") == pytest.approx((16 / 30, 32 / 30))  # features of videos at 30 a second
    nouns = load_benchmark("epic_kitchens_noun", tmp_path)
    assert nouns.classes == ("id_003", "id_114")
    assert "labels are the classes' numbers" in str(nouns.notes[0])


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        (
            "EPIC_100_train.csv",
            "00:00:00.14",
            "0.14",
            "EPIC_100_train.csv, line 2: '0.14' is not HH:MM:SS.ss",
        ),
        ("EPIC_100_train.csv", "verb_class", "verbs", "EPIC_100_train.csv: columns missing: verb_class"),
        ("EPIC_100_train.csv", "open,3,door", "open,three,door", "verb_class: 'three' is not a whole number"),
        (
            "EPIC_100_train.csv",
            ",P01_01,00:00:01",
            ",P09_01,00:00:01",
            "line 2: video P09_01 is not in EPIC_100_video",
        ),
        ("EPIC_100_validation.csv", "P02_01", "P01_01", "video P01_01 is in two splits"),
        ("EPIC_100_video_info.csv", "1652.15", "-1", "line 2: duration: '-1' is not above 0"),
        (
            "EPIC_100_train.csv",
            "00:01:04.37,00:01:06.17,262,370,turn on light,turn-on,6,light,114",
            "",
            "line 3 is cut off",
        ),
    ],
)
def test_damaged_tables_of_epic_kitchens(tmp_path, file, before, after, message):
    assert before in EPIC[file]
    epic(tmp_path, **{file: EPIC[file].replace(before, after)})
    with pytest.raises(TalError, match=message):
        load_benchmark("epic_kitchens_verb", tmp_path)


def moments(*labels, **changes):
    rows = [
        {"primary": primary, "video_start_time": s, "video_end_time": e, "label": label}
        for s, e, label, primary in labels
    ]
    clip = {
        "clip_uid": "c1",
        "video_start_sec": 100.0,
        "video_end_sec": 580.0,
        "video_start_frame": 3000,
        "video_end_frame": 17400,
        "annotations": [{"annotator_uid": "x", "labels": rows}],
    }
    return {
        "version": "1",
        "date": "220429",
        "videos": [{"video_uid": "v", "split": "train", "clips": [clip | changes]}],
    }


def test_ego4d_as_published(tmp_path):
    """moments_*.json: ego4d-data.org, "Annotation Schemas"; OpenTAD's convert_ego4d_anno.py."""
    place = tmp_path / "ego4d_mq"
    place.mkdir()
    train = moments((110.0, 120.5, "wash", True), (130.0, 131.0, "wash", False))
    odd = moments((110.0, 120.5, "wash", True), clip_uid="c9", video_end_frame=3001)
    train["videos"] += odd["videos"]
    (place / "moments_train.json").write_text(json.dumps(train))
    (place / "moments_val.json").write_text(json.dumps(moments((200.0, 240.0, "cut", True), clip_uid="c2")))
    data = load_benchmark("ego4d_mq", tmp_path)
    assert data.annotations().values.tolist() == [["c1", 10.0, 20.5, "wash"], ["c2", 100.0, 140.0, "cut"]]
    early = moments((99.5, 110.0, "wash", True), (90.0, 95.0, "wash", True))
    (place / "moments_train.json").write_text(json.dumps(early))
    assert load_benchmark("ego4d_mq", tmp_path).annotations("train").values.tolist() == [
        ["c1", 0.0, 10.0, "wash"]
    ]
    assert data.duration("c1") == 480.0 and data.recordings("test") == ["c2"]
    assert "1 clips of an impossible frame rate are left out" in str(data.notes[0])
    (place / "moments_val.json").write_text(json.dumps(moments((200.0, "x", "cut", True))))
    with pytest.raises(TalError, match="moments_val.json, clip c1: video_end_time: 'x' is not a number"):
        load_benchmark("ego4d_mq", tmp_path)
    (place / "moments_val.json").write_text('{"videos": [{"clips": 3}]}')
    with pytest.raises(TalError, match="moments_val.json: unexpected JSON structure: no list 'clips'"):
        load_benchmark("ego4d_mq", tmp_path)


def test_charades_as_published(tmp_path):
    """Charades_v1_*.csv: README of the data set: 'class start end', separated by semicolons."""
    place = tmp_path / "charades"
    place.mkdir()
    head = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    train = 'A1,S,Kitchen,6,7,Yes,"A person, cooking",cup,x,c092 11.90 21.20;c147 0.00 12.60,24.83\n'
    (place / "Charades_v1_train.csv").write_text(head + train)
    (place / "Charades_v1_test.csv").write_text(head + "B2,S,Kitchen,6,7,Yes,x,cup,x,,30.0\n")
    data = load_benchmark("charades", tmp_path)
    assert data.annotations().values.tolist() == [["A1", 11.9, 21.2, "c092"], ["A1", 0.0, 12.6, "c147"]]
    assert data.recordings("test") == ["B2"] and data.duration("A1") == 24.83
    (place / "Charades_v1_train.csv").write_text(head + train.replace("c092 11.90", "c092 11,90"))
    with pytest.raises(TalError, match="Charades_v1_train.csv"):
        load_benchmark("charades", tmp_path)


def multithumos_texts(tmp_path, **changes):
    """The unpacked archive of MultiTHUMOS: README, class_list.txt, annotations/<class>.txt."""
    place = tmp_path / "multithumos"
    files = {
        "README": "MultiTHUMOS",
        "class_list.txt": "1 BaseballPitch\n2 Run\n",
        "annotations/BaseballPitch.txt": "video_validation_0000266 72.8 76.4\n",
        "annotations/Run.txt": "video_test_0000073  1.0 2.5\n\nvideo_test_0000001 3 4\n",
    }
    for name, text in (files | changes).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def thumos14(tmp_path):
    rows = {"video_validation_0000266": "Validation", "video_test_0000073": "Test"}
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14" / "thumos14.json"
    database = {name: {"subset": subset, "duration": 100.0, "fps": 25.0} for name, subset in rows.items()}
    path.write_text(json.dumps({"database": database}))


def test_multithumos_as_published(tmp_path):
    """ai.stanford.edu/~syyeung/everymoment.html: `video start end`; durations are THUMOS14's."""
    multithumos_texts(tmp_path)
    with pytest.raises(TalError, match="durations .* not known: .*Put the annotations of THUMOS14 at .*json"):
        load_benchmark("multithumos", tmp_path)
    thumos14(tmp_path)
    data = load_benchmark("multithumos", tmp_path)
    assert data.annotations("train").values.tolist() == [
        ["video_validation_0000266", 72.8, 76.4, "BaseballPitch"]
    ]
    assert data.annotations("test").values.tolist() == [["video_test_0000073", 1.0, 2.5, "Run"]]
    assert data.time_axis("video_test_0000073") == pytest.approx((4 / 25, 16 / 25))
    assert data.duration("video_test_0000073") == 100.0
    assert "1 videos that thumos14.json does not hold are left out: video_test_0000001" in str(data.notes)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("annotations/Run.txt", "video_test_0000073 1.0", "Run.txt, line 1: 'video_test_0000073 1.0' is not"),
        ("annotations/Run.txt", "v_1 1.0 2.0", "Run.txt, line 1: 'v_1 1.0 2.0' is not 'video_validation_"),
        ("annotations/Run.txt", "video_test_0000073 1.0 x", "Run.txt, line 1: time: 'x' is not a number"),
        ("annotations/Swim.txt", "video_test_0000073 1.0 2.0", "Swim.txt: this class is not in class_list"),
        ("class_list.txt", "1 Run\nSwim", "class_list.txt, line 2: 'Swim' is not 'number name'"),
    ],
)
def test_damaged_texts_of_multithumos(tmp_path, file, text, message):
    thumos14(tmp_path)
    multithumos_texts(tmp_path, **{file: text})
    with pytest.raises(TalError, match=message):
        load_benchmark("multithumos", tmp_path)


@pytest.mark.parametrize(("name", "first"), [("multithumos", 1), ("charades", 0)])
def test_lists_of_actions(tmp_path, name, first):
    """The JSON of piergiaj/super-events-cvpr18, which dense-labelling studies share."""
    place = tmp_path / name
    place.mkdir()
    database = {
        "a": {"subset": "training", "duration": 9.0, "actions": [[first, 1.0, 2.5], [first + 2, 3, 4]]},
        "b": {"subset": "testing", "duration": 9.0, "actions": [[first, 0.5, 8]]},
    }
    path = place / f"{name}.json"
    path.write_text(json.dumps(database))
    data = load_benchmark(name, tmp_path)
    labels = ("class_01", "class_03") if first else ("c000", "c002")
    assert data.classes == labels and data.duration("a") == 9.0
    assert data.annotations("test").values.tolist() == [["b", 0.5, 8.0, labels[0]]]
    assert "labels are the classes' numbers" in str(data.notes)
    (place / "class_list.txt").write_text(f"{first} Walk\n{first + 2} Sit\n")
    assert load_benchmark(name, tmp_path).classes == ("Sit", "Walk")
    for part, message in (
        ({"actions": [[first + 1, 1.0, 2.0]]}, f"json, a: actions: there is no class {first + 1}"),
        ({"actions": [[first, 1.0]]}, "json, a: actions"),
        ({"subset": "x"}, "json, a: subset: 'x' is neither training nor testing"),
    ):
        path.write_text(json.dumps(database | {"a": database["a"] | part}))
        with pytest.raises(TalError, match=message):
            load_benchmark(name, tmp_path)
