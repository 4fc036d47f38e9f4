"""Feature files → detections, without a video: one file, or a folder of files."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tal_lib.data.benchmark import FeatureSpec
from tal_lib.data.feature_folder import FeatureFolder
from tal_lib.data.features import SUFFIXES, read_array, read_feature_file
from tal_lib.data.spec import FolderSpec
from tal_lib.data.tables import empty_detections
from tal_lib.errors import TalError
from tal_lib.evaluation import write_detections
from tal_lib.video.detect import Ready, localized
from tal_lib.video.stated import columns_text, spec_of, stated_for


def is_features(source: str | Path) -> bool:
    """Whether a source is a feature file or a folder, not a video."""
    source = Path(source)
    return source.is_dir() or source.suffix.lower() in SUFFIXES


def detect_in_features(
    source: str | Path, chosen: Ready, merged: bool = False
) -> tuple[pd.DataFrame, dict[str, str]]:
    """(detections, problems) of feature files. Detections: `recording, start, end, label, score`, in seconds.

    The model's feature spec gives the times of the steps. A folder may have one subfolder per stream, or name
    others in its `spec.json`, whose `prefix` and `suffix` are no part of a recording. A file of a folder that
    cannot be used becomes a problem (recording → text), and the other files are still done.
    `table.attrs["recordings"]` is the number of files that were used. Prints a warning if no `spec.json` says
    what stride the features have. merged: see `tal_lib.video.detect.localized`.

    Raises:
        TalError: there is no feature file, a single file cannot be used, or a `spec.json` contradicts the
            model.
    """
    source = Path(source)
    files, apart = _files(source, chosen.spec, chosen.stream)
    folders = dict.fromkeys(path.parent for paths, _ in files.values() for path in paths)
    stated = stated_for(source, folders, chosen.spec, chosen.stream, apart=apart)
    warning = stated.warning
    tables, problems = [empty_detections()], {}
    for recording, (paths, load) in tqdm(files.items(), unit="recording", disable=len(files) < 2):
        try:
            features = load()[:: stated.every[paths[0].parent]]
            if warning:  # only now: a file that cannot be used has its own message
                tqdm.write(f"tal: {warning}", file=sys.stderr)
                warning = ""
            seconds = (len(features) - 1) * chosen.spec.stride_s + chosen.spec.window_s
            tables.append(localized(chosen, features, recording, seconds, merged=merged))
        except TalError as error:
            problem = _explained(error, chosen)
            if not source.is_dir():
                raise problem from None
            problems[recording] = str(problem)
    table = pd.concat([tables[0], *(table for table in tables if len(table))], ignore_index=True)
    table.attrs["recordings"] = len(files) - len(problems)
    return table, problems


def write_table(out: str | Path, table: pd.DataFrame) -> Path:
    """Write `detections.json` of all recordings into the folder `out`. Returns its path."""
    return write_detections(Path(out) / "detections.json", table)


def _explained(error, chosen):
    """The error of a file that cannot be used. One of another shape says which columns the model takes."""
    if not error.problem.startswith("features of shape"):
        return error
    columns = columns_text(chosen.spec, chosen.stream)
    return TalError(error.problem, where=error.where, remedy=f"The model was trained on {columns}.")


def _files(
    source: Path, spec: FeatureSpec, stream: str | None
) -> tuple[dict[str, tuple[list[Path], Callable[[], np.ndarray]]], bool]:
    """(recording → its files, and a function that reads its features (T, D of the model)), and whether every
    stream has its own files."""
    stated = spec_of(source)[1] or FolderSpec(streams=dict(spec.streams))
    if not source.is_dir():
        return {_recording(source.stem, stated): ([source], lambda: _read(source, spec, stream))}, False
    streams = spec.streams if stream is None else {stream: spec.streams[stream]}
    # other names than the model's are compared later
    same_names = stated.folders is None or streams.keys() <= stated.folders.keys()
    folder = FeatureFolder(source, streams if same_names else stated.streams, (), folders=stated.folders)
    # where a recording has two files, that with prefix and suffix counts, as in the training
    by_affix = sorted(folder.names(), key=lambda name: _recording(name, stated) != name)
    files = {}
    for recording, name in sorted({_recording(name, stated): name for name in by_affix}.items()):
        paths = folder.files_of(name) or []  # none: a stream lacks its file, which `load` names
        if stream is None or len(folder.parts) > 1:
            files[recording] = (paths, lambda name=name: folder.load(name))
        else:
            files[recording] = (paths, lambda paths=paths: _read(paths[0], spec, stream))
    if not files:
        raise TalError(
            "no feature files in it",
            where=source if stated.folders is None else folder.parts[0][0],
            remedy=f"Give a video, or files ending in {', '.join(SUFFIXES)}.",
        )
    return files, same_names and len(folder.parts) > 1


def _recording(name, stated):
    """The recording of a file's name: without the prefix and suffix that `spec.json` states."""
    place, slash, last = name.rpartition("/")
    inner = last.removeprefix(stated.prefix).removesuffix(stated.suffix)
    return f"{place}{slash}{inner}" if inner and f"{stated.prefix}{inner}{stated.suffix}" == last else name


def _read(path, spec, stream):
    """Features of one file. For a model of one stream, the file may hold all streams or only that stream.

    As many columns as that stream has are that stream.
    """
    if stream is None:
        return read_feature_file(path, spec.dim)
    shape, width = read_array(path).shape, spec.streams[stream]
    if shape[-1:] != (width,) and spec.dim in shape:
        return np.ascontiguousarray(read_feature_file(path, spec.dim)[:, spec.columns(stream)])
    return read_feature_file(path, width)
