"""The stand-ins of large data sets: the library reads them, they need little disk, their hashes are right."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.data import content, load_benchmark
from tal_lib.files import REPOSITORY

spec = importlib.util.spec_from_file_location(
    "memory_at_scale", REPOSITORY / "experiments" / "memory_at_scale.py"
)
experiment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(experiment)


@pytest.mark.parametrize("name", experiment.STAND_INS)
def test_a_stand_in_is_read_as_its_data_set(name, tmp_path):
    shape = replace(experiment.STAND_INS[name], train=8, test=3, classes=4)
    row = experiment.write_stand_in(name, shape, tmp_path)
    data = load_benchmark(name, tmp_path)
    assert (len(data.recordings("train")), len(data.recordings("test"))) == (8, 3)
    assert len(data.classes) == 4 and len(data.annotations()) == row["segments"]
    assert data.feature_spec.dim == row["columns"] == sum(shape.streams.values())
    assert max(map(data.steps, data.recordings())) == row["longest_steps"]
    assert 4 * row["columns"] * sum(map(data.steps, data.recordings())) / 1e9 == row["features_gb"]
    video = data.recordings("test")[-1]
    features = data.features(video)
    middle = len(features) // 2
    assert features[middle].std() > 0.5 and not np.delete(features, middle, axis=0).any()
    stride_s, window_s = data.time_axis(video)
    assert abs((len(features) - 1) * stride_s + window_s - data.duration(video)) <= stride_s + 1e-6
    again = experiment.write_stand_in(name, shape, tmp_path / "again")
    assert again == row and load_benchmark(name, tmp_path / "again").annotations().equals(data.annotations())


def test_files_are_sparse_and_keep_little_disk(tmp_path):
    experiment.write_sparse(tmp_path / "a.npy", 50_000, 2304)
    about = (tmp_path / "a.npy").stat()
    assert about.st_size > 4 * 50_000 * 2304 and 512 * about.st_blocks < 1e6


def test_hashes_that_are_prepared_are_those_of_the_contents(tmp_path, monkeypatch):
    monkeypatch.setenv("TAL_CACHE", str(tmp_path / "cache"))
    shape = replace(experiment.STAND_INS["ego4d_mq"], train=4, test=2, classes=2, streams={"a": 16, "b": 8})
    experiment.write_stand_in("ego4d_mq", shape, tmp_path / "data")
    experiment.prepare_hashes(tmp_path / "data")
    read = []
    monkeypatch.setattr(
        content, "_sha256", lambda path, hashed=content._sha256: read.append(path) or hashed(path)
    )
    prepared = load_benchmark("ego4d_mq", tmp_path / "data").data_hash
    assert not read  # all were in the cache
    monkeypatch.setenv("TAL_CACHE", str(tmp_path / "other"))
    assert load_benchmark("ego4d_mq", tmp_path / "data").data_hash == prepared and len(read) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="the limit and the fields of /proc are Linux's")
def test_the_limit_holds_and_the_peak_includes_children():
    run = lambda code, limit: experiment.measured([sys.executable, "-c", code], limit, {})
    use = "import time; x = b'1' * 300_000_000; time.sleep(0.5)"
    assert 300e6 < run(use, 10**9)["peak"] < 400e6
    nested = f"{use}; import subprocess, sys; subprocess.run([sys.executable, '-c', {use!r}])"
    assert run(nested, 10**9)["peak"] > 600e6
    with pytest.raises(TalError, match="MemoryError"):
        run(use, 200_000_000)
