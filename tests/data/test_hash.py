"""What identifies data: the bytes of its features, remembered between processes, never trusted too far."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tal_lib import models
from tal_lib.data import content, load_benchmark, synthetic
from tal_lib.files import REPOSITORY, cache_root
from tal_lib.training import fit, loop, recipe_for, seed_everything


def of(folder):
    return load_benchmark(str(folder)).data_hash


@pytest.fixture
def old(clips, monkeypatch):
    """A folder whose hashes are in the cache, with a count of the files that are read."""
    monkeypatch.setattr(content, "_SETTLED", -1)
    folder, read = clips(), []
    monkeypatch.setattr(
        content, "_sha256", lambda path, plain=content._sha256: (read.append(path), plain(path))[1]
    )
    return folder, read


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hapt", "920c749d83d0dc47"),
        ("hapt_validation", "aa5d9cfab9b8cbdf"),
        ("synthetic", "23d04b9d58b147de"),
        ("thumos14", "80373f4dc261bdf6"),  # without features
        ("activitynet", "d1ee4bb6aec7cdcb"),
    ],
)
def test_committed_results_keep_their_data(name, expected, real_data):
    if name != "synthetic":
        real_data({"hapt": "hapt/hapt.zip"}.get(name.split("_")[0], name))
    assert load_benchmark(name).data_hash == expected


def test_other_bytes_of_the_same_size_are_other_data(old):
    folder, _ = old
    path = folder / "features" / "clip0000003.npy"
    before, about = of(folder), os.stat(path)
    features = np.load(path)
    features[7, 3] += 1
    np.save(path, features)
    os.utime(
        path, ns=(about.st_atime_ns, about.st_mtime_ns)
    )  # as `rsync --times` or `cp --preserve` leaves it
    assert os.stat(path).st_size == about.st_size and os.stat(path).st_mtime_ns == about.st_mtime_ns
    assert of(folder) != before
    features[7, 3] -= 1
    np.save(path, features)
    assert of(folder) == before


def test_names_and_places_of_other_files_do_not_count(old):
    folder, _ = old
    before = of(folder)
    (folder / "features" / "README.md").write_text("made on Tuesday")
    np.save(folder / "features" / "unlisted.npy", np.zeros((3, 8)))
    assert of(folder) == before
    (folder / "features" / "clip0000003.npy").rename(folder / "features" / "v_clip0000003.npy")
    assert of(folder) == before
    (folder / "features" / "v_clip0000003.npy").unlink()
    assert of(folder) != before


def test_streams_exchanged_are_other_data(clips):
    folder = clips(spec={"streams": {"rgb": 8, "flow": 8}, "stride_s": 0.5, "window_s": 1.0})
    for stream, factor in (("rgb", 1), ("flow", 2)):
        (folder / "features" / stream).mkdir()
        for file in folder.glob("features/*.npy"):
            np.save(folder / "features" / stream / file.name, factor * np.load(file))
    before = of(folder)
    (folder / "features" / "rgb").rename(folder / "features" / "x")
    (folder / "features" / "flow").rename(folder / "features" / "rgb")
    (folder / "features" / "x").rename(folder / "features" / "flow")
    assert of(folder) != before


def test_files_are_read_once(old):
    folder, read = old
    before = of(folder)
    assert len(read) == 8 and of(folder) == before and len(read) == 8
    os.utime(folder / "features" / "clip0000000.npy")
    assert of(folder) == before and len(read) == 9


def test_a_file_that_has_just_been_written_is_not_remembered(clips, monkeypatch):
    """Within the resolution of file times it may change again unseen."""
    folder, read = clips(), []
    monkeypatch.setattr(
        content, "_sha256", lambda path, plain=content._sha256: (read.append(path), plain(path))[1]
    )
    assert of(folder) == of(folder) and len(read) == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"clip0000000.npy": 5}',
        '{"clip0000000.npy": [1, 2, 3, 4, "x"]}',
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_cache_costs_time_only(old, text):
    folder, read = old
    before = of(folder)
    (cache,) = (cache_root() / "hashes").iterdir()
    cache.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert of(folder) == before and len(read) == 16
    assert of(folder) == before and len(read) == 16  # it was written anew


def test_a_cache_that_cannot_be_written_costs_time_only(old, tmp_path, monkeypatch):
    folder, _ = old
    before = of(folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TAL_CACHE", str(tmp_path / "file"))
    assert of(folder) == before


def test_processes_share_the_cache(clips):
    folder = clips(20, 2)
    code = (
        "from tal_lib.data import content, load_benchmark; "
        "content._SETTLED = -1; "  # the hashes of new files are remembered too
        f"print(load_benchmark({str(folder)!r}).data_hash)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = [sys.executable, "-c", code]
    processes = [subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate()[0].strip() for process in processes}
    assert told == {of(folder)}
    for cache in (cache_root() / "hashes").iterdir():
        json.loads(cache.read_text())


def test_the_hash_is_found_out_when_it_is_asked_for(old):
    folder, read = old
    data = load_benchmark(str(folder))
    data.features("clip0000000")
    assert not read and data.data_hash == data.data_hash and len(read) == 8


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_training_goes_on_with_the_same_features_only(clips, tmp_path, monkeypatch, changed):
    """Stopped after two of four epochs. With features made anew in the same size it starts afresh."""
    folder, epochs = clips(), []
    clock = iter(range(0, 10**9, 100))

    def train(stop_after=None):
        data = load_benchmark(str(folder))
        seed_everything(0)
        model = models.build("window_cnn", input_dim=8, num_classes=2)

        def after(epoch, seconds, model):
            epochs.append(epoch)
            if epoch == stop_after:
                raise KeyboardInterrupt

        plan = recipe_for("window_cnn", epochs=4, min_steps=1)
        fit(model, data, data.recordings("train"), plan, 0, tmp_path / "out", on_epoch=after)

    with monkeypatch.context() as patched:
        patched.setattr(loop.time, "monotonic", lambda: next(clock))  # so that every epoch is saved
        with pytest.raises(KeyboardInterrupt):
            train(stop_after=3)
    assert epochs == [1, 2, 3] and (tmp_path / "out" / "training.pt").is_file()
    if changed:
        path = folder / "features" / "clip0000003.npy"
        np.save(path, np.load(path) + 1)
    train()
    assert epochs[3:] == ([1, 2, 3, 4] if changed else [3, 4])


def test_generated_data_follow_their_seed():
    default, other = (synthetic.load(synthetic.SyntheticConfig(seed=seed)).data_hash for seed in (0, 1))
    assert default == load_benchmark("synthetic").data_hash != other
