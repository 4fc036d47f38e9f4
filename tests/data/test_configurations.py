"""Data sets as configurations of ActionFormer (YAML) and OpenTAD (Python) describe them.

The configurations here have the keys and values of the published ones (`configs/thumos_i3d.yaml`,
`configs/_base_/datasets/*`); `test_authors_configurations.py` reads the published files themselves.
"""

import json

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import load_benchmark, read_annotations
from tal_lib.data.importing import actionformer, opentad
from tal_lib.data.importing.dataset import spec_text, write_folder
from tal_lib.data.spec import SHORTEST_WINDOW, FolderSpec, read_spec

YAML = """
dataset_name: thumos
train_split: ['validation']
val_split: ['test']
dataset: {{
  json_file: ./data/thumos/annotations/thumos14.json,
  feat_folder: {folder},
  file_prefix: {prefix},
  file_ext: .npy,
  num_classes: 2,
  input_dim: {dim},
  feat_stride: 4,
  num_frames: 16,
  default_fps: {fps},
  downsample_rate: {every},
  trunc_thresh: 0.5,
  crop_ratio: [0.9, 1.0],
  max_seq_len: 2304,
  force_upsampling: {resized},
}}
model: {{ fpn_type: identity, max_buffer_len_factor: 6.0, n_mha_win_size: 19 }}
output_folder: ./ckpt/
"""
PYTHON = """
dataset_type = "ThumosPaddingDataset"
annotation_path = "data/thumos/annotations/thumos14.json"
data_path = "data/thumos/i3d_features/"
block_list = data_path + "missing_files.txt"

trunc_len = 2304

dataset = dict(
    train=dict(
        type=dataset_type,
        ann_file=annotation_path,
        subset_name="validation",
        block_list=block_list,
        data_path=data_path,
        filter_gt=False,
        # thumos dataloader setting
        feature_stride=4,
        sample_stride=1,  # 1x4=4
        offset_frames=8,
        pipeline=[
            dict(type="LoadFeats", feat_format="npy", prefix="v_"),
            dict(type="RandomTrunc", trunc_len=trunc_len, trunc_thresh=0.5, crop_ratio=[0.9, 1.0]),
        ],
    ),
    test=dict(
        type=dataset_type,
        ann_file=annotation_path,
        subset_name="test",
        data_path=data_path,
        feature_stride=4,
        offset_frames=8,
        pipeline=[dict(type="LoadFeats", feat_format="npy", prefix="v_")],
    ),
)

evaluation = dict(type="mAP", subset="test", tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7])
"""


@pytest.fixture
def code(tmp_path):
    """A clone with data: four videos of 20 s at 30 frames a second, features of 6 columns every 4 frames."""
    root = tmp_path / "clone"
    (root / "configs" / "_base_").mkdir(parents=True)
    (root / "data" / "thumos" / "annotations").mkdir(parents=True)
    features = root / "data" / "thumos" / "i3d_features"
    features.mkdir()
    rng, database = np.random.default_rng(0), {}
    for number, subset in enumerate(["Validation", "Validation", "Test", "Test", "Background"]):
        name = f"video_{number}"
        labels = [("Diving", 7), ("CliffDiving", 4)]
        database[name] = {
            "subset": subset if subset != "Background" else "training",
            "duration": 20.0,
            "frame": 600,
            "annotations": [
                {"segment": [1.0 + number, 5.0 + number], "label": label, "label_id": k}
                for label, k in labels
            ],
        }
        np.save(features / f"v_{name}.npy", rng.standard_normal((147, 6)).astype(np.float32))
    database["video_0"]["annotations"].append({"segment": [9, 10], "label": "Ambiguous", "label_id": 9})
    (features / "missing_files.txt").write_text("video_3\n")
    path = root / "data" / "thumos" / "annotations" / "thumos14.json"
    path.write_text(json.dumps({"database": database}))
    return root


def yaml(code, **changes):
    values = {"folder": "./data/thumos/i3d_features", "prefix": "v_", "dim": 6, "fps": "~", "every": 1}
    values |= {"resized": "False"} | changes
    path = code / "configs" / "thumos.yaml"
    path.write_text(YAML.format(**values))
    return path


def python(code, *pairs, name="features.py"):
    text = PYTHON
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path = code / "configs" / "_base_" / name
    path.write_text(text)
    return path


def loaded(tmp_path, data):
    write_folder(tmp_path / "mine", data.content, data.spec)
    return load_benchmark(str(tmp_path / "mine"))


def test_actionformer(code, tmp_path):
    data = actionformer.read(yaml(code))
    assert data.spec.stride_frames == 4 and data.spec.window_frames == 16 and data.spec.max_steps == 2304
    benchmark = loaded(tmp_path, data)
    assert benchmark.recordings("train") == ["video_0", "video_1"]
    assert benchmark.recordings("test") == ["video_2", "video_3"]  # the training subset is background there
    assert benchmark.tious == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert benchmark.time_axis("video_0") == pytest.approx((4 / 30, 16 / 30))  # 600 frames in 20 s
    assert benchmark.features("video_0").shape == (147, 6)
    assert len(data.content.segments) == 9 and "1 recordings of subset train are left out" in " ".join(
        map(str, data.remarks)
    )
    ids = read_annotations(tmp_path / "mine" / "annotations.json").label_ids
    assert ids == {4: "CliffDiving", 7: "Diving", 9: "Ambiguous"}


def test_step_centres_are_those_of_the_authors(code, tmp_path):
    """Theirs in steps. ActionFormer: (segments * fps - num_frames / 2) / stride. OpenTAD: (frame - offset) /
    stride."""
    for number, (data, centre) in enumerate(
        [
            (actionformer.read(yaml(code, every=3, fps=25)), lambda t: (12 * t + 0.5 * 16) / 25),
            (opentad.read(python(code)), lambda t: (4 * t + 8) / 30),
            (
                opentad.read(python(code, ("sample_stride=1", "sample_stride=5"), ("frames=8", "frames=0"))),
                lambda t: 20 * t / 30,
            ),
        ]
    ):
        write_folder(tmp_path / f"set{number}", data.content, data.spec)
        benchmark = load_benchmark(str(tmp_path / f"set{number}"))
        stride_s, window_s = benchmark.time_axis("video_1")
        steps = np.arange(10)
        assert steps * stride_s + window_s / 2 == pytest.approx(centre(steps), abs=SHORTEST_WINDOW / 25)
        raw = np.load(code / "data" / "thumos" / "i3d_features" / "v_video_1.npy")
        assert (benchmark.features("video_1") == raw[:: data.spec.every]).all()


def test_several_feature_folders_and_resizing(code, tmp_path):
    other = code / "data" / "thumos" / "other"
    other.mkdir()
    for number in range(5):
        np.save(other / f"v_video_{number}.npy", np.full((140, 2), number, np.float32))
    path = yaml(code, folder="[./data/thumos/i3d_features, ./data/thumos/other]", dim="[6, 2]", resized=True)
    data = actionformer.read(path)
    assert data.spec.streams == {"i3d_features": 6, "other": 2} and data.spec.resize == 2304
    benchmark = loaded(tmp_path, data)
    assert benchmark.features("video_2").shape == (2304, 8)
    assert (benchmark.features("video_2", "other") == 2).all()
    assert benchmark.time_axis("video_2")[0] == pytest.approx(20 / 2304)


def test_opentad(code, tmp_path):
    data = opentad.read(python(code))
    assert data.spec.stride_frames == 4 and data.spec.window_frames == 16 and data.spec.max_steps == 2304
    assert data.spec.streams == {"features": 6} and data.spec.prefix == "v_"
    benchmark = loaded(tmp_path, data)
    assert benchmark.recordings("test") == ["video_2"]  # video_3 is on the block list
    assert benchmark.classes == ("CliffDiving", "Diving") and benchmark.tious == (0.3, 0.4, 0.5, 0.6, 0.7)
    texts = " ".join(map(str, data.remarks))
    assert "1 segments labelled Ambiguous are left out" in texts and "1 recordings: block list" in texts


def test_opentad_base_files(code):
    python(code, name="base.py")
    top = code / "configs" / "thumos.py"
    top.write_text(
        '_base_ = ["_base_/base.py"]\nmodel = dict(depth=768 // 8, layers=list(range(3)))\n'
        "dataset = dict(train=dict(feature_stride=8, subset_name=['validation']))\n"
        "evaluation = dict(_delete_=True, tiou_thresholds=[0.5])\n"
    )
    data = opentad.read(top)
    assert data.spec.stride_frames == 8 and data.spec.tious == (0.5,) and data.spec.every == 1
    resized = python(
        code, ("feature_stride=4,\n        sample_stride=1", "resize_length=192,\n        sample_stride=2")
    )
    assert opentad.read(resized).spec.resize == 192 and opentad.read(resized).spec.every == 2


def test_nothing_of_a_configuration_is_executed(code, tmp_path):
    flag = tmp_path / "flag"
    harm = f"open({str(flag)!r}, 'w').close()"
    for text in (f"x = {harm}\n{PYTHON}", PYTHON.replace('"validation"', harm)):
        path = python(code)
        path.write_text(text)
        try:
            opentad.read(path)
        except TalError as error:
            assert "subset" in str(error)
    for text in (harm, f"import os\n{PYTHON}", "for x in []:\n    pass"):
        path.write_text(text)
        with pytest.raises(TalError, match="line 1 is not an assignment of values"):
            opentad.read(path)
    assert not flag.exists()


BAD_PYTHON = [
    ([("feature_stride=4", "feature_stride=-4")], "feature_stride: -4.* is not at least"),
    ([("feature_stride=4", "feature_stride=2 ** 9")], "feature_stride: the code 2 .. 9 is not a number"),
    ([("offset_frames=8", "offset_frames=-8")], "dataset.train.offset_frames: -8 is not at least 0"),
    (
        [("thumos14.json", "none.json")],
        "ann_file data/thumos/annotations/none.json was not found in any parent folder",
    ),
    (
        [("i3d_features/", "gone/")],
        "data_path data/thumos/gone/ was not found in any parent folder.*--features",
    ),
    ([('subset_name="test"', 'subset_name="tests"')], "unknown subset 'tests'.*Did you mean test"),
    ([('subset_name="test"', 'subset_name="validation"')], "is for training and for testing"),
    ([("0.3, 0.4", "0.4, 0.3")], "tiou_thresholds: .* is not thresholds in increasing order"),
    ([('"LoadFeats"', '"LoadFrames"')], "trains on frames of videos, not on features"),
    ([('prefix="v_"', 'prefix="../"')], "LoadFeats.prefix: '../' is not a part of a file's name"),
    (
        [("thumos/i3d_features/", "thumos/annotations")],
        "no feature file of any of 4 recordings .such as v_video_0",
    ),
    ([("test=dict(", "tests=dict(")], "no dataset with train and test in it"),
    ([("evaluation = ", "evaluation := ")], "not a Python configuration"),
    ([("dataset_type = ", "_base_ = 'features.py'\ndataset_type = ")], "_base_ files include each other"),
    ([("dataset_type = ", "_base_ = ['gone.py']\ndataset_type = ")], "gone.py: configuration not found"),
]


@pytest.mark.parametrize(("pairs", "message"), BAD_PYTHON)
def test_bad_configurations_of_opentad(code, pairs, message):
    with pytest.raises(TalError, match=message) as error:
        opentad.read(python(code, *pairs))
    assert "\n" not in str(error.value) and str(code) in str(error.value)


BAD_YAML = [
    ({"dim": "six"}, "dataset.input_dim.1: 'six' is not a whole number"),
    (
        {"folder": "[./data/thumos/i3d_features, data/thumos/i3d_features]"},
        r"dataset.input_dim: 6, but the files have .6, 6.",
    ),
    ({"dim": "[6, 2]"}, "dataset.input_dim: 2 numbers of columns for 1 folders"),
    ({"fps": -25}, "dataset.default_fps: -25 is not"),
    ({"every": 0}, "dataset.downsample_rate: 0 is not at least 1"),
    ({"folder": "./data/gone"}, "feat_folder ./data/gone was not found in any parent folder.*--features"),
    ({"folder": "[1, 2]"}, "dataset.feat_folder.1: 1 is not text"),
    ({"prefix": "a/b"}, "dataset.file_prefix: 'a/b' is not a part of a file's name"),
    ({"prefix": "v_,\n  json_file: x"}, "'json_file' is listed twice"),
    ({"resized": "True, max_seq_len: 10"}, "'max_seq_len' is listed twice"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_YAML)
def test_bad_configurations_of_actionformer(code, changes, message):
    with pytest.raises(TalError, match=message) as error:
        actionformer.read(yaml(code, **changes))
    assert "\n" not in str(error.value) and str(code) in str(error.value)


def test_pickled_features_are_refused(code):
    path = yaml(code)
    path.write_text(path.read_text().replace(".npy", ".pkl"))
    with pytest.raises(TalError, match="thumos.yaml: its features are pickle files, which can run code"):
        actionformer.read(path)
    path.write_text("a: 1")
    with pytest.raises(TalError, match="thumos.yaml: unexpected YAML structure: no 'dataset'"):
        actionformer.read(path)


def test_the_command(code, tmp_path, capsys):
    out = tmp_path / "mine"
    assert main(["data", "import", str(yaml(code)), "--out", str(out)]) == 0
    assert "4 recordings (2 train, 2 test), 9 segments, 3 classes" in capsys.readouterr().out
    assert main(["data", "check", str(out)]) == 0
    spec = json.loads((out / "features" / "spec.json").read_text())
    assert spec == {
        "streams": {"features": 6},
        "stride_frames": 4.0,
        "window_frames": 16.0,
        "folders": {"features": str(code / "data" / "thumos" / "i3d_features")},
        "prefix": "v_",
        "tious": [0.3, 0.4, 0.5, 0.6, 0.7],
        "max_steps": 2304,
    }
    features = code / "data" / "thumos" / "i3d_features"
    annotations = code / "data" / "thumos" / "annotations" / "thumos14.json"
    folder = [
        "data",
        "import",
        str(features),
        "--annotations",
        str(annotations),
        "--out",
        str(tmp_path / "two"),
    ]
    capsys.readouterr()
    assert main(folder) == 2
    assert "the time axis of its features is not specified" in capsys.readouterr().err
    entries = ["stride_frames=4", "window_frames=16", "prefix=v_"]
    assert main([*folder, *(part for entry in entries for part in ("--set", entry))]) == 0
    benchmark = load_benchmark(str(tmp_path / "two"))
    assert benchmark.time_axis("video_0") == pytest.approx((4 / 30, 16 / 30))
    assert "video_3" not in benchmark.recordings() and benchmark.classes == ("CliffDiving", "Diving")
    (features / "spec.json").write_text(
        '{"streams": {"a": 2, "b": 4}, "stride_frames": 4, "window_frames": 16}'
    )
    assert main([*folder, "--set", "prefix=v_", "--fps", "15"]) == 0  # the folder has a spec of its own
    assert list(load_benchmark(str(tmp_path / "two")).feature_spec.streams) == ["a", "b"]
    (features / "spec.json").unlink()
    capsys.readouterr()
    for extra, message in (
        (["--set", "stride_s=1", "--set", "resize=3"], "gives stride_s and resize"),
        (["--set", "stride=4"], "unknown spec entry 'stride'"),
        (["--tier", "x"], "--tier is for files of annotation tools"),
        ([str(yaml(code))], "several sources"),
    ):
        assert main([*folder[:3], *extra, *folder[3:]] if "yaml" in extra[0] else [*folder, *extra]) == 2
        assert message in capsys.readouterr().err


def test_specs_are_written_as_they_are_read(tmp_path):
    spec = FolderSpec(
        streams={"a": 2, "b": 3},
        stride_frames=4,
        window_frames=SHORTEST_WINDOW,
        fps=25,
        folders={"a": ".", "b": "."},
        suffix="_x",
        every=2,
        tious=(0.5, 0.75),
    )
    (tmp_path / "spec.json").write_text(spec_text(spec))
    assert read_spec(tmp_path) == spec


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"folders": {"features": "gone"}}, "the folder of stream features is not there: .*gone"),
        ({"folders": {"other": "."}}, "folders names .'other'., streams .'features'."),
        ({"folders": {"features": "\x00"}}, "folders.features: .* is not the path of a folder"),
        ({"prefix": "a/b"}, "prefix: 'a/b' is not a part of a file's name"),
        ({"every": 0}, "every: 0 is not at least 1"),
        ({"tious": [0.5, 0.5]}, "tious: .*increasing"),
        ({"tious": [0, 0.5]}, "tious.1: 0 is not above 0"),
        ({"tious": []}, "tious: .* at least 1 value"),
    ],
)
def test_bad_entries_of_a_spec(tmp_path, entry, message):
    (tmp_path / "spec.json").write_text(json.dumps({"streams": {"features": 3}, "stride_s": 1} | entry))
    with pytest.raises(TalError, match=f"spec.json: (spec entry.)?{message}"):
        read_spec(tmp_path)
