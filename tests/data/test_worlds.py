"""Benchmarks as their owners publish them: the real files where they are at hand, and small files in the same
layout."""

import functools
import json
import zipfile

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import hapt, hapt_recomposed, limited_subset, load_benchmark, salads, sfinge3d, urfall
from tal_lib.data.registry import BENCHMARKS

REAL = {
    "sfinge3d": "sfinge3d/sfinge3d.zip",
    "sfinge3d_dictionary": "sfinge3d/sfinge3d.zip",
    "50salads": "50salads/features.npz",
    "urfall": "urfall/urfall.zip",
    "hapt": "hapt/hapt.zip",
    "hapt_recomposed": "hapt/hapt.zip",
    "hapt_recomposed_2": "hapt/hapt.zip",
    "hapt_recomposed_3": "hapt/hapt.zip",
    "hapt_recomposed_6": "hapt/hapt.zip",
    "hapt_recomposed_test": "hapt/hapt.zip",
}
HASHES = {  # results on these data carry them
    "sfinge3d": "489870a19bb501b8",
    "sfinge3d_dictionary": "20bd5bcc4a7ab625",
    "50salads": "831225a31980acb6",
    "urfall": "a510a09596a5caaf",
    "hapt_recomposed": "f14efa9e71060a0d",
    "hapt_recomposed_2": "0f5f4022f1765ab1",
    "hapt_recomposed_3": "2d3c0a9f0710b3ec",
    "hapt_recomposed_6": "f256414ad541e4da",
    "hapt_recomposed_test": "59d2dee3de72154e",
}


loaded = functools.cache(load_benchmark)


def minutes(data, *splits):
    return sum(data.duration(name) for split in splits or (None,) for name in data.recordings(split)) / 60


@pytest.mark.parametrize("name", REAL)
def test_counts_are_those_of_the_list_and_hashes_stay(name, real_data):
    real_data(REAL[name])
    data = loaded(name)
    assert (len(data.recordings()), len(data.classes), len(data.annotations())) == BENCHMARKS[name].counts
    if name in HASHES:
        assert data.data_hash == HASHES[name]
    for recording in data.recordings()[:: max(1, len(data.recordings()) // 5)]:
        stride_s, window_s = data.time_axis(recording)
        covered = (len(data.features(recording)) - 1) * stride_s + window_s
        assert (
            data.duration(recording) - 2.1 * max(stride_s, window_s)
            < covered
            <= data.duration(recording) + 0.2
        )


def test_sfinge3d_as_published(real_data):
    real_data("sfinge3d/sfinge3d.zip")
    data = loaded("sfinge3d")
    assert round(60 * sfinge3d.RATE_HZ * minutes(data)) == 27_501
    segments = data.annotations()
    counts = segments.label.value_counts()
    assert counts.min() == 15 and counts.max() == 27 and len(counts) == 13
    lengths = segments.end - segments.start
    assert lengths.median() == pytest.approx(2.1) and round(lengths.sum() / minutes(data) / 60, 2) == 0.44
    assert sorted(remark.recording for remark in data.notes) == ["seq_29", "seq_31"]
    first = data.annotations_of(["seq_01"]).iloc[0]
    assert (first.label, first.start, first.end) == ("expand", 2.5, 4.65)  # class 8, frames 51 to 93
    assert [len(fold) for fold in data.folds] == [15, 15, 14, 14, 14]
    dictionary = loaded("sfinge3d_dictionary")
    assert len(dictionary.annotations("train")) == 468 and len(dictionary.recordings("test")) == 72
    with pytest.raises(TalError, match="fold 0 does not exist.*has no folds"):
        dictionary.fold(0)


def test_50salads_as_published(real_data):
    real_data("50salads/features.npz")
    data = loaded("50salads")
    assert round(60 * minutes(data)) == 16_596 and len(data.people) == 25
    lengths = data.annotations().eval("end - start")
    assert round(lengths.median(), 1) == 12.4 and round(lengths.sum() / minutes(data) / 60, 2) == 0.97
    assert [len(fold) for fold in data.folds] == [5] * 5
    assert {name[4:6] for name in data.fold(0).recordings("test")} == {"03", "06", "14", "19", "22"}
    with pytest.raises(TalError, match="fraction 0.1: The features are scores.*Give fraction 1"):
        limited_subset(data, 0.1, 0)
    assert len(limited_subset(data, 1.0, 0)) == 40


def test_urfall_as_published(real_data):
    real_data("urfall/urfall.zip")
    data = loaded("urfall")
    assert round(30 * 60 * minutes(data)) == 11_547
    segments = data.annotations()
    assert segments.label.value_counts().to_dict() == {"transition": 51, "lying": 46}
    assert len(set(data.recordings()) - set(segments.recording)) == 24 and len(data.notes) == 3
    for number in range(5):
        tested = data.fold(number).recordings("test")
        assert sum(name.startswith("fall") for name in tested) == 6 and len(tested) == 14


def test_the_recomposed_recordings_have_the_same_pieces(real_data):
    real_data("hapt/hapt.zip")
    original, data = loaded("hapt"), loaded("hapt_recomposed")
    assert minutes(data) == pytest.approx(minutes(original)) and data.people == original.people
    lengths = [
        sorted(round(length, 4) for length in part.annotations().eval("end - start"))
        for part in (original, data)
    ]
    assert lengths[0] == lengths[1]
    assert {data.group(name) for name in data.recordings("test")} == {
        original.group(name) for name in original.recordings("test")
    }
    mixed = loaded("hapt_recomposed_test")
    assert mixed.recordings("train") == original.recordings("train")
    assert mixed.annotations("train").equals(original.annotations("train"))
    assert mixed.recordings("test") == data.recordings("test")
    assert mixed.folds == original.folds
    for count in hapt_recomposed.CLASS_COUNTS:
        few = loaded(f"hapt_recomposed_{count}")
        assert (few.annotations("test").groupby("recording").label.nunique() == count).all()
        assert few.annotations("train").equals(data.annotations("train"))


# ---- small files in the same layouts ----


def sfinge_archive(path, *, truth="1,2,1,11,20,13,31,41\n2,0\n", frames=40, gesture_rows=12, drop=""):
    rng = np.random.default_rng(0)
    rows = lambda count, separator, end="": "".join(
        separator.join(f"{value:.5g}" for value in row) + end + "\n"
        for row in rng.standard_normal((count, 140))
    )
    files = {"Sequences/sequencesGT.csv": truth}
    files |= {f"Sequences/{number}.txt": rows(frames, ",") for number in (1, 2, 3, 4, 5)}
    files |= {
        f"Dictionary/{label}/{n}.txt": rows(gesture_rows, ";", ";") for label in range(1, 14) for n in (1, 2)
    }
    return packed(path, files, drop, "DatasetV1-main/")


def packed(path, files, drop="", folder=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            if name != drop:
                archive.writestr(folder + name, text)
    return path


def test_frames_count_from_one_with_their_ends(tmp_path):
    sfinge_archive(tmp_path / "sfinge3d" / "sfinge3d.zip")
    data = sfinge3d.load(tmp_path)
    rows = data.annotations()[["start", "end", "label"]].to_numpy().tolist()
    assert rows == [[0.5, 1.0, "one"], [1.5, 2.0, "swipe_O"]]  # the end at frame 41 of 40 is clipped
    assert str(data.notes[0]) == "seq_01: last frame 41 of 40 is clipped"
    dictionary = sfinge3d.load_dictionary(tmp_path)
    assert len(dictionary.recordings("train")) == 26
    cut = dictionary.annotations_of(["cut_13_02"]).iloc[0]
    assert (cut.start, cut.end, cut.label) == (0.0, 0.6, "swipe_O")
    sfinge_archive(tmp_path / "sfinge3d" / "sfinge3d.zip", truth="1,1,2,21,30\n2,0\n")  # read anew
    rows = sfinge3d.load(tmp_path).annotations()[["start", "end", "label"]].to_numpy().tolist()
    assert rows == [[1.0, 1.5, "two"]]


def test_hand_features_forget_where_the_hand_is():
    frames = np.random.default_rng(1).standard_normal((30, 20, 7))
    shifted = frames.copy()
    shifted[:, :, :3] += [5.0, -2.0, 1.0]  # the tracker stands elsewhere
    shifted[:, 0, 3:] *= -1  # the same orientation
    features = sfinge3d.hand_features(frames.reshape(30, 140))
    assert features.shape == (14, 121)
    np.testing.assert_allclose(features, sfinge3d.hand_features(shifted.reshape(30, 140)), atol=1e-4)
    assert sfinge3d.hand_features(frames[:1].reshape(1, 140)).shape == (1, 121)


def test_velocities_are_metres_per_second():
    frames = np.zeros((20, 20, 7))
    frames[:, :, 0] = 0.1 * np.arange(20)[:, None]  # the hand moves by 0.1 m a frame, 20 frames a second
    motion = sfinge3d.hand_features(frames.reshape(20, 140))[:, sfinge3d.POSE :]
    np.testing.assert_allclose(motion[:, 0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(motion[:, 1:], 0.0, atol=1e-6)


def urfall_archive(path, *, falls=None, drop=""):
    rows = lambda name, labels: "".join(
        f"{name},{frame},{label},1,2,3,4,5,6,7,{frame}\n" for frame, label in enumerate(labels, 5)
    )
    falls = rows("fall-01", [-1, -1, 0, 0, 0, 1, 1]) if falls is None else falls
    files = {
        "urfall-cam0-falls.csv": falls,
        "urfall-cam0-adls.csv": "".join(rows(f"adl-{number:02d}", [-1] * 9) for number in range(1, 7)),
    }
    return packed(path, files, drop)


def test_runs_of_labels_are_segments_and_skipped_frames_are_filled(tmp_path):
    urfall_archive(tmp_path / "urfall" / "urfall.zip")
    data = urfall.load(tmp_path)
    rows = data.annotations()[["start", "end"]].to_numpy() * 30
    assert rows.round(6).tolist() == [[2, 5], [5, 7]]
    assert data.annotations().label.to_list() == ["transition", "lying"]
    skipped = "fall-01,1,0,1,2,3,4,5,6,7,10\nfall-01,4,-1,1,2,3,4,5,6,7,40\n"
    urfall_archive(tmp_path / "other" / "urfall" / "urfall.zip", falls=skipped)
    other = urfall.load(tmp_path / "other")
    assert len(other.features("fall-01")) == 4 and "2 skipped frames" in str(other.notes[0])
    assert other.annotations().end.to_list() == pytest.approx([3 / 30])
    column = other.features("fall-01")[:, -1]
    np.testing.assert_allclose(np.diff(column), np.diff(column)[0], rtol=1e-4)


ARCHIVES = {
    "no truth": (
        sfinge_archive,
        sfinge3d,
        {"drop": "Sequences/sequencesGT.csv"},
        "sequencesGT.csv is missing",
    ),
    "no sequence": (sfinge_archive, sfinge3d, {"truth": "9,1,1,2,3\n"}, "Sequences/9.txt is missing"),
    "odd truth": (sfinge_archive, sfinge3d, {"truth": "1,2,1,11,20\n"}, "line '1,2,1,11,20' does not list"),
    "class 14": (sfinge_archive, sfinge3d, {"truth": "1,1,14,11,20\n"}, "line '1,1,14,11,20' does not list"),
    "words": (sfinge_archive, sfinge3d, {"truth": "one,two\n"}, "line 'one,two' does not list"),
    "reversed": (sfinge_archive, sfinge3d, {"truth": "1,1,1,20,11\n"}, "seq_01.*ends before"),
    "no falls": (urfall_archive, urfall, {"drop": "urfall-cam0-falls.csv"}, "falls.csv is missing"),
    "label 2": (urfall_archive, urfall, {"falls": "fall-01,1,2,1,2,3,4,5,6,7,8\n"}, "a label other than -1"),
    "text": (urfall_archive, urfall, {"falls": "fall-01,1,x,1,2,3,4,5,6,7,8\n"}, "falls.csv cannot be read"),
    "short": (urfall_archive, urfall, {"falls": "fall-01,1,0,1,2\n"}, "falls.csv has missing values"),
    "infinite": (urfall_archive, urfall, {"falls": "fall-01,1,0,1,2,3,4,5,6,7,inf\n"}, "not finite"),
    "twice": (
        urfall_archive,
        urfall,
        {"falls": 2 * "fall-01,1,0,1,2,3,4,5,6,7,8\n"},
        "frame 1 appears twice",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_broken_archives_are_named(tmp_path, case):
    make, module, changes, message = ARCHIVES[case]
    make(tmp_path / module.SOURCE.file, **changes)
    with pytest.raises(TalError, match=message) as error:
        module.load(tmp_path)
    assert module.SOURCE.file in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "sfinge3d",
            sfinge_archive,
            "5 recordings, 2 segments and 26 cut gestures, expected 72, 278 and 468",
        ),
        ("urfall", urfall_archive, "7 recordings and 2 segments, expected 70 and 97"),
        ("50salads", urfall_archive, "annotations.json is missing"),
        ("50salads", lambda path: path.write_text("x"), "not a zip archive"),
        ("urfall", lambda path: path.write_text("x"), "not a zip archive"),
    ],
)
def test_other_data_are_not_taken(tmp_path, capsys, name, make, message):
    make(tmp_path / "given.zip")
    root = tmp_path / "root"
    command = ["data", "fetch", name, "--root", str(root), "--from", str(tmp_path / "given.zip")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tal: {tmp_path / 'given.zip'}: {message}") and error.count("\n") == 1
    assert not list(root.glob("*/*.zip")) and not list(root.glob("*/*.npz"))


def test_the_same_counts_with_other_numbers_are_not_taken(tmp_path, real_data):
    source, changed = real_data("urfall/urfall.zip"), {}
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            changed[name] = archive.read(name).decode().replace("3.1667", "3.1668")
    packed(tmp_path / "changed.zip", changed)
    with pytest.raises(TalError, match="changed.zip: its contents have the hash .*expected a510a09596a5caaf"):
        BENCHMARKS["urfall"].fetch(tmp_path / "root", tmp_path / "changed.zip")


def test_fetch_prints_the_licence(tmp_path, capsys, real_data):
    source = real_data("urfall/urfall.zip")
    assert main(["data", "fetch", "urfall", "--root", str(tmp_path), "--from", str(source)]) == 0
    assert "licence: CC BY-NC-SA 4.0" in capsys.readouterr().out
    assert main(["data", "fetch", "urfall", "--root", str(tmp_path)]) == 0  # it is there: checked only


def test_several_files_are_downloaded_into_one_archive(tmp_path, real_data, monkeypatch):
    """The two files of urfall, from addresses that a test can answer."""
    with zipfile.ZipFile(real_data("urfall/urfall.zip")) as archive:
        archive.extractall(tmp_path / "site")
    source = BENCHMARKS["urfall"].fetch.args[0]
    local = tuple((tmp_path / "site" / name).as_uri() for name in urfall.FILES)
    monkeypatch.setitem(source.__dict__, "urls", local)
    assert BENCHMARKS["urfall"].fetch(tmp_path / "root", None) == tmp_path / "root" / "urfall" / "urfall.zip"
    monkeypatch.setitem(source.__dict__, "urls", (local[0], (tmp_path / "none.csv").as_uri()))
    with pytest.raises(TalError, match="none.csv: download failed.*--from FILE"):
        BENCHMARKS["urfall"].fetch(tmp_path / "again", None)
    assert not list((tmp_path / "again" / "urfall").iterdir())


def test_what_cannot_be_downloaded_says_where_it_is(capsys, tmp_path):
    assert main(["data", "fetch", "50salads", "--root", str(tmp_path)]) == 2
    assert "cannot be downloaded" in capsys.readouterr().err
    assert main(["data", "fetch", "thumos14"]) == 2
    assert "Choose from hapt, sfinge3d, 50salads, urfall" in capsys.readouterr().err


def salads_folder(root, *, entries=None, width=28, steps=30):
    folder = root / "50salads"
    folder.mkdir(parents=True)
    database = {
        f"rgb-{person:02d}-{take}": {
            "duration": float(steps),
            "annotations": [{"label": "cut", "segment": [2, 9.5]}],
            "fold": (person - 1) // 2 + 1,
            "person": person,
        }
        for person in (1, 2, 3, 4)
        for take in (1, 2)
    } | (entries or {})
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    arrays = {name: np.ones((steps, width), np.float32) for name in database if name != "rgb-nobody"}
    np.savez(folder / "features.npz", **arrays)
    return root


def test_folds_of_salads_are_the_official_ones(tmp_path):
    data = salads.load(salads_folder(tmp_path))
    assert data.people == ("01", "02", "03", "04") and data.folds == (("01", "02"), ("03", "04"))
    assert data.recordings("test") == ["rgb-01-1", "rgb-01-2", "rgb-02-1", "rgb-02-2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 27}, r"features.npz: rgb-\d\d-\d is not an array \(T, 28\)"),
        (
            {"entries": {"rgb-nobody": {"duration": 1, "annotations": [], "fold": 1, "person": 9}}},
            "no features of",
        ),
        ({"entries": {"rgb-01-1": {"duration": 1, "annotations": []}}}, "rgb-01-1.*fold.* is missing"),
        (
            {"entries": {"rgb-01-1": {"duration": 30, "annotations": [], "fold": 2, "person": 1}}},
            "every person in exactly one",
        ),
    ],
)
def test_broken_salads_are_named(tmp_path, changes, message):
    with pytest.raises(TalError, match=message):
        salads.load(salads_folder(tmp_path, **changes))


def i3d_folder(root, frames=300, rows=300):
    folder = root / "50salads"
    for part in ("groundTruth", "features", "splits"):
        (folder / part).mkdir(parents=True)
    names = [f"rgb-{person:02d}-1" for person in (1, 2, 3)]
    text = "\n".join(["action_start"] * 30 + ["cut"] * 60 + ["peel"] * 90 + ["action_end"] * (frames - 180))
    for number, name in enumerate(names, 1):
        (folder / "groundTruth" / f"{name}.txt").write_text(text + "\n")
        np.save(folder / "features" / f"{name}.npy", np.tile(np.arange(rows, dtype=np.float32), (2048, 1)))
        (folder / "splits" / f"test.split{number}.bundle").write_text(f"{name}.txt\n")
    return root


def test_i3d_features_have_15_steps_a_second(tmp_path):
    data = salads.load_i3d(i3d_folder(tmp_path))
    assert data.annotations()[["start", "end", "label"]].to_numpy().tolist()[:2] == [
        [1.0, 3.0, "cut"],
        [3.0, 6.0, "peel"],
    ]
    x = data.features("rgb-01-1")
    assert x.shape == (150, 2048) and x[:3, 0].tolist() == [0, 2, 4]  # a row per frame: every second one
    half = salads.load_i3d(i3d_folder(tmp_path / "half", rows=150))
    assert half.features("rgb-01-1")[:3, 0].tolist() == [0, 1, 2]
    assert data.folds == (("01",), ("02",), ("03",)) and data.classes == ("cut", "peel")
    with pytest.raises(TalError, match="600 rows for 300 frame labels"):
        salads.load_i3d(i3d_folder(tmp_path / "odd", rows=600)).features("rgb-01-1")


def test_pieces_are_cut_between_segments_only():
    import pandas as pd

    rng = np.random.default_rng(3)
    signal = np.arange(1000.0)[:, None].repeat(6, 1)
    segments = pd.DataFrame(
        {"recording": "a", "start": [1.0, 5.0, 8.0], "end": [3.0, 8.0, 12.0], "label": ["x", "y", "z"]}
    )
    parts = hapt_recomposed.pieces_of(signal, segments, rng)
    assert [list(segments.label[part.rows]) for part in parts] == [["x"], ["y"], ["z"]]
    assert np.array_equal(np.concatenate([part.signal for part in parts]), signal)
    first, second = (len(part.signal) / hapt.RATE_HZ for part in parts[:2])
    assert 3 <= first <= 5 and first + second == 8  # in the gap; where two touch, at their boundary
    for part in parts:  # the signal under a segment is the same as before
        before = segments.loc[part.rows[0]]
        assert part.signal[round(part.start[0] * 50), 0] == round(before.start * 50)
        assert part.end - part.start == pytest.approx(before.end - before.start)
