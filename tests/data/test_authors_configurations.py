"""The configurations in the authors' clones (`TAL_AUTHORS_CODE`): understood, and as our table says."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tal_lib.data.importing import actionformer, opentad
from tal_lib.data.published import PUBLISHED
from tal_lib.data.spec import SHORTEST_WINDOW
from tal_lib.reading import read_yaml

CLONES = os.environ.get("TAL_AUTHORS_CODE")
NAMES = {
    "charades/features_i3d_pad.py": "charades",
    "ego4d_mq/features_slowfast_train_trunc_test_sw_1024_s16.py": "ego4d_mq",
    "epic_kitchens-100/features_slowfast_noun.py": "epic_kitchens_noun",
    "epic_kitchens-100/features_slowfast_verb.py": "epic_kitchens_verb",
    "fineaction/features_internvideo_pad.py": "fineaction",
    "hacs-1.1.1/features_slowfast_pad.py": "hacs",
    "multithumos/features_i3d_pad.py": "multithumos",
}


@pytest.mark.skipif(not CLONES, reason="TAL_AUTHORS_CODE names no folder with the authors' clones")
@pytest.mark.parametrize("file", NAMES)
def test_the_table_says_what_opentad_says(file):
    config = opentad.parse(Path(CLONES) / "OpenTAD" / "configs" / "_base_" / "datasets" / file)
    entry, part = PUBLISHED[NAMES[file]], config["dataset"]["train"]
    assert tuple(config["evaluation"]["tiou_thresholds"]) == entry.tious
    assert part["feature_stride"] == entry.default.stride_frames and part["sample_stride"] == 1
    assert max(2 * part["offset_frames"], SHORTEST_WINDOW) == entry.default.window_frames
    assert part.get("fps", 30) == entry.default.fps
    splits = {"training": "train", "train": "train", "validation": "validation", "val": "validation"}
    splits["testing"] = "test"
    assert splits[part["subset_name"]] == entry.train
    assert splits[config["dataset"]["test"]["subset_name"]] == entry.test


@pytest.mark.skipif(not CLONES, reason="TAL_AUTHORS_CODE names no folder with the authors' clones")
def test_all_published_configurations_of_actionformer_are_understood(tmp_path):
    """With the annotations and folders of features of the user, here made up."""
    for path in sorted((Path(CLONES) / "actionformer_release" / "configs").glob("*.yaml")):
        config = read_yaml(path)
        subsets = [*config["train_split"], *config["val_split"]]
        rows = {
            f"r{n}": {
                "subset": subset,
                "duration": 9.0,
                "annotations": [{"segment": [1, 2], "label": "x", "label_id": 0}],
            }
            for n, subset in enumerate(subsets)
        }
        annotations = tmp_path / "a.json"
        annotations.write_text(json.dumps({"database": rows}))
        folders = config["dataset"]["feat_folder"]
        places = [tmp_path / str(n) for n in range(len(folders) if isinstance(folders, list) else 1)]
        widths = config["dataset"]["input_dim"]
        if isinstance(widths, int) and len(places) > 1:
            for place, width in zip(places, [widths - 256, 256]):
                place.mkdir(exist_ok=True)
                np.save(place / "r0.npy", np.zeros((3, width), np.float32))
        data = actionformer.read(path, annotations=annotations, features=places)
        assert data.spec.tious and sum(data.spec.streams.values()) == np.sum(config["dataset"]["input_dim"])
