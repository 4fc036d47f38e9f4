"""Folders of features and annotations as people have them, and a cache of their own."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tal_lib.data.importing import Options, import_files
from tal_lib.files import REPOSITORY


@dataclass(frozen=True)
class Exports:
    """Small files in the forms of annotation tools; `test_importing.py` says where these are documented."""

    place: Path  # for changed copies
    folder = REPOSITORY / "tests" / "data" / "exports"
    durations = {"lab.01": 10.0, "Alioli": 30.0, "mouse": 5.0, "cook_1": 12.0}
    kinds = {
        "lab.eaf": "elan",
        "via.json": "via",
        "boris.csv": "boris",
        "boris_7.tsv": "boris",
        "label_studio.json": "label_studio",
        "label_studio_min.json": "label_studio",
        "cvat.xml": "cvat",
        "cvat_tags.xml": "cvat",
    }

    def options(self, **changes):
        return Options(**{"fps": 30.0, "durations": self.durations} | changes)

    def read(self, *paths, **changes):
        return import_files(paths, self.options(**changes))

    def changed(self, name, *pairs):
        """A copy of a file with some texts replaced."""
        text = (self.folder / name).read_text()
        for before, after in pairs:
            assert before in text
            text = text.replace(before, after)
        path = self.place / name
        path.write_text(text, encoding="utf-8")
        return path

    def edited(self, name, edit):
        """A copy of a JSON file, changed by a function."""
        content = json.loads((self.folder / name).read_text())
        edit(content)
        path = self.place / name
        path.write_text(json.dumps(content))
        return path


@pytest.fixture
def exports(tmp_path):
    return Exports(tmp_path)


SPEC = {"streams": {"features": 8}, "stride_s": 0.5, "window_s": 1.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test writes to the user's cache."""
    monkeypatch.setenv("TAL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def clips(tmp_path):
    """Makes `tmp_path/clips`: recordings of 60 s with three actions each, features in which they are
    easy to see."""

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
