"""A folder of feature files: which file belongs to which recording, listed once.

    features/<recording>.npy             all streams in one file, or
    features/{rgb,flow}/<recording>.npy  one file per stream

Files may lie in subfolders: the id `P01/P01_02` has the file `P01/P01_02.npy`. An id is looked up in the list
of files, so that no id can lead to a file outside the folder. Id and file name may differ by ActivityNet's
prefix `v_`, unless another recording has exactly the file's name.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tal_lib.data.content import content_hashes
from tal_lib.data.features import (
    SUFFIXES,
    feature_steps,
    is_ambiguous,
    read_array,
    read_feature_file,
    read_feature_part,
)
from tal_lib.errors import TalError
from tal_lib.files import digest

PREFIX = "v_"
SAMPLED = 8  # number of files that are read to guess a spec


class FeatureFolder:
    """The feature files of some recordings.

    Args:
        streams: stream → number of columns, in column order. If every stream has a subfolder, each stream has
            files there. Their arrays are cut to the shortest and joined.
        recordings: all ids of the data set.
        folders: stream → folder of its files, absolute or relative to `folder`, if they lie elsewhere.
        prefix, suffix: what the files' names have around the id.
    """

    def __init__(
        self,
        folder: Path,
        streams: Mapping[str, int],
        recordings: Iterable[str],
        *,
        folders: Mapping[str, str] | None = None,
        prefix: str = "",
        suffix: str = "",
    ):
        self.folder, self.streams = Path(folder), dict(streams)
        self.recordings = set(recordings)
        self.prefix, self.suffix = prefix, suffix
        if folders is not None:
            places = [self.folder / Path(folders[stream]).expanduser() for stream in self.streams]
            one_file = len(set(places)) == 1  # which holds all streams
            widths = [sum(self.streams.values())] if one_file else self.streams.values()
            self.parts = list(zip(places, widths))
            self._files = [_files_below(part) for part, _ in self.parts]
            return
        apart = all((self.folder / stream).is_dir() for stream in self.streams)
        self.parts = (
            [(self.folder / stream, width) for stream, width in self.streams.items()]
            if apart
            else [(self.folder, sum(self.streams.values()))]
        )
        self._files = [_files_below(part) for part, _ in self.parts]

    def names(self) -> list[str]:
        """Ids of all files below the folder, also of files that belong to no recording."""
        return sorted(set().union(*self._files))

    def files_of(self, recording: str) -> list[Path] | None:
        """The files of a recording: one per stream, or one for all streams. None if one is missing."""
        paths = [self._find(files, recording) for files in self._files]
        return None if None in paths else paths  # pyright: ignore[reportReturnType]

    def missing(self, recordings: Iterable[str]) -> list[str]:
        """The recordings that lack a file."""
        return [recording for recording in recordings if self.files_of(recording) is None]

    def load(self, recording: str) -> np.ndarray:
        """Features (T, D) of a recording.

        Raises:
            TalError: a file is missing or cannot be used.
        """
        return _joined([read_feature_file(*part) for part in self._located(recording)])

    def load_part(self, recording: str, first: int, last: int) -> np.ndarray:
        """Steps `first` to `last` (excluded) of a recording. Of `.npy` files only these are read.

        Raises:
            TalError: a file is missing or cannot be used.
        """
        return _joined([read_feature_part(*part, first, last) for part in self._located(recording)])

    def steps(self, recording: str) -> int:
        """Number of steps of a recording. Of `.npy` files only the headers are read.

        Raises:
            TalError: a file is missing or cannot be used.
        """
        return min(feature_steps(*part) for part in self._located(recording))

    def _located(self, recording):
        """(file, columns) of each part of a recording. `TalError` if one is missing."""
        files = self.files_of(recording)
        if files is None:
            part = next(
                part
                for (part, _), files in zip(self.parts, self._files)
                if self._find(files, recording) is None
            )
            raise TalError(
                "feature file not found",
                where=f"{part}, recording {recording}",
                remedy=f"Put {recording}.npy (or {', '.join(SUFFIXES[1:])}) there.",
            )
        return [(file, width) for file, (_, width) in zip(files, self.parts)]

    def ambiguous(self, recording: str) -> bool:
        """Whether the shape of a file of this recording does not show which axis is time."""
        return any(
            is_ambiguous(file, width)
            for file, (_, width) in zip(
                self.files_of(recording),  # pyright: ignore[reportArgumentType]
                self.parts,
            )
        )

    def content_hash(self, name: str) -> str:
        """A hash of the contents of all recordings' files and of the data set's `name`."""
        files = {recording: self.files_of(recording) for recording in sorted(self.recordings)}
        files = {recording: paths for recording, paths in files.items() if paths}
        hashes = content_hashes([path for paths in files.values() for path in paths])
        return digest(
            name, [[recording, *(hashes[path] for path in paths)] for recording, paths in files.items()]
        )

    def _find(self, files, recording):
        for name in self._names(recording):
            if name in files:
                return files[name]
        return None

    def _names(self, recording):
        if self.prefix or self.suffix:
            place, slash, name = recording.rpartition("/")
            yield f"{place}{slash}{self.prefix}{name}{self.suffix}"
        yield recording
        other = recording.removeprefix(PREFIX) if recording.startswith(PREFIX) else PREFIX + recording
        if other and other not in self.recordings:
            yield other


def _files_below(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix → feature file. Links are followed, hidden files are not read."""
    by_name: dict[str, Path] = {}
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(place, folder)
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            key = (stem if below == "." else os.path.join(below, stem)).replace(os.sep, "/")
            path = Path(place, name)
            if key not in by_name or _order(path) < _order(by_name[key]):
                by_name[key] = path
    return by_name


def _joined(arrays):
    """The streams of a recording side by side, cut to the shortest."""
    steps = min(map(len, arrays))
    return np.hstack([array[:steps] for array in arrays]) if len(arrays) > 1 else arrays[0]


def _order(path):
    return SUFFIXES.index(path.suffix.lower())


def seen_shapes(folder: Path, recordings: Iterable[str]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Stream → recording → shape, of a few files of a folder without a spec. Unreadable files are skipped."""
    folder, recordings = Path(folder), list(recordings)
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    apart = [name for name in inside if set(_files_below(folder / name)) & _all_names(recordings)]
    shapes = {}
    for stream, place in [(name, folder / name) for name in apart] or [("features", folder)]:
        files = FeatureFolder(place, {"features": 1}, recordings)
        for recording in recordings:
            if len(shapes.get(stream, {})) < SAMPLED and (paths := files.files_of(recording)):
                try:
                    shapes.setdefault(stream, {})[recording] = read_array(paths[0]).shape
                except TalError:
                    continue
    return shapes


def _all_names(recordings):
    return {
        name
        for recording in recordings
        for name in (recording, PREFIX + recording, recording.removeprefix(PREFIX))
    }
