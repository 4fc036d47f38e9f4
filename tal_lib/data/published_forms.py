"""Annotations in the form of their owners, where that is not the field's JSON.

    epic_kitchens/EPIC_100_train.csv, EPIC_100_validation.csv, EPIC_100_video_info.csv
                  EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv    optional: names of the classes
    ego4d_mq/moments_train.json, moments_val.json
    charades/Charades_v1_train.csv, Charades_v1_test.csv
    multithumos/annotations/<class>.txt    and, for the durations, multithumos/thumos14.json or
                                           thumos14/thumos14.json
    multithumos/multithumos.json, charades/charades.json    the JSON of Super-Events, with lists of `actions`

Each function returns None if its files are not there, or hold another form.

Sources: epic-kitchens/epic-kitchens-100-annotations, README; Ego4D documentation, "Annotation Schemas"; the
READMEs of Charades and MultiTHUMOS; how OpenTAD converts them (`tools/prepare_data`);
piergiaj/super-events-cvpr18 (classes count from 1 in MultiTHUMOS, from 0 in Charades).
"""

import csv
import io
import re
from pathlib import Path

import pandas as pd

from tal_lib.data.annotations import AnnotationFile, check_recordings, check_unit, read_annotations
from tal_lib.data.remarks import ALL, Remark, beyond_remarks
from tal_lib.data.tables import ANNOTATION_COLUMNS
from tal_lib.errors import TalError, short
from tal_lib.reading import read_json, read_text
from tal_lib.validation import Positive, Whole, validate

AGAIN = "Download the data set's annotations again."
RATES = (10.0, 100.0)  # frames per second; clips of Ego4D outside are left out, as in OpenTAD


def epic_kitchens(folder: Path, what: str) -> AnnotationFile | None:
    """EPIC-KITCHENS-100 with the labels of its verbs or nouns (`what`).

    A label is the class's name, `id_<number>` if the table of classes is not there.
    """
    if not (folder / "EPIC_100_train.csv").is_file():
        return None
    durations = {
        row["video_id"]: _number(Positive, row, "duration", where)
        for row, where in _table(folder / "EPIC_100_video_info.csv", "video_id", "duration")
    }
    names, remarks = {}, []
    classes = folder / f"EPIC_100_{what}_classes.csv"
    if classes.is_file():
        names = {
            int(_number(Whole, row, "id", where)): row["key"] for row, where in _table(classes, "id", "key")
        }
    else:
        remarks.append(Remark(ALL, "labels", f"{classes.name} is not there: labels are the classes' numbers"))
    recordings, segments = {}, []
    columns = ("video_id", "start_timestamp", "stop_timestamp", f"{what}_class")
    for split, file in (("train", "EPIC_100_train.csv"), ("validation", "EPIC_100_validation.csv")):
        for row, where in _table(folder / file, *columns):
            name = row["video_id"]
            if name not in durations:
                raise TalError(f"video {name} is not in EPIC_100_video_info.csv", where=where, remedy=AGAIN)
            if recordings.setdefault(name, split) != split:
                raise TalError(f"video {name} is in two splits", where=where, remedy=AGAIN)
            number = int(_number(Whole, row, columns[3], where))
            times = (_clock(row[column], where) for column in columns[1:3])
            segments.append((name, *times, names.get(number, f"id_{number:03d}")))
    table = [(name, split, durations[name], float("nan")) for name, split in recordings.items()]
    return _content(table, segments, remarks, folder)


def ego4d(folder: Path) -> AnnotationFile | None:
    """Ego4D Moment Queries: the clips, with the labels that are marked as primary, of all annotators.

    Clips without such a label are left out, as OpenTAD does.
    """
    if not (folder / "moments_train.json").is_file():
        return None
    table, segments, odd = [], [], 0
    for split, file in (("train", "moments_train.json"), ("validation", "moments_val.json")):
        path = folder / file
        content = read_json(path, what="annotation file", remedy=AGAIN)
        for clip in _parts(_parts([content], "videos", path), "clips", path):
            name = clip.get("clip_uid")
            where = f"{path}, clip {name}"
            begin, end, first, last = (
                validate(float, clip.get(f"video_{part}"), where=where, name=f"video_{part}", remedy=AGAIN)
                for part in ("start_sec", "end_sec", "start_frame", "end_frame")
            )
            begin = max(begin, 0.0)
            duration = validate(Positive, round(end - begin, 4), where=where, name="duration", remedy=AGAIN)
            rate = (int(last) - max(int(first), 0)) / duration
            if not RATES[0] <= rate <= RATES[1]:
                odd += 1
                continue
            rows = [
                (
                    name,
                    _since(item, "start", begin, where),
                    _since(item, "end", begin, where),
                    item["label"],
                )
                for item in _parts(_parts([clip], "annotations", path), "labels", path)
                if item.get("primary")
            ]
            if rows:
                table.append((name, split, duration, rate))
                segments += rows
    text = f"{odd:,} clips of an impossible frame rate are left out"
    return _content(table, segments, [Remark(ALL, "left out", text)] if odd else [], folder)


def charades(folder: Path) -> AnnotationFile | None:
    """Charades: the column `actions` has `class start end`, separated by `;`."""
    if not (folder / "Charades_v1_train.csv").is_file():
        return None
    table, segments = [], []
    for split, file in (("train", "Charades_v1_train.csv"), ("test", "Charades_v1_test.csv")):
        for row, where in _table(folder / file, "id", "actions", "length"):
            table.append((row["id"], split, _number(Positive, row, "length", where), float("nan")))
            for action in filter(None, row["actions"].split(";")):
                match = re.fullmatch(r"(c\d{3}) ([\d.]+) ([\d.]+)", action.strip())
                if not match:
                    raise TalError(
                        f"action {short(action)} is not 'class start end'", where=where, remedy=AGAIN
                    )
                times = (validate(float, text, where=where, name="actions") for text in match.groups()[1:])
                segments.append((row["id"], *times, match[1]))
    return _content(table, segments, [], folder)


def multithumos(folder: Path) -> AnnotationFile | None:
    """MultiTHUMOS: a text file per class with lines `video start end` in seconds.

    The name of a video says its split, as in THUMOS14: `validation` is for training. The files do not hold
    durations; these are THUMOS14's. Videos without a duration are left out.
    """
    files = sorted(path for path in (folder / "annotations").glob("*.txt") if path.stem != "README")
    if not files:
        return None
    places = [folder / "thumos14.json", folder.parent / "thumos14" / "thumos14.json"]
    durations = next((path for path in places if path.is_file()), None)
    if durations is None:
        raise TalError(
            "the durations of the videos are not known: the text files of MultiTHUMOS do not hold them",
            where=folder,
            remedy=f"Put the annotations of THUMOS14 at {places[1]}.",
        )
    known = read_annotations(durations, repair=True).recordings.set_index("recording")
    names = _class_list(folder)
    spelling = {name.lower(): name for name in names.values()}
    segments, unknown = [], set()
    for path in files:
        label = spelling.get(path.stem.lower(), path.stem)
        if names and label not in names.values():
            raise TalError("this class is not in class_list.txt", where=path, remedy=AGAIN)
        for number, line in enumerate(read_text(path, what="annotations", remedy=AGAIN).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            parts = line.split()
            if len(parts) != 3 or not parts[0].startswith(("video_validation_", "video_test_")):
                raise TalError(
                    f"{short(line)} is not 'video_validation_… start end' or 'video_test_… start end'",
                    where=where,
                    remedy=AGAIN,
                )
            times = [validate(float, text, where=where, name="time", remedy=AGAIN) for text in parts[1:]]
            if parts[0] in known.index:
                segments.append((parts[0], *times, label))
            else:
                unknown.add(parts[0])
    table = [
        (
            name,
            "train" if name.startswith("video_validation_") else "validation",
            known.duration[name],
            known.fps[name],
        )
        for name in sorted({row[0] for row in segments})
    ]
    listed = ", ".join(sorted(unknown))
    text = f"{len(unknown)} videos that {durations.name} does not hold are left out: {listed}"
    return _content(table, segments, [Remark(ALL, "left out", text)] if unknown else [], folder)


def action_lists(path: Path, first: int, label: str, test: str) -> AnnotationFile | None:
    """`{video: {"subset", "duration", "actions": [[class, start, end], …]}}`, times in seconds.

    Args:
        first: number of the first class.
        label: the label of a class that `class_list.txt` beside the file does not name, such as `c{:03d}`.
        test: the split of the subset `testing`.
    """
    content = read_json(path, what="annotation file", remedy=AGAIN)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(entry, dict) and "actions" in entry for entry in content.values())
    ):
        return None
    names, table, segments, remarks = _class_list(path.parent), [], [], []
    for name, entry in content.items():
        where = f"{path}, {name}"
        duration = validate(Positive, entry.get("duration"), where=where, name="duration", remedy=AGAIN)
        subset = entry.get("subset")
        if subset not in ("training", "testing"):
            raise TalError(
                f"subset: {short(subset)} is neither training nor testing", where=where, remedy=AGAIN
            )
        table.append((name, "train" if subset == "training" else test, duration, float("nan")))
        actions = validate(list[tuple[Whole, float, float]], entry["actions"], where=where, name="actions")
        for number, start, end in actions:
            if number < first or (names and number not in names):
                raise TalError(f"actions: there is no class {number}", where=where, remedy=AGAIN)
            segments.append((name, start, end, names.get(number, label.format(number))))
    if not names:
        remarks.append(Remark(ALL, "labels", "class_list.txt is not there: labels are the classes' numbers"))
    return _content(table, segments, remarks, path)


def _class_list(folder):
    """Class number → name of `class_list.txt`, lines `1 BaseballPitch`; empty if it is not there."""
    path = folder / "class_list.txt"
    names = {}
    if path.is_file():
        for number, line in enumerate(read_text(path, what="list of classes").splitlines(), 1):
            match = re.fullmatch(r"(\d+)\s+(\S+)", line.strip())
            if match:
                names[int(match[1])] = match[2]
            elif line.strip():
                raise TalError(
                    f"{short(line)} is not 'number name'", where=f"{path}, line {number}", remedy=AGAIN
                )
    return names


def _content(table, segments, remarks, where):
    """The contents; what is repaired or looks wrong gets a remark."""
    recordings = pd.DataFrame(table, columns=["recording", "split", "duration", "fps"])
    rows = pd.DataFrame(segments, columns=ANNOTATION_COLUMNS).astype({"start": float, "end": float})
    check_recordings(recordings, where)
    check_unit(recordings, rows, where)
    early, empty = rows.start < 0, (rows.start >= rows.end) | (rows.end <= 0)
    for chosen, text in (
        (early & ~empty, "segments that start before the recording now start with it"),
        (empty, "segments without length are dropped"),
    ):
        if chosen.any():
            remarks.append(Remark(ALL, "repaired", f"{int(chosen.sum()):,} {text}"))
    rows = rows.assign(start=rows.start.clip(lower=0))[~empty].reset_index(drop=True)
    remarks += beyond_remarks(rows, recordings.set_index("recording").duration)  # pyright: ignore[reportArgumentType]
    return AnnotationFile(recordings, rows, tuple(remarks))  # pyright: ignore[reportArgumentType]


def _table(path, *columns):
    """(row, place for errors) of a CSV file that has these columns."""
    text = read_text(path, what="annotation table", remedy=AGAIN)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [name for name in columns if name not in (table.fieldnames or [])]
        if missing:
            raise TalError(f"columns missing: {', '.join(missing)}", where=path, remedy=AGAIN)
        rows = list(table)
    except csv.Error as error:
        raise TalError(f"not a readable table ({error})", where=path, remedy=AGAIN) from None
    for number, row in enumerate(rows, 2):
        if any(row[name] is None for name in columns):
            raise TalError(f"line {number} is cut off", where=path, remedy=AGAIN)
        yield row, f"{path}, line {number}"


def _number(kind, row, column, where):
    return validate(kind, row[column], where=where, name=column, remedy=AGAIN)


def _clock(text, where):
    """Seconds of `HH:MM:SS.ss`."""
    match = re.fullmatch(r"(\d{1,3}):(\d{2}):(\d{2}(?:\.\d+)?)", text.strip())
    if not match:
        raise TalError(f"{short(text)} is not HH:MM:SS.ss", where=where, remedy=AGAIN)
    hours, minutes, seconds = match.groups()
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 6)


def _since(item, end, begin, where):
    """Seconds from the beginning of the clip to the `start` or `end` of a label."""
    column = f"video_{end}_time"
    label = item.get("label")
    if not isinstance(label, str) or not label.strip():
        raise TalError("a label without name", where=where, remedy=AGAIN)
    return round(validate(float, item.get(column), where=where, name=column, remedy=AGAIN) - begin, 4)


def _parts(items, name, path):
    """The objects in the list `name` of each of some objects."""
    for item in items:
        parts = item.get(name) if isinstance(item, dict) else None
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise TalError(f"unexpected JSON structure: no list {name!r}", where=path, remedy=AGAIN)
        yield from parts
