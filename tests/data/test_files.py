"""Annotation and feature files in the field's forms, whole and broken."""

import gzip
import json

import h5py
import numpy as np
import pytest
import torch

from tal_lib import TalError
from tal_lib.data import check_benchmark, load_benchmark, read_annotations, write_annotations
from tal_lib.data.features import read_feature_file, resize


def test_real_thumos14(real_data):
    content = read_annotations(real_data("thumos14/thumos14.json"), repair=True)
    assert (
        len(content.recordings) == 412
        and len(content.segments) == 6365
        and content.segments.label.nunique() == 20
    )
    data = load_benchmark("thumos14")
    assert (
        len(data.recordings("train")) == 200
        and len(data.recordings("test")) == 212
        and len(data.annotations()) == 6365
    )
    assert data.time_axis(data.recordings("test")[0]) == pytest.approx((4 / 30, 16 / 30), rel=0.3)


def test_real_activitynet(real_data):
    real_data("activitynet/activitynet_v1-3_valid_tsp_groundtruth.csv.gz")
    data = load_benchmark("activitynet")
    assert (
        len(data.recordings("test")) == 4926
        and len(data.recordings("train")) == 10_024
        and len(data.classes) == 200
    )
    recording = data.recordings("test")[0]
    assert data.time_axis(recording)[0] * 192 == pytest.approx(data.duration(recording))


def entry(**changes):
    return {
        "subset": "Validation",
        "duration": 10.0,
        "fps": 25.0,
        "annotations": [{"label": "x", "segment": [1, 4]}],
    } | changes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"database": {"r1": {', "not valid JSON"),
        ("[1, 2]", "unexpected JSON structure"),
        ('{"results": {}}', "no 'database'"),
        (json.dumps({"database": {"r1": {"subset": "test"}}}), "recording r1.*duration"),
        (json.dumps({"database": {"r1": entry(subset="holdout")}}), "recording r1.*unknown subset"),
        (json.dumps({"database": {"r1": entry(duration=-1)}}), "recording r1.*duration"),
        (
            json.dumps({"database": {"r1": entry(annotations=[{"label": "x", "segment": [1]}])}}),
            "recording r1",
        ),
        (
            json.dumps({"database": {"r1": entry(annotations=[{"label": "x", "segment": [4, 1]}])}}),
            "recording r1.*ends before",
        ),
        (
            json.dumps({"database": {"r1": entry(annotations=[{"label": "x", "segment": [4, 11]}])}}),
            "recording r1.*beyond",
        ),
        (
            json.dumps(
                {"database": {"r1": entry(annotations=[{"label": "x", "segment": [float("nan"), 2]}])}}
            ),
            "r1.*not finite",
        ),
        ('{"database": {"r1": %s, "r1": %s}}' % ((json.dumps(entry()),) * 2), "'r1' is listed twice"),
        ("a,b\n1,2\n", "columns missing"),
    ],
)
def test_broken_annotations_are_named(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(TalError, match=message) as error:
        read_annotations(path)
    assert str(path) in str(error.value)


def test_broken_gzip_and_missing_file(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    for name in ("a.csv.gz", "none.json"):
        with pytest.raises(TalError, match=name):
            read_annotations(tmp_path / name)


def test_annotations_round_trip(tmp_path, small):
    import pandas as pd

    table = pd.DataFrame(
        {
            "recording": small.recordings(),
            "split": ["train"] * 8 + ["test"] * 4,
            "duration": [small.duration(r) for r in small.recordings()],
        }
    )
    content = read_annotations(write_annotations(tmp_path / "a.json", table, small.annotations()))
    pd.testing.assert_frame_equal(content.segments, small.annotations(), check_dtype=False)
    assert content.recordings.split.tolist() == table.split.tolist()


WRITERS = {
    ".npy": lambda path, x: np.save(path, x),
    ".npz": lambda path, x: np.savez(path, feats=x, other=1),
    ".pt": lambda path, x: torch.save(torch.from_numpy(x), path),
    ".csv": lambda path, x: np.savetxt(path, x, delimiter=","),
    ".h5": lambda path, x: h5py.File(path, "w").create_dataset("only", data=x).file.close(),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("turned", [False, True])
def test_every_kind_of_feature_file(tmp_path, suffix, turned):
    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    WRITERS[suffix](tmp_path / f"r{suffix}", np.ascontiguousarray(x.T) if turned else x)
    np.testing.assert_allclose(read_feature_file(tmp_path / f"r{suffix}", 4), x, rtol=1e-6)


@pytest.mark.parametrize("suffix", [*WRITERS, ".xyz"])
def test_broken_feature_files_are_named(tmp_path, suffix):
    path = tmp_path / f"rec1{suffix}"
    with pytest.raises(TalError, match="rec1.*not found"):
        read_feature_file(path, 4)
    path.write_bytes(b"\x00not a feature file")
    with pytest.raises(TalError, match="rec1"):
        read_feature_file(path, 4)
    if suffix in WRITERS and suffix != ".csv":
        WRITERS[suffix](path, np.zeros((50, 4), dtype=np.float32))
        path.write_bytes(path.read_bytes()[:-150])
        with pytest.raises(TalError, match="rec1"):
            read_feature_file(path, 4)


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save(Bomb(), tmp_path / "r.pt")
    np.save(tmp_path / "r.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "exploded").unlink(missing_ok=True)
    for name in ("r.pt", "r.npy"):
        with pytest.raises(TalError):
            read_feature_file(tmp_path / name, 4)
    assert not (tmp_path / "exploded").exists()


def test_resize_keeps_lines_straight():
    line = np.linspace(0.5, 9.5, 10)[:, None]  # value = time at the step's centre
    np.testing.assert_allclose(resize(line, 5)[:, 0], [1, 3, 5, 7, 9])
    assert resize(line[:1], 4).shape == (4, 1)


def folder_of(tmp_path, count=3):
    folder = tmp_path / "thumos14" / "features"
    folder.mkdir(parents=True)
    database = {f"v{i}": entry(subset="Test" if i else "Validation", duration=20.0) for i in range(count)}
    (tmp_path / "thumos14" / "thumos14.json").write_text(json.dumps({"database": database}))
    (folder / "spec.json").write_text(
        json.dumps({"streams": {"rgb": 3, "flow": 2}, "stride_frames": 4, "window_frames": 16})
    )
    for i in range(count):
        np.save(folder / f"v{i}.npy", np.zeros((120, 5), dtype=np.float32))
    return folder


def test_user_features_and_check(tmp_path):
    folder = folder_of(tmp_path)
    data = load_benchmark("thumos14", tmp_path)
    assert data.features("v1").shape == (120, 5) and data.time_axis("v1") == (4 / 25, 16 / 25)
    assert check_benchmark("thumos14", tmp_path).empty
    (folder / "v1.npy").unlink()
    np.save(folder / "v2.npy", np.full((120, 5), np.nan))
    problems = check_benchmark("thumos14", tmp_path)
    assert problems.recording.tolist() == ["v1", "v2"] and problems.kind.tolist() == ["missing", "broken"]
    np.save(folder / "v2.npy", np.zeros((30, 5)))
    assert check_benchmark("thumos14", tmp_path).kind.tolist() == ["missing", "suspect"]


def test_streams_in_folders_of_their_own(tmp_path):
    folder = folder_of(tmp_path, 1)
    for stream, width, steps in (("rgb", 3, 120), ("flow", 2, 119)):
        (folder / stream).mkdir()
        np.save(folder / stream / "v0.npy", np.ones((width, steps)))
    assert load_benchmark("thumos14", tmp_path).features("v0").shape == (119, 5)


def test_no_features_says_where_they_belong(tmp_path):
    folder = folder_of(tmp_path, 1)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(TalError, match="recording v0.*tal data check thumos14"):
        load_benchmark("thumos14", tmp_path).features("v0")
