"""Videos: annotations in their published forms, features from the user's own folder.

    <data root>/thumos14/thumos14.json
    <data root>/thumos14/features/<recording>.npy            both streams, or
    <data root>/thumos14/features/{rgb,flow}/<recording>.npy
    <data root>/thumos14/features/spec.json                  optional: other streams, widths or strides
    <any folder>/annotations.json, features/, features/spec.json   a user's data set

`tal_lib/data/spec.py` describes spec.json, `tal_lib/data/feature_folder.py` the names of the files.

Sources: Jiang et al., THUMOS Challenge 2014; Caba Heilbron et al., ActivityNet, CVPR 2015. Feature
conventions: ActionFormer (ECCV 2022): I3D, 16-frame windows every 4 frames; ActivityNet features are
resized to a fixed length.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.annotations import AnnotationFile, read_annotations
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.feature_folder import FeatureFolder, seen_shapes
from tal_lib.data.features import resize
from tal_lib.data.remarks import ALL, Remark
from tal_lib.data.spec import NAME, FolderSpec, example_spec, read_spec, time_axis
from tal_lib.errors import TalError

RESIZED_STEPS = 192  # ActivityNet
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
THUMOS14 = FolderSpec(streams={"rgb": 1024, "flow": 1024}, stride_frames=4, window_frames=16, fps=30.0)
ACTIVITYNET = FolderSpec(streams={"tsp": 512}, resize=RESIZED_STEPS)


def load_thumos14(root: Path) -> Benchmark:
    """THUMOS14: 200 validation videos are `train`, 212 test videos `test`; 20 classes.

    If the annotations do not state a frame rate, 30 frames per second are assumed, the rate of THUMOS14.
    """
    content, path = thumos14_annotations(root)
    folder = root / "thumos14" / "features"
    spec = read_spec(folder, THUMOS14)
    unknown = content.recordings.fps.isna().sum()
    if unknown and spec.stride_frames is not None:
        text = f"{unknown} have no fps in the annotations; {spec.fps:g} is taken"
        content = replace(content, repairs=(*content.repairs, Remark(ALL, "as published", text)))
    return make_benchmark("thumos14", TIOUS, content, spec, folder, path)


def thumos14_annotations(root: Path) -> tuple[AnnotationFile, Path]:
    """THUMOS14's annotations, with its validation videos as `train`, and their file."""
    path = root / "thumos14" / "thumos14.json"
    content = read_annotations(path, repair=True)
    content.recordings["split"] = content.recordings.split.replace({"validation": "train"})
    return content, path


def load_activitynet(root: Path) -> Benchmark:
    """ActivityNet v1.3: 10,024 training and 4,926 validation videos (the field's test set); 200 classes.

    Reads `activitynet.json` (the official or ActionFormer's form) if present, else the two tables of the TSP
    release.
    """
    folder = root / "activitynet"
    path = folder / "activitynet.json"
    if path.is_file():
        content = without_split(
            read_annotations(path, repair=True), "test"
        )  # its labels were never published
    else:
        files = [folder / f"activitynet_v1-3_{part}_tsp_groundtruth.csv.gz" for part in ("train", "valid")]
        parts = [
            read_annotations(file, repair=True, split=split)
            for file, split in zip(files, ("train", "validation"))
        ]
        content = AnnotationFile(
            *(
                pd.concat([getattr(part, name) for part in parts], ignore_index=True)
                for name in ("recordings", "segments")
            ),
            parts[0].repairs + parts[1].repairs,  # pyright: ignore[reportCallIssue]
        )
        path = folder
    content.recordings["split"] = content.recordings.split.replace({"validation": "test"})
    spec = read_spec(folder / "features", ACTIVITYNET)
    return make_benchmark(
        "activitynet", tuple(np.round(np.arange(0.5, 1.0, 0.05), 2)), content, spec, folder / "features", path
    )


def load_folder(folder: str | Path, reserved_names=()) -> Benchmark:
    """A user's videos: `annotations.json` (ActivityNet's or ActionFormer's form), `features/` and its
    `spec.json`.

    Splits follow the field's habits. `validation` is the test set if there is no test split, or if the test
    split's labels are not published. `validation` is the training set if there is no training split, as in
    THUMOS14.

    Args:
        reserved_names: names that the benchmark must not have.
    """
    folder = Path(folder)
    path = folder / "annotations.json"
    if not path.is_file():
        others = sorted(file.name for file in folder.glob("*.json*") if file.name != NAME)
        raise TalError(
            "annotation file not found",
            where=path,
            remedy=f"Rename {others[0]} if that is it." if others else "Put the annotations there.",
        )
    content = read_folder_annotations(path)
    features = folder / "features"
    spec_path = features / NAME
    if not spec_path.is_file():
        raise _no_spec(spec_path, content.recordings)
    spec = read_spec(features)
    name = folder_name(folder, reserved_names)
    return make_benchmark(name, spec.tious or TIOUS, content, spec, features, folder)


def read_folder_annotations(path: Path) -> AnnotationFile:
    """An annotation file, its subsets as `train` and `test` as in `load_folder`."""
    return _with_usual_splits(read_annotations(path, repair=True))


def folder_name(folder: str | Path, reserved_names=()) -> str:
    """The benchmark name of a folder: the folder's name, in characters that every file system accepts.

    `.` and `..` are resolved first. Characters other than letters, digits, `_`, `.` and `-` become `_`.
    `_folder` is appended to a reserved name.
    """
    name = re.sub(r"[^\w.-]+", "_", Path(folder).resolve().name).lstrip(".-")[:100] or "folder"
    while name in reserved_names:
        name += "_folder"
    return name


def _with_usual_splits(content):
    """The file's subsets as `train` and `test`."""
    splits = set(content.recordings.split)
    annotated = set(content.recordings.split[content.recordings.recording.isin(content.segments.recording)])
    if "test" in splits - annotated and "train" in splits and "validation" in annotated:
        hidden = int((content.recordings.split == "test").sum())
        text = f"the {hidden} of subset test have no annotations and are left out; validation is the test set"
        content = without_split(content, "test")
        content = replace(content, repairs=(*content.repairs, Remark(ALL, "splits", text)))
        splits -= {"test"}
    if "test" not in splits:
        content.recordings["split"] = content.recordings.split.replace({"validation": "test"})
    elif "train" not in splits:
        content.recordings["split"] = content.recordings.split.replace({"validation": "train"})
    return content


def without_split(content, split):
    """An annotation file's contents without one split."""
    kept = content.recordings[content.recordings.split != split].reset_index(drop=True)
    segments = content.segments[content.segments.recording.isin(kept.recording)].reset_index(drop=True)
    return replace(content, recordings=kept, segments=segments)


def _no_spec(path, recordings):
    """The error for features without a spec; it has an example spec to paste."""
    shapes = seen_shapes(path.parent, recordings.recording)
    if not shapes:
        return TalError(
            "file not found, and no feature file of any annotated recording is there",
            where=path,
            remedy=f"Put features there as <recording>.npy (such as {recordings.recording.iloc[0]}.npy), "
            "or extract them with `tal extract`."
            if len(recordings)
            else "List recordings in annotations.json.",
        )
    example, guess = example_spec(shapes, recordings.set_index("recording").duration)
    return TalError(
        "file not found: the time axis of the features is not specified",
        where=path,
        remedy=f"Write there, for example, {example} ({guess}).",
    )


def make_benchmark(name, tious, content, spec, folder, where) -> Benchmark:
    """The benchmark of annotations (`AnnotationFile`) and a folder of features with its spec."""
    if not len(content.recordings):
        raise TalError("no recording in it", where=where, remedy="Check that it is the right file.")
    files = FeatureFolder(
        folder,
        spec.streams,
        content.recordings.recording,
        folders=spec.folders,
        prefix=spec.prefix,
        suffix=spec.suffix,
    )
    steps_of = lambda recording: files.steps(recording) if files.files_of(recording) else None
    recordings, feature_spec = time_axis(spec, content.recordings, folder / NAME, steps_of)

    def need_folder(recording):
        if not folder.is_dir():
            raise TalError(
                f"no features: folder not found, asked for recording {recording}",
                where=folder,
                remedy=f"Put the features there; `tal data check {name}` lists what is missing.",
            )

    def load(recording):
        need_folder(recording)
        features = files.load(recording)[:: spec.every]
        return resize(features, spec.resize) if spec.resize is not None else features

    def load_part(recording, first, last):
        need_folder(recording)
        return files.load_part(recording, first * spec.every, last * spec.every)[:: spec.every]

    def steps(recording):
        need_folder(recording)
        return -(-files.steps(recording) // spec.every)

    return Benchmark(
        name=name,
        classes=sorted(content.segments.label.unique()),
        tious=tious,
        feature_spec=feature_spec,
        recordings=recordings,
        annotations=content.segments,
        load_features=load,
        load_part=load_part if spec.resize is None else None,
        count_steps=steps if spec.resize is None else lambda recording: spec.resize,
        source_hash=lambda: files.content_hash(name),
        where=str(where),
        notes=content.repairs,
        ends_checked=False,
        files=files,
    )
