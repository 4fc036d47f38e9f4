"""Feature files → detections, without a video: one file, or a folder of files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from tal_lib.data.batches import collate, unannotated
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.data.feature_folder import FeatureFolder
from tal_lib.data.features import SUFFIXES, read_array, read_feature_file
from tal_lib.data.spec import NAME as SPEC
from tal_lib.data.spec import read_spec
from tal_lib.data.tables import empty_detections
from tal_lib.errors import TalError
from tal_lib.evaluation import write_detections
from tal_lib.video.detect import Ready

SAME_TIMES = 0.01  # largest relative difference of equal strides or windows


def is_features(source: str | Path) -> bool:
    """Whether a source is a feature file or a folder, not a video."""
    source = Path(source)
    return source.is_dir() or source.suffix.lower() in SUFFIXES


def detect_in_features(source: str | Path, chosen: Ready) -> tuple[pd.DataFrame, dict[str, str]]:
    """(detections, problems) of feature files. Detections: `recording, start, end, label, score`, in seconds.

    The model's feature spec gives the times of the steps. A folder may have one subfolder per stream. A file
    of a folder that cannot be used becomes a problem (recording → text), and the other files are still done.
    `table.attrs["recordings"]` is the number of files that were used.

    Raises:
        TalError: there is no feature file, a single file cannot be used, or a `spec.json` has another time
            axis.
    """
    source = Path(source)
    _check_time_axis(source if source.is_dir() else source.parent, chosen.spec)
    loaders = _loaders(source, chosen.spec, chosen.stream)
    tables, problems = [empty_detections()], {}
    for recording, load in tqdm(loaders.items(), unit="recording", disable=len(loaders) < 2):
        try:
            tables.append(_detect(recording, load(), chosen))
        except TalError as error:
            if not source.is_dir():
                raise
            problems[recording] = str(error)
    table = pd.concat([tables[0], *(table for table in tables if len(table))], ignore_index=True)
    table.attrs["recordings"] = len(loaders) - len(problems)
    return table, problems


def write_table(out: str | Path, table: pd.DataFrame) -> Path:
    """Write `detections.json` of all recordings into the folder `out`. Returns its path."""
    return write_detections(Path(out) / "detections.json", table)


def _detect(recording, features, chosen):
    spec = chosen.spec
    item = unannotated(
        recording,
        torch.from_numpy(chosen.prepared(features)).T.contiguous(),
        (len(features) - 1) * spec.stride_s + spec.window_s,
        spec.stride_s,
        spec.window_s,
        chosen.classes,
    )
    return chosen.model.detect(collate([item]))[0]


def _loaders(source: Path, spec: FeatureSpec, stream: str | None) -> dict[str, Callable[[], np.ndarray]]:
    """Recording → function that reads its features (T, D of the model)."""
    if not source.is_dir():
        return {source.stem: lambda: _read(source, spec, stream)}
    if stream is None:
        folder = FeatureFolder(source, spec.streams, ())
        loaders = {name: lambda name=name: folder.load(name) for name in folder.names()}
    else:
        place = source / stream if (source / stream).is_dir() else source
        folder = FeatureFolder(place, {stream: spec.streams[stream]}, ())
        loaders = {
            name: lambda name=name: _read(folder.files_of(name)[0], spec, stream) for name in folder.names()
        }
    if not loaders:
        raise TalError(
            "no feature files in it",
            where=source,
            remedy=f"Give a video, or files ending in {', '.join(SUFFIXES)}.",
        )
    return loaders


def _read(path, spec, stream):
    """Features of one file. For a model of one stream, the file may hold all streams or only that stream."""
    if stream is None:
        return read_feature_file(path, spec.dim)
    if spec.dim in read_array(path).shape:
        return np.ascontiguousarray(read_feature_file(path, spec.dim)[:, spec.columns(stream)])
    return read_feature_file(path, spec.streams[stream])


def _check_time_axis(folder, spec):
    """Refuse features whose `spec.json` has another stride or window than the model's spec.

    Raises:
        TalError: the time axes differ, or the features were resized.
    """
    if not (folder / SPEC).is_file():
        return
    stated = read_spec(folder)
    if stated.resize is not None:
        raise TalError(
            f"features resized to {stated.resize} steps: their times follow from each recording's duration, "
            "which feature files do not tell",
            where=folder / SPEC,
            remedy="Use the features as extracted, or `tal train` and `tal eval` with annotations.",
        )
    if stated.stride_s is not None:
        stride_s, window_s = stated.stride_s, stated.window_s
    elif stated.fps is not None:
        stride_s, window_s = (
            frames and frames / stated.fps for frames in (stated.stride_frames, stated.window_frames)
        )
    else:
        return
    for name, given, wanted in (("stride", stride_s, spec.stride_s), ("window", window_s, spec.window_s)):
        if given is not None and abs(given - wanted) > SAME_TIMES * wanted:
            raise TalError(
                f"a {name} of {given:g} s, the model was trained with {wanted:g} s",
                where=folder / SPEC,
                remedy="Extract features as for the model, or correct spec.json.",
            )
