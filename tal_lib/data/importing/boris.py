"""BORIS: the table of aggregated events (CSV or TSV; Observations > Export events > Aggregated events).

State events are segments, labelled by their behavior. Point events have no duration and are left out. Times
of an observation run over all media files of its first player. Each event belongs to the file in which it
starts.

Source: BORIS user guide, "Export events", and the columns that BORIS 9 writes (`export_observation.py`). The
columns of version 7 (`Media file`, `Total length`) are read too.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tal_lib.data.importing.collect import (
    Annotated,
    Options,
    as_label,
    as_time,
    checked,
    left_out,
    media_id,
)
from tal_lib.data.remarks import Remark
from tal_lib.errors import TalError, short
from tal_lib.reading import read_text
from tal_lib.validation import Positive, Rate, validate

NAME = "BORIS"
NEEDED = ("Observation id", "Behavior", "Behavior type", "Start (s)", "Stop (s)")
SHAPE = "Export aggregated events from BORIS as CSV or TSV."
UNKNOWN = ("", "NA", "nan", "None")


@dataclass(frozen=True)
class _Media:
    """The media files of one observation: ids, durations (s) and frame rates, None where not stated."""

    names: list[str]
    durations: list[float | None]
    rates: list[float | None]

    def at(self, start: float, called: str, path) -> tuple[int, float]:
        """(number of the file, its first second) at a time of the observation."""
        if len(self.names) == 1:
            return 0, 0.0
        if None in self.durations:
            raise TalError(
                f"{called}: the observation has {len(self.names)} media files of unknown duration",
                where=path,
                remedy="Export with a current BORIS, which states each file's duration.",
            )
        ends = list(accumulate(duration or 0.0 for duration in self.durations))
        number = next((number for number, end in enumerate(ends) if start < end), len(ends) - 1)
        return number, ends[number - 1] if number else 0.0


def matches(path: Path, start: bytes) -> bool:
    """Whether a file is in this format, by its first bytes."""
    first = start.split(b"\n", 1)[0]
    return b"Observation id" in first and b"Behavior" in first


def read(path: Path, options: Options) -> Iterator[Annotated]:
    """The recordings of a table of aggregated events, one per media file.

    Raises:
        TalError: columns are missing, an observation has no media file or a time offset, or an event has no
            or wrong times.
    """
    rows = _rows(path)
    media: dict[str, _Media] = {}
    segments: dict[str, list] = {}
    facts: dict[str, tuple] = {}
    points: dict[str, int] = {}
    players: set[str] = set()
    for number, row in enumerate(rows, 2):
        called = f"line {number}"
        observation = row["Observation id"]
        if observation not in media:
            media[observation], several = _media(row, called, path)
            players |= set(media[observation].names) if several else set()
            files = media[observation]
            for name, *known in zip(files.names, files.durations, files.rates):
                _remember(facts, name, tuple(known), called, path)
        files = media[observation]
        start = as_time(_stated(row, "Start (s)", called, path), where=path, name=f"{called}, Start (s)")
        at, begin = files.at(start, called, path)
        recording = files.names[at]
        if row["Behavior type"].strip().upper().startswith("POINT"):
            points[recording] = points.get(recording, 0) + 1
            continue
        end = as_time(_stated(row, "Stop (s)", called, path), where=path, name=f"{called}, Stop (s)")
        label = as_label(row["Behavior"], where=path, name=called)
        segment = checked((round(start - begin, 6), round(end - begin, 6), label), where=path, name=called)
        segments.setdefault(recording, []).append(segment)
    for recording, (duration, rate) in facts.items():
        remarks = left_out(recording, points.get(recording, 0), "point events, which have no duration")
        if recording in players:
            text = "the observation has several players: times and names are those of the first"
            remarks += (Remark(recording, "as published", text),)
        yield Annotated(
            recording=recording,
            segments=sorted(segments.get(recording, [])),
            duration=duration,
            fps=rate,
            remarks=remarks,
        )


def _rows(path):
    """The rows of the table as dicts. The separator is the one that the first line has most of."""
    text = read_text(path, what="BORIS table", remedy=SHAPE)
    first = text.partition("\n")[0]
    separator = max(",\t;", key=first.count)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        names = table.fieldnames or []
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise TalError(f"columns missing: {', '.join(missing)}", where=path, remedy=SHAPE)
        if len(set(names)) < len(names):
            raise TalError("two columns have one name", where=path, remedy=SHAPE)
        rows = list(table)
    except csv.Error as error:
        raise TalError(f"not a readable table ({error})", where=path, remedy=SHAPE) from None
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise TalError(
                f"line {number} does not have {len(names)} values",
                where=path,
                remedy="The file may be truncated; export it again.",
            )
    return rows


def _stated(row, column, called, path):
    """The text of a time. `TalError` if there is none, as in observations of pictures."""
    text = row[column].strip()
    if text in UNKNOWN:
        raise TalError(
            f"{called}: no {column}", where=path, remedy="Only observations of media files have times."
        )
    return text


def _media(row, called, path):
    """The media files of a row's observation, and whether it has several players."""
    offset = row.get("Time offset (s)", "").strip()
    if offset not in UNKNOWN and validate(float, offset, where=path, name=f"{called}, Time offset (s)"):
        raise TalError(
            f"{called}: the observation has a time offset of {offset} s",
            where=path,
            remedy="Set it to 0 in BORIS and export again, so that times are the video's.",
        )
    source = row.get("Source") or row.get("Media file") or ""
    first, _, rest = source.partition("|")
    names = first.removeprefix("player #1:").split(";")
    names = [media_id(name) for name in names if name.strip() not in UNKNOWN]
    kind = row.get("Observation type", "Media file").strip().lower()
    if not names or not kind.startswith("media"):
        raise TalError(
            f"{called}: observation {short(row['Observation id'])} has no media file",
            where=path,
            remedy="Export observations of media files; live observations have no video.",
        )
    lengths = row.get("Media duration (s)")
    if lengths is None and len(names) == 1:
        lengths = row.get("Total length")
    durations = _numbers(lengths, len(names), Positive, f"{called}, Media duration (s)", path)
    rates = row.get("FPS (frame/s)") or row.get("FPS")
    return _Media(names, durations, _numbers(rates, len(names), Rate, f"{called}, FPS", path)), bool(rest)


def _numbers(text, count, kind, name, path) -> list[float | None]:
    """One number a media file of the first player; None where it is not stated."""
    parts = [part.strip() for part in (text or "").partition("|")[0].split(";")]
    if len(parts) != count:
        return [None] * count
    return [None if part in UNKNOWN else validate(kind, part, where=path, name=name) for part in parts]


def _remember(facts, name, known, called, path):
    """Keep duration and rate of a media file. Several observations may be of the same video."""
    if facts.setdefault(name, known) != known:
        raise TalError(
            f"{called}: two media files are called {name}", where=path, remedy="Rename one of the videos."
        )
