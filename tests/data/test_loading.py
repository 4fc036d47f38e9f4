"""Features in memory or read for each crop: the same numbers, for any number of workers, in little memory."""

import json
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.cli import main
from tal_lib.data import (
    Benchmark,
    FeatureSpec,
    Loading,
    features,
    load_benchmark,
    open_set,
    shuffled_names,
)
from tal_lib.data.augment import Augment
from tal_lib.data.batches import Part, batches, collate, crop, make_item
from tal_lib.data.features import feature_steps, read_feature_file, read_feature_part
from tal_lib.data.inertial import Inertial
from tal_lib.data.loading import COPIES, SHARE, prefetched
from tal_lib.data.standardise import mean_and_std
from tal_lib.files import REPOSITORY
from tal_lib.process.available import available_memory
from tal_lib.process.environment import child_environment
from tal_lib.training import Recipe, detect_all, fit, seed_everything

WAYS = [Loading(in_memory=in_memory, workers=workers) for in_memory in (True, False) for workers in (0, 1, 3)]
IDS = [f"{'memory' if way.in_memory else 'files'}-{way.workers}" for way in WAYS]


def trained(data, way, *, recipe, stream=None):
    """Weights, losses and detections of a short training with features loaded in one way."""
    data.loading = way
    seed_everything(1)
    columns = data.feature_spec.columns(stream)
    model = models.build(
        "actionformer",
        input_dim=columns.stop - columns.start,
        num_classes=len(data.classes),
        width=16,
        head_width=16,
    )
    result = fit(model, data, data.recordings("train"), recipe, 5, stream=stream, device="cpu")
    detections = detect_all(result.model, data, data.recordings("test"), stream=stream, device="cpu")
    return result.model.state_dict(), result.history.drop(columns="seconds"), detections


def assert_same(result, expected):
    for name, value in result[0].items():
        assert torch.equal(value, expected[0][name]), name
    pd.testing.assert_frame_equal(result[1], expected[1], check_exact=True)
    pd.testing.assert_frame_equal(result[2], expected[2], check_exact=True)


RECIPE = Recipe(epochs=2, min_steps=0, max_steps=80, feature_noise=0.1, exchange=0.5, rotate=20.0)


@pytest.fixture
def rotating():
    """Recordings of an inertial sensor, so that every augmentation draws random numbers."""
    rng = np.random.default_rng(0)
    signals = {f"r{n}": rng.standard_normal((100 + 7 * n, 24)).astype(np.float32) for n in range(7)}
    rows = [(name, 10.0 * k, 10.0 * k + 6, "ab"[k % 2]) for name in signals for k in range(1, 5)]
    return Benchmark(
        name="rotating",
        classes=("a", "b"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 12, "two": 12}),
        recordings=pd.DataFrame(
            [(name, "test" if name == "r6" else "train", float(len(x))) for name, x in signals.items()],
            columns=["recording", "split", "duration"],
        ),
        annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
        load_features=signals.__getitem__,
        load_part=lambda name, first, last: signals[name][first:last],
        count_steps=lambda name: len(signals[name]),
        source_hash="0",
        inertial=Inertial(4, np.linspace(-1, 1, 24), np.linspace(0.5, 2, 24)),
    )


@pytest.mark.parametrize("way", WAYS[1:], ids=IDS[1:])
def test_every_way_gives_the_same_bits(rotating, way):
    expected = trained(rotating, WAYS[0], recipe=RECIPE, stream="two")
    rotating._cache.clear()
    assert_same(trained(rotating, way, recipe=RECIPE, stream="two"), expected)
    assert bool(rotating._cache) == way.in_memory


@pytest.mark.parametrize("suffix", ["npy", "npz", "turned"])
def test_files_give_the_same_bits_without_staying_in_memory(clips, suffix):
    folder = clips()
    for path in sorted((folder / "features").glob("*.npy")):
        x = np.load(path)
        if suffix == "npz":
            np.savez(path.with_suffix(".npz"), features=x)
            path.unlink()
        elif suffix == "turned":
            np.save(path, x.T.astype(np.float16))
    recipe = Recipe(epochs=2, min_steps=0, max_steps=64, exchange=0.5)
    expected = trained(load_benchmark(str(folder)), Loading(in_memory=True), recipe=recipe)
    data = load_benchmark(str(folder))
    assert_same(trained(data, Loading(in_memory=False, workers=2), recipe=recipe), expected)
    assert not data._cache


LAYOUTS = {
    "rows": lambda x: x,
    "turned": lambda x: x.T,
    "column-major": np.asfortranarray,
    "turned, column-major": lambda x: np.asfortranarray(x.T),
    "extra axes": lambda x: x[None, :, None],
    "half": lambda x: x.astype(np.float16),
    "big-endian": lambda x: x.astype(">f8"),
    "whole numbers": lambda x: (10 * x).astype(np.int16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", [1, 5, 40])
def test_a_part_of_a_file_equals_the_part_of_the_whole(tmp_path, layout, steps):
    path = tmp_path / "x.npy"
    np.save(path, LAYOUTS[layout](np.random.default_rng(1).standard_normal((steps, 5)).astype(np.float32)))
    whole = read_feature_file(path, 5)
    assert feature_steps(path, 5) == len(whole) == steps
    for first, last in ((0, steps), (0, 1), (steps - 1, steps), (steps // 3, steps // 3 + 3), (0, 99)):
        part = read_feature_part(path, 5, first, last)
        assert part.dtype == np.float32 and np.array_equal(part, whole[first:last])


def test_only_the_part_is_read(tmp_path, monkeypatch):
    """A file of 400 MB that is a hole on the disk; a part of it costs its own bytes."""
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (100_000, 1000)).flush()
    read = []
    monkeypatch.setattr("tal_lib.data.features._fill", lambda file, view: read.append(len(view)))
    monkeypatch.setattr("tal_lib.data.features.check_features", lambda array, **_: array)
    assert read_feature_part(path, 1000, 500, 520).shape == (20, 1000) and read == [20 * 1000 * 4]


BROKEN = {
    "NaN": (lambda path, x: np.save(path, np.where(np.arange(40)[:, None] == 33, np.nan, x)), "at step 33"),
    "width": (lambda path, x: np.save(path, x[:, :3]), r"shape \(40, 3\), expected \(T, 5\)"),
    "text": (lambda path, x: np.save(path, x.astype(str)), "holds <U32 values"),
    "empty": (lambda path, x: np.save(path, x[:0]), "no steps"),
    "cut": (lambda path, x: path.write_bytes(path.read_bytes()[:-9]), "more than the file holds"),
    "no header": (lambda path, x: path.write_bytes(b"abc"), "cannot be read"),
    "missing": (lambda path, x: path.unlink(), "not found"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_part_is_one_error_that_names_the_file(tmp_path, fault):
    path, (edit, message) = tmp_path / "x.npy", BROKEN[fault]
    x = np.ones((40, 5), np.float32)
    np.save(path, x)
    edit(path, x)
    with pytest.raises(TalError, match=message) as error:
        read_feature_part(path, 5, 30, 36)
    assert str(path) in str(error.value)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((4000, 5), np.float32))
    layout = features._npy_layout(path, 5)
    path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(features, "_npy_layout", lambda *_: layout)
    with pytest.raises(TalError, match="ends before its array"):
        read_feature_part(path, 5, 30, 4000)


def test_an_error_of_a_worker_ends_the_training(rotating):
    def broken(name, first, last):
        raise TalError("torn", where=name, remedy="Copy it again.")

    rotating._load_part = broken
    with pytest.raises(TalError, match="torn"):
        trained(rotating, Loading(in_memory=False, workers=3), recipe=RECIPE)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("features")]


def test_work_is_drawn_in_order_and_only_a_little_ahead():
    drawn, caller = [], threading.get_ident()

    def work():
        for number in range(20):
            assert threading.get_ident() == caller
            drawn.append(number)
            yield number

    for threads in (0, 1, 3):
        drawn.clear()
        made = prefetched(work(), lambda number: number**2, threads)
        for number in range(10):
            assert next(made) == number**2 and len(drawn) <= number + 1 + threads
        made.close()
        assert list(prefetched(work(), lambda number: number**2, threads)) == [n**2 for n in range(20)]


def test_a_part_is_cut_before_it_is_read(rotating):
    item = make_item(rotating, "r3", "one", lazy=True)
    whole = make_item(rotating, "r3", "one").features
    assert item.features.shape == tuple(whole.shape)
    for key in (slice(5, 30), slice(90, 400), slice(20, 10), slice(None)):
        part = item.features[:, key]
        assert part.shape == tuple(whole[:, key].shape)
        assert part.shape[1] == 0 or torch.equal(part.read(), whole[:, key])
    assert torch.equal(item.features[:, 10:90][:, 5:9].read(), whole[:, 15:19])
    with pytest.raises(TypeError, match="not after a change"):
        item.features.changed(torch.neg)[:, :3]
    drawn = [crop(i, 50, torch.Generator().manual_seed(2)) for i in (item, make_item(rotating, "r3", "one"))]
    assert isinstance(drawn[0].features, Part)
    assert torch.equal(collate(drawn[:1]).features, collate(drawn[1:]).features)


def test_views_of_a_benchmark_are_loaded_as_it_is(rotating):
    rotating.loading = Loading(in_memory=False, workers=1)
    split = open_set(rotating, ["a"], ["b"], keep="stretches")
    for view in (split.train, split.test, shuffled_names(rotating, 1)[0]):
        assert view.loading == rotating.loading and not view.in_memory
        for name in view.recordings():
            whole = view.features(name)
            assert view.steps(name) == len(whole)
            for first, last in ((0, 3), (5, 9), (2, 999)):
                assert np.array_equal(view.part(name, first, last, "one"), whole[first:last, :12])
        assert not view._cache and not rotating._cache


def test_augmentation_does_not_change_the_order_of_draws(rotating):
    """The generator ends in the same state, although features are changed later."""
    states, made = [], []
    for lazy in (False, True):
        generator = torch.Generator().manual_seed(3)
        items = [make_item(rotating, name, lazy=lazy) for name in rotating.recordings("train")]
        augment = Augment(items, rotating.inertial, generator, exchange=0.5, rotate=20)
        made.append(collate([augment(crop(item, 60, generator)) for item in items]).features)
        states.append(generator.get_state())
    assert torch.equal(*states) and torch.equal(*made)


def test_batches_for_a_gpu_are_pinned_by_the_workers(rotating, monkeypatch):
    pinned = []
    pin = lambda tensor: pinned.append(threading.current_thread().name) or tensor
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr("tal_lib.data.batches.Batch.to", lambda batch, device: batch)
    rotating.loading = Loading(in_memory=False, workers=2)
    groups = [[make_item(rotating, name, lazy=True)] for name in rotating.recordings()]
    assert len(list(batches(groups, rotating, "cuda:0"))) == 7
    assert len(pinned) == 14 and all(name.startswith("features") for name in pinned)
    assert len(list(batches(groups, rotating, "cpu"))) == 7 and len(pinned) == 14


def test_auto_compares_the_size_with_the_memory(rotating, monkeypatch):
    assert rotating.feature_bytes == 4 * 24 * sum(100 + 7 * n for n in range(7))
    limit = COPIES * rotating.feature_bytes / SHARE
    for available, kept in ((limit, True), (limit - 1, False), (None, True)):
        monkeypatch.setattr("tal_lib.data.loading.available_memory", lambda size=available: size)
        rotating.loading, rotating._decided = Loading(), None
        assert rotating.in_memory == kept
    assert Loading().threads(True) == 0 and 1 <= Loading().threads(False) <= 4


def test_the_environment_and_the_command_set_it(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAL_IN_MEMORY", "False")
    monkeypatch.setenv("TAL_WORKERS", "3")
    folder = clips()
    assert load_benchmark(str(folder)).loading == Loading(in_memory=False, workers=3)
    command = ["train", "window_cnn", "--benchmark", str(folder), "--set", "epochs=1", "--set", "min_steps=1"]
    assert main([*command, "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "read from their files for each crop by 1 workers" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "other"), "--in-memory", "true"]) == 0
    assert "read from their files" not in capsys.readouterr().err
    written = [(tmp_path / name / "detections.json").read_bytes() for name in ("out", "other")]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [("--workers", value, "auto or a whole number from 0 to 64") for value in ("-1", "2.5", "a", "65")]
    + [("--in-memory", value, "auto, true or false") for value in ("yes", "1")],
)
def test_other_values_are_refused_in_one_line(clips, tmp_path, capsys, monkeypatch, option, value, accepted):
    command = ["train", "window_cnn", "--benchmark", str(clips()), "--out", str(tmp_path / "out")]
    assert main([*command, f"{option}={value}"]) == 2
    line = capsys.readouterr().err
    assert option in line and accepted in line and line.count("\n") == 1 and not (tmp_path / "out").exists()
    monkeypatch.setenv({"--workers": "TAL_WORKERS", "--in-memory": "TAL_IN_MEMORY"}[option], value)
    assert main(command) == 2 and "TAL_" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--workers", "--in-memory"])
def test_an_empty_value_is_refused_in_one_line(clips, tmp_path, capsys, option):
    command = ["train", "window_cnn", "--benchmark", str(clips()), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main([*command, f"{option}="])
    line = capsys.readouterr().err
    assert option in line and "empty" in line and line.count("\n") == 1 and not (tmp_path / "out").exists()


def test_mean_and_deviation_add_in_the_order_of_the_whole():
    rng = np.random.default_rng(0)
    parts = [(3 + rng.standard_normal((n, 7))).astype(np.float32) for n in (1, 1000, 33, 2048)]
    mean, std = mean_and_std(lambda: iter(parts))
    whole = np.concatenate(parts)
    assert np.array_equal(mean, whole.mean(0)) and np.array_equal(std, whole.std(0))


def test_available_memory_is_the_least_of_machine_and_container(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "a" / "b").mkdir(parents=True)
    assert available_memory(proc, groups) is None or available_memory(proc, groups) > 0  # own limit only
    (proc / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    assert available_memory(proc, groups) == 50 * 1024
    (groups / "a" / "memory.max").write_text("20000\n")  # of the group above
    (groups / "a" / "memory.current").write_text("15000\n")
    (groups / "a" / "memory.stat").write_text("anon 5000\ninactive_file 9000\nactive_file 1000\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    assert available_memory(proc, groups) == 20000 - 15000 + 10000
    (groups / "memory").mkdir()  # version 1
    (groups / "memory" / "memory.limit_in_bytes").write_text("9000")
    (groups / "memory" / "memory.usage_in_bytes").write_text("8000")
    assert available_memory(proc, groups) == 1000


MEASURE = """
import json, sys
from tal_lib.cli import main
from tal_lib.process.memory import process_status
def peak_of(in_memory, fraction):
    main(["train", "window_cnn", "--benchmark", sys.argv[1], "--set", "epochs=1", "--set", "min_steps=1",
          "--set", "max_steps=64", "--out", f"{sys.argv[1]}/{in_memory}-{fraction}", "--fraction", fraction,
          "--in-memory", in_memory, "--workers", "2"])
    return process_status("VmHWM")
print(json.dumps([peak_of("false", "0.1"), peak_of("false", "1.0"), peak_of("true", "1.0")]))
"""


def test_a_training_from_files_takes_no_more_memory_for_more_files(tmp_path):
    """Peak memory of a process: with a tenth of the files, with all, then with all in memory.

    The three trainings run in this order because a peak never falls.
    """
    folder, size = tmp_path / "large", 0
    (folder / "features").mkdir(parents=True)
    rng, database = np.random.default_rng(0), {}
    for number in range(50):
        x = rng.standard_normal((1000, 512), np.float32)
        np.save(folder / "features" / f"r{number}.npy", x)
        size += x.nbytes
        database[f"r{number}"] = {
            "subset": "training" if number < 40 else "testing",
            "duration": 1000.0,
            "annotations": [{"segment": [40.0 * k, 40.0 * k + 20], "label": "ab"[k % 2]} for k in range(24)],
        }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "features" / "spec.json").write_text('{"streams": {"features": 512}, "stride_s": 1.0}')
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=child_environment(1, keep_freed=False)
        | {"TAL_CACHE": str(tmp_path / "cache"), "TAL_DEVICE": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    few, from_files, in_memory = json.loads(done.stdout.splitlines()[-1])
    # in memory, files may lie where earlier trainings have freed some: 1.04 times their size was seen
    assert from_files - few < 0.25 * size < 0.9 * size < in_memory - few, (few, from_files, in_memory, size)
    outputs = [(folder / f"{way}-1.0" / "detections.json").read_bytes() for way in ("true", "false")]
    assert outputs[0] == outputs[1]
