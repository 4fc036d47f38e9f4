"""Recordings and labels in a file of detections or scores → ids and labels of the annotations."""

import difflib
from collections.abc import Iterable, Mapping

import pandas as pd

from tal_lib.data.annotations import MOST_BEYOND, AnnotationFile
from tal_lib.data.remarks import far_beyond, looks_like, same_label
from tal_lib.errors import TalError

PREFIX = "v_"  # prefix of ActivityNet's video ids
LISTED = 5  # number of unknown labels in one message


def match_recordings(written: Iterable[str], known: Iterable[str], *, where: object) -> dict[str, str]:
    """Id in the file → id in the annotations. Unknown ids are left out.

    An id that is in the annotations matches itself. Otherwise ids may differ by ActivityNet's prefix `v_`, as
    for feature files.

    Raises:
        TalError: two ids in the file mean the same recording.
    """
    known, matches = set(known), {}
    for name in written:
        other = name.removeprefix(PREFIX) if name.startswith(PREFIX) else PREFIX + name
        match = next((candidate for candidate in (name, other) if candidate in known), None)
        if match is not None:
            matches[name] = match
    written_as: dict[str, str] = {}
    for name, match in matches.items():
        if match in written_as:
            raise TalError(
                f"{written_as[match]} and {name} both mean recording {match}",
                where=where,
                remedy="Write each recording under one id.",
            )
        written_as[match] = name
    return matches


def match_labels(
    written: Iterable[str], known: Iterable[str], label_ids: Mapping[int, str]
) -> dict[str, str]:
    """Label in the file → label in the annotations. Unknown labels are left out.

    An index is resolved by the annotations' `label_id`.
    """
    known, matches = set(known), {}
    for label in written:
        by_index = (
            label_ids.get(int(label)) if label.isascii() and label.isdigit() and len(label) < 10 else None
        )
        match = label if label in known else by_index
        if match in known:
            matches[label] = match
    return matches


def closest_label(label: str, known: Iterable[str]) -> str | None:
    """The known label that is most similar to a label; None if none is similar.

    Case, blanks and underscores do not count.
    """
    alike = {same_label(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(same_label(label), alike, n=1)
    return alike[close[0]] if close else None


def match_detections(
    detections: pd.DataFrame, annotations: AnnotationFile, *, where: object
) -> tuple[pd.DataFrame, list[str]]:
    """Detections or proposals under the annotations' ids, and remarks on those that are not evaluated.

    Labels stay as they are.

    Raises:
        TalError: no detections, a recording that is not in the annotations, or times that are not seconds.
    """
    if not len(detections):
        raise TalError(
            "no detections in it: mAP is 0 at every tIoU",
            where=where,
            remedy="Lower the score threshold of the detector, or give another file.",
        )
    recordings = match_recordings(
        detections.recording.unique(), annotations.recordings.recording, where=where
    )
    unknown = [name for name in detections.recording.unique() if name not in recordings]
    if unknown:
        raise TalError(
            f"recording {unknown[0]} is not in the annotations"
            + (f" ({len(unknown)} such)" if len(unknown) > 1 else ""),
            where=where,
            remedy="Score detections with the annotations they were made for.",
        )
    detections = detections.assign(recording=detections.recording.map(recordings))
    return detections, _check_times(detections, annotations, where)


def _check_times(detections, annotations, where):
    """Remarks on detections far beyond their recording. `TalError` if most of them are."""
    listed = annotations.recordings.set_index("recording")
    far = far_beyond(detections, listed.duration)
    if not far.any():
        return []
    text = f"{int(far.sum()):,} of {len(detections):,} detections lie far beyond their recording"
    if far.mean() > MOST_BEYOND:
        raise TalError(
            f"{text} ({looks_like(detections, listed.duration, listed.get('fps'))})",
            where=where,
            remedy="Write start and end in seconds.",
        )
    return [f"{text}: they count as false positives"]


def match_detection_labels(
    detections: pd.DataFrame, annotations: AnnotationFile, *, where: object
) -> tuple[pd.DataFrame, list[str]]:
    """Detections under the annotations' labels, and remarks on unknown labels.

    Detections with an unknown label are left out.

    Raises:
        TalError: no detection has a known label.
    """
    known = set(annotations.segments.label)
    counts = detections.label.value_counts()
    matches = match_labels(counts.index, known, annotations.label_ids)
    unknown = counts[[label for label in counts.index if label not in matches]]
    text = ", ".join(
        f"{label!r} ({count:,} detections{_suggestion(label, known)})"
        for label, count in unknown.iloc[:LISTED].items()
    ) + (f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else "")
    if not matches:
        indices = all(label.isascii() and label.isdigit() for label in unknown.index)
        raise TalError(
            f"none of its labels is in the annotations: {text}",
            where=where,
            remedy=f"Labels of the annotations: {', '.join(sorted(known)[:LISTED])}"
            + (", …." if len(known) > LISTED else ".")
            + (" Indices are read where the annotations give a label_id." if indices else ""),
        )
    remarks = []
    if len(unknown):
        remarks.append(
            f"labels that are not in the annotations: {text}; these detections are left out, and the classes "
            "that they were meant for lose them"
        )
    indices = [label for label, match in matches.items() if label != match]
    if indices:
        remarks.append(f"{len(indices)} labels are indices, read by the annotations' label_id")
    return (
        detections[detections.label.isin(matches)].assign(label=lambda table: table.label.map(matches)),
        remarks,
    )


def _suggestion(label, known):
    close = closest_label(label, known)
    return f"; did you mean {close!r}?" if close else ""
