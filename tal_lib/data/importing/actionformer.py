"""Data sets as the configurations (YAML) of ActionFormer, TriDet and TemporalMaxer describe them.

| there | here |
| --- | --- |
| `json_file`, `train_split`, `val_split` | annotations; `train` and `test` |
| `feat_folder` (one or several), `file_prefix`, `input_dim` | streams, their folders, `prefix` |
| `feat_stride`, `num_frames`, `default_fps` | `stride_frames`, `window_frames`, the recordings' `fps` |
| `downsample_rate` | `every` |
| `force_upsampling` with `max_seq_len` | `resize` |
| `max_seq_len` | `max_steps` |
| `dataset_name` | `tious`, from the code of its data set class |

Step `t` is centred at `t * stride + window / 2` there and here.

Source: Zhang et al., ActionFormer, ECCV 2022; happyharrycn/actionformer_release, `libs/core/config.py` (the
defaults) and `libs/datasets` (tIoUs, time axis).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from tal_lib.data.importing.dataset import (
    DataSet,
    class_remark,
    columns_of,
    locate,
    split_content,
    stream_names,
    with_rate,
    with_remark,
)
from tal_lib.data.spec import Affix, Columns, FolderSpec, Frames, Steps
from tal_lib.errors import TalError
from tal_lib.reading import read_yaml
from tal_lib.validation import Count, Rate, validate

SHAPE = "Give a configuration of ActionFormer, TriDet or TemporalMaxer, such as thumos_i3d.yaml."
_FINE = tuple(round(0.5 + 0.05 * number, 2) for number in range(10))
# tIoUs of the data set classes; their numbers of thresholds: 5, 10, 5, 5, 10, 9
TIOUS = {
    "thumos": (0.3, 0.4, 0.5, 0.6, 0.7),
    "anet": _FINE,
    "epic": (0.1, 0.2, 0.3, 0.4, 0.5),
    "ego4d": (0.1, 0.2, 0.3, 0.4, 0.5),
    "hacs": _FINE,
    "multithumos": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}


def _listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]


Names = Annotated[list[str], BeforeValidator(_listed)]
Widths = Annotated[list[Columns], BeforeValidator(_listed)]


@dataclass(frozen=True, kw_only=True)
class Described:
    """The part `dataset` of a configuration; fields that concern training only are ignored."""

    others_ignored: ClassVar[bool] = True
    json_file: str
    feat_folder: Names
    input_dim: Widths = (2304,)  # type: ignore[assignment]
    num_classes: Count = 97
    feat_stride: float = 16
    num_frames: float = 32
    default_fps: Rate | None = None
    downsample_rate: Steps = 1
    max_seq_len: Count = 2304
    force_upsampling: bool = False
    file_prefix: Affix | None = None
    file_ext: str = ".npy"


def read(path: Path, *, annotations: Path | None = None, features: Sequence[Path] = ()) -> DataSet:
    """The data set that a configuration describes.

    Args:
        annotations, features: where these lie, if not where the configuration says.

    Raises:
        TalError: unexpected YAML structure, a value that does not fit, missing files, or features that need
            pickle or have no time axis.
    """
    config = read_yaml(path, what="configuration", remedy=SHAPE)
    if not isinstance(config, dict) or not isinstance(config.get("dataset"), dict):
        raise TalError("unexpected YAML structure: no 'dataset' in it", where=path, remedy=SHAPE)
    described = validate(Described, config["dataset"], where=path, name="dataset", remedy=SHAPE)
    if described.file_ext.lower() in (".pkl", ".pickle"):
        raise TalError(
            "its features are pickle files, which can run code",
            where=path,
            remedy="Convert them to .npy and correct file_ext.",
        )
    subsets = [
        validate(Names, config.get(name, [default]), where=path, name=name)
        for name, default in (("train_split", "training"), ("val_split", "validation"))
    ]
    source = annotations or locate(described.json_file, path, what="json_file", option="--annotations")
    content = split_content(source, *subsets)
    places = list(features) or [
        locate(folder, path, what="feat_folder", option="--features") for folder in described.feat_folder
    ]
    name = str(config.get("dataset_name"))
    content = class_remark(with_rate(content, described.default_fps), described.num_classes)
    streams = _streams(described, places, name, content.recordings.recording.tolist(), path)
    if name not in TIOUS:
        content = with_remark(content, "as published", f"the tIoUs of dataset_name {name} are not known")
    if name == "multithumos":
        text = "the published training uses the first half of the columns: train with one stream, rgb"
        content = with_remark(content, "as published", text)
    if described.force_upsampling:
        text = "there, resized steps share the time that the features cover; here, the duration"
        content = with_remark(content, "as published", text)
    spec = FolderSpec(
        streams=streams,
        folders={stream: str(place) for stream, place in zip(streams, places * len(streams))},
        prefix=described.file_prefix or "",
        every=described.downsample_rate,
        tious=TIOUS.get(name),
        max_steps=described.max_seq_len,
        **_timing(described, path),
    )
    return DataSet(content, spec)


def _streams(described, places, name, recordings, path):
    """Stream → columns. The files of MultiTHUMOS hold both streams, of which the code uses the first.

    One number for several folders is the columns of all together; the files tell those of each.
    """
    if name == "multithumos" and len(places) == 1:
        width = described.input_dim[0]
        return {"rgb": width, "flow": width}
    widths = list(described.input_dim)
    if len(widths) == 1 < len(places):
        folders = dict(zip(stream_names(places), places))
        streams = columns_of(folders, recordings, described.file_prefix or "", "")
        if sum(streams.values()) != widths[0]:
            raise TalError(
                f"dataset.input_dim: {widths[0]}, but the files have {list(streams.values())}",
                where=path,
                remedy="Correct input_dim or feat_folder.",
            )
        return streams
    if len(widths) != len(places):
        raise TalError(
            f"dataset.input_dim: {len(widths)} numbers of columns for {len(places)} folders of features",
            where=path,
            remedy="Give input_dim as a list, one number per folder.",
        )
    return dict(zip(stream_names(places), widths))


def _timing(described, path):
    if described.force_upsampling:
        return {"resize": validate(Steps, described.max_seq_len, where=path, name="dataset.max_seq_len")}
    if described.feat_stride <= 0:
        raise TalError(
            "dataset.feat_stride: its features have a fixed number of steps and no stride",
            where=path,
            remedy="Set force_upsampling: true, which resizes them to max_seq_len.",
        )
    return {
        "stride_frames": validate(Frames, described.feat_stride, where=path, name="dataset.feat_stride"),
        "window_frames": validate(Frames, described.num_frames, where=path, name="dataset.num_frames"),
    }
