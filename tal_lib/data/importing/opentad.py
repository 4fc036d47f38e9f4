"""Data sets as OpenTAD's configurations (Python files) describe them, and its folders of features.

A configuration is parsed, never run: names, texts, numbers, lists and `dict(...)` are understood, and other
code is left aside. `_base_` files are merged as MMEngine does.

| there | here |
| --- | --- |
| `ann_file`, `subset_name` of `train` and `test` | annotations; `train` and `test` |
| `block_list` (`missing_files.txt`), `blocked_videos` | recordings that are left out |
| `data_path` (one or several), `LoadFeats` `prefix`, `suffix` | streams, their folders, `prefix`, `suffix` |
| `feature_stride`, `offset_frames` | `stride_frames`, `window_frames` = 2 × offset |
| `fps` | the recordings' `fps` |
| `sample_stride` | `every` |
| `resize_length` | `resize` |
| length of `RandomTrunc`, or `window_size` | `max_steps` |
| `tiou_thresholds` | `tious` |

Step `t` is centred at `t * stride + offset_frames` there, and at `t * stride + window / 2` here. Without a
stated `fps` the rate is `frame / duration` of the annotations.

Source: Liu et al., OpenTAD, 2025; sming256/OpenTAD, `opentad/datasets` and `configs/_base_/datasets`.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tal_lib.data.importing.actionformer import Names
from tal_lib.data.importing.dataset import (
    DataSet,
    class_remark,
    columns_of,
    locate,
    spec_text,
    split_content,
    stream_names,
    with_rate,
    with_remark,
)
from tal_lib.data.spec import (
    NAME,
    SHORTEST_WINDOW,
    Affix,
    FolderSpec,
    Frames,
    Steps,
    Thresholds,
    read_spec,
)
from tal_lib.errors import TalError, short
from tal_lib.reading import read_json, read_text
from tal_lib.validation import Count, NotNegative, Rate, validate

SHAPE = "Give a configuration of OpenTAD, such as configs/_base_/datasets/thumos-14/features_i3d_pad.py."
BLOCK_LIST = "missing_files.txt"
DEEPEST = 10  # `_base_` files within each other
LONGEST_TEXT = 10_000  # characters of a sum of texts
AMBIGUOUS = "Ambiguous"  # THUMOS14's segments that belong to no class


@dataclass(frozen=True, kw_only=True)
class Described:
    """One part of `dataset`; fields that concern training only are ignored."""

    others_ignored: ClassVar[bool] = True
    ann_file: str
    subset_name: Names
    data_path: Names
    block_list: Any = None
    class_agnostic: bool = False
    feature_stride: float = -1
    sample_stride: Steps = 1
    offset_frames: NotNegative = 0
    resize_length: Steps | None = None
    window_size: Count | None = None
    fps: float = -1


def read(path: Path, *, annotations: Path | None = None, features: Sequence[Path] = ()) -> DataSet:
    """The data set that a configuration describes.

    Args:
        annotations, features: where these lie, if not where the configuration says.

    Raises:
        TalError: not a configuration, a value that does not fit, files that are not there, or a data set of
            frames instead of features.
    """
    config = parse(path)
    parts = config.get("dataset")
    if not isinstance(parts, dict) or not all(
        isinstance(parts.get(name), dict) for name in ("train", "test")
    ):
        raise TalError("no dataset with train and test in it", where=path, remedy=SHAPE)
    train, test = (
        validate(Described, parts[name], where=path, name=f"dataset.{name}", remedy=SHAPE)
        for name in ("train", "test")
    )
    steps = _pipeline(parts["train"], path)
    source = annotations or locate(train.ann_file, path, what="ann_file", option="--annotations")
    places = list(features) or [
        locate(folder, path, what="data_path", option="--features") for folder in train.data_path
    ]
    blocked, problem = _blocked(train, config, places, path)
    content = split_content(
        source, train.subset_name, test.subset_name, dropped=blocked, why="block list of the configuration"
    )
    if problem:
        content = with_remark(content, "as published", problem)
    content = _without_ambiguous(content)
    if train.fps > 0:
        content = with_rate(content, validate(Rate, train.fps, where=path, name="dataset.train.fps"))
    content = class_remark(content, 1 if train.class_agnostic else None)
    prefix, suffix = (
        validate(Affix, steps["LoadFeats"].get(name, ""), where=path, name=f"LoadFeats.{name}")
        for name in ("prefix", "suffix")
    )
    streams = stream_names(places)
    folders = dict(zip(streams, places))
    evaluation = config.get("evaluation")
    tious = evaluation.get("tiou_thresholds") if isinstance(evaluation, dict) else None
    longest = steps.get("RandomTrunc", {}).get("trunc_len") or train.window_size
    if train.resize_length is not None:
        text = "features are resized by linear interpolation here, by torchvision's alignment there"
        content = with_remark(content, "as published", text)
    spec = FolderSpec(
        streams=columns_of(folders, content.recordings.recording.tolist(), prefix, suffix),
        folders={stream: str(place) for stream, place in folders.items()},
        prefix=prefix,
        suffix=suffix,
        every=train.sample_stride,
        tious=None if tious is None else validate(Thresholds, tious, where=path, name="tiou_thresholds"),
        max_steps=None if longest is None else validate(Count, longest, where=path, name="trunc_len"),
        **_timing(train, path),
    )
    return DataSet(content, spec)


def read_features(folder: Path, annotations: Path, entries: dict[str, Any]) -> DataSet:
    """A folder of features (one file a video) with an annotation file.

    Recordings in its `missing_files.txt` are left out. Splits follow the field's habits.

    Args:
        entries: the time axis and what else `spec.json` may hold. They go before a `spec.json` in the folder.

    Raises:
        TalError: no time axis, or entries that do not fit.
    """
    from tal_lib.data.videos import read_folder_annotations

    content = read_folder_annotations(annotations)
    blocked = _lines(folder / BLOCK_LIST) if (folder / BLOCK_LIST).is_file() else set()
    gone = content.recordings.recording.isin(list(blocked))
    if gone.any():
        text = f"{int(gone.sum()):,} recordings of {BLOCK_LIST} are left out"
        table = content.recordings[~gone].reset_index(drop=True)
        segments = content.segments[content.segments.recording.isin(table.recording)].reset_index(drop=True)
        content = replace(content, recordings=table, segments=segments)
        content = with_remark(content, "left out", text)
    if (folder / NAME).is_file():
        entries = json.loads(spec_text(read_spec(folder))) | entries
    prefix, suffix = (str(entries.get(name, "")) for name in ("prefix", "suffix"))
    streams = entries.get("streams")
    if streams is None:
        (stream,) = stream_names([folder])
        streams = columns_of({stream: folder}, content.recordings.recording.tolist(), prefix, suffix)
    folders = {stream: str(folder.resolve()) for stream in streams} if isinstance(streams, dict) else None
    entries = entries | {"streams": streams, "folders": folders}
    spec = validate(FolderSpec, entries, where="--set", name="spec entry")
    if len(spec.timing) != 1:
        raise TalError(
            "the time axis of its features is not specified"
            if not spec.timing
            else f"gives {' and '.join(spec.timing)}",
            where=folder,
            remedy="State one of --set stride_frames=N (with window_frames, fps), stride_s=S, resize=N; or "
            "give the configuration.",
        )
    return DataSet(_without_ambiguous(content), spec)


def _timing(described, path) -> dict[str, Any]:
    if described.resize_length is not None:
        return {"resize": described.resize_length}
    stride = validate(Frames, described.feature_stride, where=path, name="dataset.train.feature_stride")
    return {"stride_frames": stride, "window_frames": max(2 * described.offset_frames, SHORTEST_WINDOW)}


def _pipeline(part, path):
    """The steps of a pipeline by their type."""
    steps = part.get("pipeline")
    steps = steps if isinstance(steps, list) else []
    steps = {step.get("type"): step for step in steps if isinstance(step, dict)}
    if "LoadFeats" not in steps:
        raise TalError(
            "trains on frames of videos, not on features",
            where=path,
            remedy="Give a configuration named features_….py, or extract features with `tal extract`.",
        )
    return steps


def _without_ambiguous(content):
    unclear = content.segments.label == AMBIGUOUS
    if not unclear.any():
        return content
    text = f"{int(unclear.sum()):,} segments labelled {AMBIGUOUS} are left out"
    content = replace(content, segments=content.segments[~unclear].reset_index(drop=True))
    return with_remark(content, "left out", text)


def _blocked(train, config, places, path):
    """Recordings that the configuration leaves out, and a remark if a list is not there."""
    blocked, problems = set(), []
    if isinstance(train.block_list, list):
        blocked |= {str(name) for name in train.block_list}
    elif isinstance(train.block_list, str):
        inside = places[0] / Path(train.block_list).name
        try:
            file = locate(train.block_list, path, what="block_list", option="--features")
        except TalError:
            file = inside if inside.is_file() else None
        if file is not None and file.is_file():
            blocked |= _lines(file)
        else:
            problems.append(f"block_list {train.block_list} is not there")
    evaluation = config.get("evaluation")
    videos = evaluation.get("blocked_videos") if isinstance(evaluation, dict) else None
    if isinstance(videos, str):
        try:
            names = read_json(locate(videos, path, what="blocked_videos", option="its path"))
            blocked |= {str(name) for name in names} if isinstance(names, list) else set()
        except TalError:
            problems.append(f"blocked_videos {videos} is not there, or cannot be read")
    return blocked, "; ".join(problems)


def _lines(path):
    return {line.strip() for line in read_text(path, what="block list").splitlines() if line.strip()}


def parse(path: Path, depth: int = 0) -> dict[str, Any]:
    """The values that a configuration assigns, with those of its `_base_` files. Nothing is executed.

    Raises:
        TalError: not Python of this kind, or `_base_` files that include each other.
    """
    if depth > DEEPEST:
        raise TalError("its _base_ files include each other", where=path, remedy="Correct _base_.")
    text = read_text(path, what="configuration", remedy=SHAPE, largest=2**20)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise TalError(f"not a Python configuration ({problem})", where=path, remedy=SHAPE) from None
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = _value(node.value, values)
            except RecursionError:
                raise TalError(f"line {node.lineno} is nested too deeply", where=path, remedy=SHAPE) from None
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            raise TalError(
                f"line {node.lineno} is not an assignment of values",
                where=path,
                remedy="Only values and dict(...) are read; nothing is executed.",
            )
    bases, merged = values.pop("_base_", []), {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise TalError(f"_base_: {short(base)} is not a path", where=path, remedy=SHAPE)
        merged = _merged(merged, parse((path.parent / base).resolve(), depth + 1))
    return _merged(merged, values)


class _Code:
    """An expression that is no plain value."""

    def __init__(self, node):
        self.text = ast.unparse(node)

    def __repr__(self):
        return f"the code {self.text}"


def _value(node, known):
    """The value of an expression of texts, numbers, lists, dicts and earlier names; else `_Code`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, known) for item in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {str(_value(key, known)): _value(item, known) for key, item in zip(node.keys, node.values)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, known)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _value(node.left, known), _value(node.right, known)
        if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) < LONGEST_TEXT:
            return left + right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if not node.args and all(item.arg for item in node.keywords):
            return {item.arg: _value(item.value, known) for item in node.keywords}
    return _Code(node)


def _merged(base, new):
    """`new` over `base`: dicts are merged, unless they say `_delete_`."""
    result = dict(base)
    for name, value in new.items():
        before = result.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and not value.get("_delete_"):
            result[name] = _merged(before, value)
        else:
            result[name] = value
    return result
