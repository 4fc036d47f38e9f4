"""What the exporters share: layers of segments of recordings, for correction by a person."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tal_lib.data.tables import check_annotations, check_detections
from tal_lib.errors import TalError, short

MOST_BYTES = 200  # of a file's name without suffix


@dataclass(frozen=True)
class Layers:
    """Segments of recordings, in named layers: `annotations`, and `detections`, which have a score.

    Each layer is a table `recording, start, end, label` (s). `videos` gives the path of a recording's video.
    """

    tables: Mapping[str, pd.DataFrame]
    recordings: tuple[str, ...]
    videos: Mapping[str, Path] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted(set().union(*(table.label for table in self.tables.values())))

    def of(self, recording: str) -> dict[str, pd.DataFrame]:
        """The layers of one recording, their segments in order of time."""
        return {
            name: table[table.recording == recording].sort_values(["start", "end"], kind="stable")  # pyright: ignore[reportCallIssue]
            for name, table in self.tables.items()
        }


def layers(
    *,
    annotations: pd.DataFrame | None = None,
    detections: pd.DataFrame | None = None,
    recordings: Iterable[str] = (),
    videos: Mapping[str, Path] | None = None,
    min_score: float | None = None,
    top: int | None = None,
) -> Layers:
    """Checked layers of what is to be exported.

    Args:
        recordings: ids; also those without segments. Those of the tables are added.
        min_score, top: of the detections only these: at least that score, this many per recording.

    Raises:
        TalError: a table that does not fit, or ids and labels that are not one line of text.
    """
    tables = {}
    if annotations is not None:
        tables["annotations"] = check_annotations(annotations)
    if detections is not None:
        table = check_detections(detections)
        table = table if min_score is None else table[table.score >= min_score]
        if top is not None:
            table = table.sort_values("score", ascending=False, kind="stable").groupby("recording").head(top)  # pyright: ignore[reportCallIssue]
        tables["detections"] = table[table.end > 0].assign(start=table.start.clip(lower=0))  # pyright: ignore[reportAttributeAccessIssue]
    ids = dict.fromkeys(recordings)
    for table in tables.values():
        ids |= dict.fromkeys(table.recording)
    result = Layers(tables, tuple(ids), dict(videos or {}))
    for what, names in (("recording id", ids), ("label", result.labels)):
        for name in names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise TalError(f"{what} {short(name)} is not one line of text", remedy="Rename it first.")
    return result


def milliseconds(start: float, end: float) -> tuple[int, int]:
    """Start and end in whole milliseconds; at least one apart."""
    first = round(start * 1000)
    return first, max(first + 1, round(end * 1000))


def file_names(recordings: Iterable[str], suffix: str) -> dict[str, str]:
    """Recording id → the name of its file.

    Raises:
        TalError: two ids would have one file.
    """
    names: dict[str, str] = {}
    for recording in recordings:
        plain = re.sub(r"[^\w .-]", "_", recording).lstrip(".").strip()
        while len(plain.encode()) > MOST_BYTES:
            plain = plain[:-1]
        name = (plain or "recording") + suffix
        if name.lower() in (other.lower() for other in names.values()):
            raise TalError(
                f"recording {recording} would be written to the same file as another one, {name}",
                remedy="Export them into two folders, or rename one.",
            )
        names[recording] = name
    return names
