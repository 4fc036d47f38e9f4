"""The real archive where it is at hand, and small archives made here."""

import shutil
import zipfile

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.data import hapt, load_benchmark


@pytest.fixture(scope="module")
def data(real_data):
    real_data("hapt/hapt.zip")
    return load_benchmark("hapt")


def test_the_official_split(data):
    assert len(data.recordings()) == 61 and len(data.annotations()) == 1214 and len(data.classes) == 12
    people = {split: {recording[-2:] for recording in data.recordings(split)} for split in ("train", "test")}
    assert len(people["train"]) == 21 and len(people["test"]) == 9 and not people["train"] & people["test"]
    hours = sum(map(data.duration, data.recordings())) / 3600
    assert 5.0 < hours < 6.5


def test_features_are_standardised_windows(data):
    training = np.concatenate([data.features(recording) for recording in data.recordings("train")])
    assert training.shape[1] == 300
    np.testing.assert_allclose(training.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(training.std(0), 1, atol=1e-3)
    recording = data.recordings("test")[0]
    assert np.array_equal(data.features(recording, "gyro"), data.features(recording)[:, 150:])


def test_validation_never_sees_the_test_people(data):
    validation = load_benchmark("hapt_validation")
    assert set(validation.recordings()) == set(data.recordings("train"))
    people = [{recording[-2:] for recording in validation.recordings(split)} for split in ("train", "test")]
    assert not people[0] & people[1] and len(people[1]) == 6


def test_windows_cover_one_second_every_half():
    signal = np.arange(200 * 6, dtype=np.float32).reshape(200, 6)
    features = hapt.window_features(signal)
    assert features.shape == (7, 300)
    assert np.array_equal(features[2].reshape(6, 50), signal[50:100].T)


def archive(path, labels="1 1 1 10 190\n", rows=200, drop=None):
    files = {
        "RawData/labels.txt": labels,
        "activity_labels.txt": "1 WALKING\n2 SITTING\n",
        "RawData/acc_exp01_user01.txt": "0.1 0.2 0.3\n" * rows,
        "RawData/gyro_exp01_user01.txt": "0.1 0.2 0.3\n" * rows,
        "Train/subject_id_train.txt": "1\n",
        "Test/subject_id_test.txt": "2\n",
    }
    with zipfile.ZipFile(path, "w") as target:
        for name, text in files.items():
            if name != drop:
                target.writestr(f"HAPT/{name}", text)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "RawData/gyro_exp01_user01.txt"}, "gyro_exp01_user01.txt is missing"),
        ({"rows": 100}, "exp01_user01.*beyond"),
        ({"labels": "1 1 1 90 80\n"}, "exp01_user01.*ends before"),
        ({"labels": "1 1 x 1 2\n"}, "labels.txt cannot be read"),
    ],
)
def test_broken_archives_are_named(tmp_path, changes, message):
    (tmp_path / "hapt").mkdir()
    archive(tmp_path / "hapt" / "hapt.zip", **changes)
    with pytest.raises(TalError, match=message) as error:
        hapt.load(tmp_path)
    assert "hapt.zip" in str(error.value)


def test_an_archive_is_parsed_again_after_a_change_alone(tmp_path):
    (tmp_path / "hapt").mkdir()
    archive(tmp_path / "hapt" / "hapt.zip")
    first = hapt.read(tmp_path)
    assert hapt.read(tmp_path) is first and not first.signals["exp01_user01"].flags.writeable
    archive(tmp_path / "hapt" / "hapt.zip", rows=300)
    again = hapt.read(tmp_path)
    assert (len(first.signals["exp01_user01"]), len(again.signals["exp01_user01"])) == (200, 300)
    assert first.hash != again.hash


def test_missing_or_truncated_archive(tmp_path, real_data):
    with pytest.raises(TalError, match="tal data fetch hapt"):
        hapt.load(tmp_path)
    (tmp_path / "cut.zip").write_bytes(archive(tmp_path / "whole.zip").read_bytes()[:-200])
    with pytest.raises(TalError, match="not a zip archive"):
        hapt.fetch(tmp_path, tmp_path / "cut.zip")
    assert not (tmp_path / "hapt" / "hapt.zip").exists()  # nothing half-fetched is left
    assert not list((tmp_path / "hapt").iterdir())


def test_fetch_from_a_file_unwraps_uci(tmp_path, real_data):
    source = real_data("hapt/hapt.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(source, "HAPT Data Set.zip")
    path = hapt.fetch(tmp_path / "root", tmp_path / "outer.zip")
    hapt.check_archive(path)
    shutil.rmtree(tmp_path / "root")


def test_the_data_are_the_same_however_they_are_packed(tmp_path):
    hashes = set()
    for name, compression in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        source = archive(tmp_path / "a.zip")
        (tmp_path / name / "hapt").mkdir(parents=True)
        with (
            zipfile.ZipFile(source) as old,
            zipfile.ZipFile(tmp_path / name / "hapt" / "hapt.zip", "w", compression) as new,
        ):
            for entry in old.namelist():
                new.writestr(f"{name}/{entry}", old.read(entry))
        hashes.add(hapt.load(tmp_path / name).data_hash)
    assert len(hashes) == 1


def test_samples_count_from_one_with_their_ends(tmp_path):
    """Samples 10 to 190 at 50 Hz: the tenth begins at 0.18 s, the 190th ends at 3.8 s."""
    (tmp_path / "hapt").mkdir()
    archive(tmp_path / "hapt" / "hapt.zip", labels="1 1 1 10 190\n1 1 2 191 200\n")
    segments = hapt.load(tmp_path).annotations()
    assert segments[["start", "end"]].to_numpy() == pytest.approx(np.array([[0.18, 3.8], [3.8, 4.0]]))
