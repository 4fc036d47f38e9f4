"""Folders of features and annotations as people have them, and a cache of their own."""

import json

import numpy as np
import pytest

SPEC = {"streams": {"features": 8}, "stride_s": 0.5, "window_s": 1.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test writes to the user's cache, nor knows the folders of another test."""
    monkeypatch.setenv("TAL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("TAL_FOLDERS", raising=False)


@pytest.fixture
def clips(tmp_path):
    """Makes `tmp_path/clips`: recordings of 60 s with three actions each, features in which they are easy to see."""

    def make(
        train=6,
        test=2,
        *,
        name="clips",
        stride_s=0.5,
        window_s=1.0,
        spec=SPEC,
        names=("training", "testing"),
        file="{}.npy",
        rows=60.0,
        **entry,
    ):
        folder = tmp_path / name
        (folder / "features").mkdir(parents=True)
        rng, database = np.random.default_rng(0), {}
        for number in range(train + test):
            steps = int((rows - window_s) / stride_s) + 1
            centres = np.arange(steps) * stride_s + window_s / 2
            x, segments = rng.standard_normal((steps, 8)).astype(np.float32), []
            for start, label in ((5.0, "wave hand"), (25.0, "jump"), (45.0, "wave hand")):
                start += round(float(rng.uniform(0, 5)), 2)
                end = start + round(float(rng.uniform(3, 6)), 2)
                segments.append({"segment": [start, end], "label": label})
                x[(centres > start) & (centres < end), int(label == "jump")] += 4
            recording = f"clip{number:07d}"
            database[recording] = {
                "subset": names[number >= train],
                "duration": rows,
                "annotations": segments,
                "url": "https://example.org",
            } | entry
            np.save(folder / "features" / file.format(recording), x)
        (folder / "annotations.json").write_text(json.dumps({"version": "1", "database": database}))
        if spec is not None:
            (folder / "features" / "spec.json").write_text(json.dumps(spec))
        return folder

    return make


@pytest.fixture
def change():
    """Changes the `database` of a folder's annotations in place with a function."""

    def apply(folder, edit):
        path = folder / "annotations.json"
        content = json.loads(path.read_text())
        edit(content["database"])
        path.write_text(json.dumps(content))

    return apply
