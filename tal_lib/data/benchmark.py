"""A benchmark: recordings with features, annotated segments, classes, and the tIoU thresholds of its
evaluation."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tal_lib.data import folds as cross_validation
from tal_lib.data.features import check_features
from tal_lib.data.loading import Loading
from tal_lib.data.remarks import Remark
from tal_lib.data.standardise import Standardised
from tal_lib.data.tables import check_annotations
from tal_lib.errors import TalError
from tal_lib.files import digest
from tal_lib.validation import Count, Positive, validate

if TYPE_CHECKING:  # for annotations only
    from tal_lib.data.feature_folder import FeatureFolder
    from tal_lib.data.inertial import Inertial

LEAST_STEPS = 4  # of a typical recording, where steps are skipped


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """How features relate to time, and which columns belong to which stream.

    The window of step `t` is centred at `t * stride_s + window_s / 2` seconds.
    """

    stride_s: Positive  # seconds between steps
    window_s: Positive  # seconds that one step sees
    streams: Mapping[str, Count]  # stream name -> number of columns, in column order

    @property
    def dim(self) -> int:
        """Number of columns of all streams together."""
        return sum(self.streams.values())

    def columns(self, stream: str | None) -> slice:  # pyright: ignore[reportReturnType]
        """Columns of one stream (all of them for None)."""
        if stream is None:
            return slice(0, self.dim)
        if stream not in self.streams:
            raise TalError(f"no stream {stream!r}", remedy=f"Choose from {', '.join(self.streams)}.")
        first = 0
        for name, width in self.streams.items():
            if name == stream:
                return slice(first, first + width)
            first += width


class Benchmark:
    """Recordings, annotations and features of one data set.

    Args:
        recordings: one row per recording: `recording, split, duration` (s). The columns `stride_s, window_s`
            are optional, for time axes that differ by recording (frame rates, resized features).
        annotations: one row per segment: `recording, start, end, label`.
        load_features: recording id → array (T, D).
        load_part: (recording id, first, last) → steps `first` to `last` (excluded), if a part can be read
            without the rest.
        count_steps: recording id → T, if T can be known without reading the features.
        source_hash: a hash of the feature data, or a function that computes it; a part of `data_hash`.
        notes: what the loader repaired in the published files, or noticed.
        ends_checked: refuse segments that end after their recording (published files have some).
        inertial: how columns hold the signals of three-axis sensors, if they do.
        files: the folder of feature files that `load_features` reads, if there is one.
        people: recording id → person; None: unknown, then every recording is a group of its own.
        folds: the test groups (people, or recordings) of each fold; None: five random folds by seed.
        standardise: recordings → features standardised by the statistics of these. None: features are used as
            they are. `load_features` gives the features of the official split.
        statistics_of_split: standardise by the whole training part, also where a cell learns from a subset.
        resplit: (training groups, test groups) → the data set with this split, where the recordings of a
            group depend on its side. None: they are the same on both sides.
    """

    def __init__(
        self,
        *,
        name: str,
        classes,
        tious,
        feature_spec: FeatureSpec,
        recordings: pd.DataFrame,
        annotations: pd.DataFrame,
        load_features: Callable[[str], np.ndarray],
        load_part: Callable[[str, int, int], np.ndarray] | None = None,
        count_steps: Callable[[str], int] | None = None,
        source_hash: str | Callable[[], str],
        where: str | None = None,
        notes: tuple[Remark, ...] = (),
        ends_checked: bool = True,
        inertial: "Inertial | None" = None,
        files: "FeatureFolder | None" = None,
        people: Mapping[str, str] | None = None,
        folds: Sequence[Sequence[str]] | None = None,
        standardise: Callable[[Collection[str]], Standardised] | None = None,
        statistics_of_split: bool = False,
        resplit: "Callable[[Collection[str], Collection[str]], Benchmark] | None" = None,
    ):
        where = where or name
        duplicates = recordings.recording[recordings.recording.duplicated()]
        if len(duplicates):
            raise TalError(
                f"recording {duplicates.iloc[0]} is listed twice",
                where=where,
                remedy="Keep one row per recording.",
            )
        bad = recordings[~(recordings.duration > 0) | ~np.isfinite(recordings.duration)]
        if len(bad):
            raise TalError(
                f"recording {bad.recording.iloc[0]} has duration {bad.duration.iloc[0]}",
                where=where,
                remedy="Give every recording its duration in seconds.",
            )
        self.name = name
        self.root: Path | None = None  # data folder, if one was named
        self.taxonomy: Path | None = None  # file of its class taxonomy, if it has one
        self.classes = tuple(classes)
        self.tious = tuple(tious)
        self.feature_spec = feature_spec
        self.inertial = inertial
        self._recordings = recordings.set_index("recording", drop=False)
        self._annotations = check_annotations(
            annotations,
            durations=self._recordings.duration if ends_checked else None,
            classes=self.classes,
            where=where,
        )
        # annotations, and which of their rows each recording has: no search of the whole table per recording
        self._rows: tuple[pd.DataFrame, Mapping] | None = None
        self.notes = tuple(notes)
        self._load_features, self._load_part, self._count_steps = load_features, load_part, count_steps
        self._steps: dict[str, int] = {}
        self._decided: tuple[Loading, bool] | None = None
        self.loading = Loading.default()  # how features reach a model; may be replaced before the first use
        self._cache: dict[str, np.ndarray] = {}
        self._source_hash = source_hash
        self.files = files
        self.loader = getattr(load_features, "func", load_features).__module__  # module of the features
        self.partition = ""  # the split: a fold, a validation part; empty: the official one
        self._people = dict(people) if people is not None else None
        self._folds = None if folds is None else tuple(tuple(sorted(groups)) for groups in folds)
        self._standardise = standardise
        self._standardised: Standardised | None = None  # what features are now; None: see `standardised`
        self._statistics_of_split = statistics_of_split
        self._resplit = resplit
        self._every = 1  # of so many steps of the files, one is used

    @cached_property
    def data_hash(self) -> str:
        """A hash of recordings, annotations, time axis and features. Feature files are read once to compute
        it."""
        spec = self.feature_spec
        return digest(
            self._source_hash if isinstance(self._source_hash, str) else self._source_hash(),
            self._recordings.to_csv(index=False),
            self._annotations.to_csv(index=False),
            [spec.stride_s, spec.window_s, dict(spec.streams)],
        )

    def __repr__(self):
        counts = ", ".join(
            f"{count} {split}" for split, count in self._recordings.split.value_counts().items()
        )
        data = f"{len(self.classes)} classes, data {self.data_hash}"
        partition = f", {self.partition}" if self.partition else ""
        return f"Benchmark({self.name!r}{partition}: {counts} recordings, {data})"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, `train` first."""
        return tuple(sorted(self._recordings.split.unique(), key=lambda split: (split != "train", split)))

    def recordings(self, split: str | None = None) -> list[str]:
        """Recording ids of a split (all for None), in the order of the data set."""
        table = self._recordings
        if split is not None:
            if split not in self.splits:
                raise TalError(
                    f"{self.name} has no split {split!r}", remedy=f"Choose from {', '.join(self.splits)}."
                )
            table = table[table.split == split]
        return table.recording.tolist()

    def annotations(self, split: str | None = None) -> pd.DataFrame:
        """Annotated segments `recording, start, end, label` of a split (all for None)."""
        recordings = self.recordings(split)
        return self._annotations[  # pyright: ignore[reportReturnType]
            self._annotations.recording.isin(recordings)
        ].reset_index(drop=True)

    def annotations_of(self, recordings) -> pd.DataFrame:
        """Annotated segments of the given recording ids."""
        chosen = dict.fromkeys(recordings)
        unknown = sorted(name for name in chosen if name not in self._recordings.index)
        if unknown:
            raise TalError(
                f"{self.name} has no recording {unknown[0]!r}",
                remedy="Take ids from benchmark.recordings().",
            )
        known = self._rows
        if known is None or known[0] is not self._annotations:  # a view may have other annotations
            known = self._rows = self._annotations, self._annotations.groupby("recording", sort=False).indices
        rows = [known[1][name] for name in chosen if name in known[1]]
        return self._annotations.iloc[np.sort(np.concatenate(rows)) if rows else []].reset_index(drop=True)

    def duration(self, recording_id: str) -> float:
        """Seconds of one recording."""
        return float(self._row(recording_id).duration)

    def table(self) -> pd.DataFrame:
        """One row per recording: `recording, split, duration`, and the time axis if it differs."""
        return self._recordings.reset_index(drop=True)

    def time_axis(self, recording_id: str) -> tuple[float, float]:
        """(stride_s, window_s) of one recording's steps."""
        row = self._row(recording_id)
        return (
            float(row.get("stride_s", self.feature_spec.stride_s)),
            float(row.get("window_s", self.feature_spec.window_s)),
        )

    @property
    def people(self) -> tuple[str, ...]:
        """The people of the recordings, sorted. Empty if they are unknown."""
        if self._people is None:
            return ()
        return tuple(sorted({self._people[recording] for recording in self._recordings.index}))

    def group(self, recording_id: str) -> str:
        """The person of a recording. If people are unknown, the recording itself."""
        self._row(recording_id)
        return self._groups()[recording_id]

    def _groups(self):
        if self._people is None:
            return {recording: recording for recording in self._recordings.index}
        return self._people

    @property
    def folds(self) -> tuple[tuple[str, ...], ...]:
        """The test groups of each cross-validation fold; every group is in one of them."""
        if self._folds is None:
            groups = self._groups()
            self._folds = cross_validation.seeded_folds(groups[name] for name in self._recordings.index)
        return self._folds

    def fold(self, number: int | None) -> "Benchmark":
        """The data set split by a fold: its test groups against all others, whatever the official split.

        Args:
            number: from 0; None or −1 is the official split, which is this benchmark itself.

        Raises:
            TalError: there is no such fold.
        """
        if number is None or number == cross_validation.OFFICIAL:
            return self
        cross_validation.check_fold(number, len(self.folds), self.name)
        table = cross_validation.with_fold(self.table(), self._groups(), self.folds[number])
        return self._split_as(table, f"fold {number}", self.folds)

    def validation(self) -> "Benchmark":
        """The training part alone, with a quarter of its people (or recordings) held out as `test`.

        So design decisions never use the test recordings.
        """
        table = cross_validation.with_validation(self.table(), self._groups(), self.name)
        return self._split_as(table, " ".join(filter(None, [self.partition, "validation"])), ())

    def every(self, skip: int) -> "Benchmark":
        """The data set with every `skip`-th step of its features: a longer stride, the same window.

        This is the frame skip of Ullah et al. (IEEE Access 2018) on a sequence of features. It saves compute
        and loses precision of boundaries.

        Raises:
            TalError: fewer than `LEAST_STEPS` steps would be left of most recordings.
        """
        if skip == 1:
            return self
        self.check_skip(skip)
        view = copy(self)
        view.__dict__.pop("data_hash", None)
        view.feature_spec = replace(self.feature_spec, stride_s=self.feature_spec.stride_s * skip)
        view._recordings = self._recordings.copy()
        if "stride_s" in view._recordings:
            view._recordings["stride_s"] *= skip
        view.partition = ", ".join(filter(None, [self.partition, f"every {skip} steps"]))
        view._every, view._cache, view._steps, view._decided = self._every * skip, {}, {}, None
        return view

    def check_skip(self, skip: int, where: object = None) -> None:
        """Raise `TalError` if `every(skip)` leaves fewer than `LEAST_STEPS` steps of most recordings."""
        skip = validate(Count, skip, where=where, name="skip")
        typical = float((self._recordings.duration / self._strides()).median())  # steps of a recording
        if skip > 1 and typical < LEAST_STEPS * skip:
            raise TalError(
                f"skip: {skip} leaves {typical / skip:.2g} of the {typical:.0f} steps of a typical recording",
                where=where or self.name,
                remedy=f"Choose at most {max(1, int(typical / LEAST_STEPS))}.",
            )

    def _strides(self):
        """Seconds between steps: one number, or one per recording."""
        return self._recordings.get("stride_s", self.feature_spec.stride_s)

    def learning_from(self, recordings: Collection[str]) -> "Benchmark":
        """The benchmark for a cell that may learn from these training recordings only.

        Its features are standardised by the statistics of these recordings. It is this benchmark itself where
        features are used as they are, or where the official split's statistics are fixed.
        """
        if self._standardise is None or self._statistics_of_split:
            return self
        view = copy(self)
        view._standardise_by(recordings)
        return view

    @property
    def standardised(self) -> Standardised | None:
        """The raw features, and the statistics that standardise them. None: features are used as they are."""
        if self._standardised is None and self._standardise is not None:  # of the official split
            self._standardised = self._standardise(self.recordings("train"))
        return self._standardised

    def standardised_as(self, other: "Benchmark") -> "Benchmark":
        """The benchmark with its features standardised by the statistics of another one's.

        Raises:
            TalError: one of them is standardised and the other is not.
        """
        ours, theirs = self.standardised, other.standardised
        if (ours is None) != (theirs is None):
            name = self.name if ours is not None else other.name
            raise TalError(
                f"the features of {name} are standardised, those of the other benchmark are not",
                remedy=f"Treat the features of {self.name} and {other.name} in the same way.",
            )
        if ours is None or theirs is None:
            return self
        view = copy(self)
        view._use(ours.by(theirs))
        return view

    def _split_as(self, table, partition, folds):
        """This data set with other splits (a table `recording, split, …`), standardised by its training
        part."""
        if self._resplit is None:
            return self._view(table, partition, folds)
        groups = table.recording.map(self._groups())
        made = self._resplit(set(groups[table.split == "train"]), set(groups[table.split == "test"]))
        made.name, made.root, made.taxonomy, made.loading = self.name, self.root, self.taxonomy, self.loading
        made.partition, made._folds = partition, folds
        return made.every(self._every)

    def _view(self, table, partition, folds):
        view = copy(self)
        view.__dict__.pop("data_hash", None)  # cached
        view._recordings = table.set_index("recording", drop=False)
        view._annotations = self.annotations_of(table.recording)
        view.partition, view._folds = partition, folds
        view._cache, view._statistics_of_split = {}, False
        if self._standardise is not None:
            view._standardise_by(view.recordings("train"))
        return view

    def _standardise_by(self, recordings):
        self._use(self._standardise(recordings))  # pyright: ignore[reportOptionalCall]

    def _use(self, standardised):
        self._standardised = standardised
        self._load_features, self.inertial, self._cache = standardised.load, standardised.inertial, {}
        self._load_part = None  # it would read features that are not standardised

    def features(self, recording_id: str, stream: str | None = None) -> np.ndarray:
        """Features (T, D) of one recording, float32. If a stream is named, only its columns.

        They stay in memory if `in_memory`.
        """
        self._row(recording_id)
        features = self._cache.get(recording_id)
        if features is None:
            features = check_features(
                self._load_features(recording_id)[:: self._every],
                dim=self.feature_spec.dim,
                where=f"{self.name}, recording {recording_id}",
            )
            if self.in_memory:
                self._cache[recording_id] = features
        return features[:, self.feature_spec.columns(stream)]

    def part(self, recording_id: str, first: int, last: int, stream: str | None = None) -> np.ndarray:
        """Steps `first` to `last` (excluded) of `features`. Only these are read where the loader can do so.

        Then only these are checked for NaN.
        """
        self._row(recording_id)
        if self._load_part is None or self._every > 1 or recording_id in self._cache:
            return self.features(recording_id, stream)[first:last]
        features = check_features(
            self._load_part(recording_id, first, last),
            dim=self.feature_spec.dim,
            where=f"{self.name}, recording {recording_id}",
            first=first,
        )
        return features[:, self.feature_spec.columns(stream)]

    def steps(self, recording_id: str) -> int:
        """Number of steps of one recording. Features are read only if the loader cannot tell it without."""
        self._row(recording_id)
        if recording_id not in self._steps:
            known = self._count_steps if recording_id not in self._cache else None
            self._steps[recording_id] = (
                -(-known(recording_id) // self._every) if known else len(self.features(recording_id))
            )
        return self._steps[recording_id]

    @property
    def feature_bytes(self) -> int:
        """Memory of the features of all recordings as float32, by durations and strides."""
        return int(4 * self.feature_spec.dim * (self._recordings.duration / self._strides()).sum())

    @property
    def in_memory(self) -> bool:
        """Whether features stay in memory once they are read. `loading` decides, and the decision stays."""
        if self._decided is None or self._decided[0] != self.loading:
            self._decided = self.loading, self.loading.keeps(self.feature_bytes)
        return self._decided[1]

    def holds(self, recording_id: str) -> bool:
        """Whether the features of one recording are in memory."""
        return recording_id in self._cache

    def forget(self, recording_id: str) -> None:
        """Drop one recording's features from memory."""
        self._cache.pop(recording_id, None)

    def _row(self, recording_id):
        try:
            return self._recordings.loc[recording_id]
        except KeyError:
            raise TalError(
                f"{self.name} has no recording {recording_id!r}",
                remedy="Take ids from benchmark.recordings().",
            ) from None
