"""Label Studio: timeline labels of videos (JSON and JSON-MIN exports), and labels of sounds.

Ranges of `timelinelabels` are frame numbers: the first frame is 1, and the last one belongs to the range.
Frames `start` to `end` cover (start - 1) / fps to end / fps seconds. The export does not hold the frame rate.
`labels` of a sound (the trick that synchronises a video with its sound) have times in seconds.

Sources: Label Studio documentation, tag TimelineLabels (https://labelstud.io/tags/timelinelabels) and "Export
annotations" (raw JSON and JSON_MIN); for the counting of frames, the official ML backend
(`label_studio_ml/examples/yolo`, `convert_timelinelabels_to_probs`); for the names of uploads,
`label_studio/data_import/models.py`, `upload_name_generator`.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tal_lib.data.importing.collect import (
    MEDIA,
    Annotated,
    Options,
    as_frame,
    as_label,
    as_time,
    checked,
    left_out,
    media_id,
)
from tal_lib.errors import TalError, short
from tal_lib.reading import read_json

NAME = "Label Studio"
SHAPE = "Export the project from Label Studio as JSON or JSON-MIN."
_ALSO = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}  # fields of JSON-MIN


def matches(path: Path, start: bytes) -> bool:
    """Whether a file is in this format, by its first bytes."""
    return start.lstrip()[:1] == b"["


def read(path: Path, options: Options) -> Iterator[Annotated]:
    """The recordings of an export, one per task.

    Raises:
        TalError: unexpected JSON structure, a task with several annotations or without a video, frames
            without a frame rate, or a region without label or with wrong times.
    """
    tasks = read_json(path, what="Label Studio export", remedy=SHAPE)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise TalError("unexpected JSON structure: not a list of tasks", where=path, remedy=SHAPE)
    for number, task in enumerate(tasks, 1):
        called = f"task {task.get('id', number)}"
        full = "data" in task
        data = task["data"] if full else {key: task[key] for key in task if key not in _ALSO}
        if not isinstance(data, dict):
            raise TalError(f"{called}: data is not an object", where=path, remedy=SHAPE)
        recording = _recording(_video(data, called, path))
        regions = _regions(task, called, path) if full else _flat_regions(task)
        segments, others = [], 0
        for place, (kind, value) in enumerate(regions, 1):
            where = f"{called}, region {place}"
            if not isinstance(value, dict):
                raise TalError(f"{where}: no value", where=path, remedy=SHAPE)
            if kind == "timelinelabels":
                rate = options.rate(recording, path)
                segments += _frames(value, rate, where, path)
            elif kind == "labels" and "start" in value:
                segments += _seconds(value, where, path)
            else:
                others += 1
        remarks = left_out(recording, others, "regions that are no time segments")
        yield Annotated(recording=recording, segments=sorted(segments), remarks=remarks)


def _recording(video):
    """The id of a recording: the name of its video, without the 8 digits and `-` before that of an upload."""
    uploaded = re.search(r"(?:^|/)upload/\d+/[0-9a-f]{8}-[^/?#]+(?:[?#]|$)", video)
    return media_id(video)[9:] if uploaded else media_id(video)


def _video(data, called, path):
    """The path or URL of a task's video: the only text with the suffix of one, else the only text."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value.strip()}
    videos = [
        text for text in texts.values() if PurePosixPath(text.partition("#")[0]).suffix.lower() in MEDIA
    ]
    videos = videos or [texts[key] for key in ("video", "video_url", "videos") if key in texts]
    videos = list(dict.fromkeys(videos)) or list(texts.values())
    if len(videos) != 1:
        raise TalError(
            f"{called}: {len(videos)} videos in its data ({', '.join(map(str, list(data)[:5]))})",
            where=path,
            remedy="Give each task one video.",
        )
    return videos[0]


def _regions(task, called, path):
    """(kind, value) of each region of a task's annotation. Predictions are not read."""
    annotations = task.get("annotations", task.get("completions", []))
    if not isinstance(annotations, list) or not all(isinstance(item, dict) for item in annotations):
        raise TalError(f"{called}: annotations are not a list", where=path, remedy=SHAPE)
    annotations = [item for item in annotations if not item.get("was_cancelled")]
    chosen = [item for item in annotations if item.get("ground_truth")]
    annotations = chosen if len(chosen) == 1 else annotations
    if len(annotations) > 1:
        raise TalError(
            f"{called} has {len(annotations)} annotations",
            where=path,
            remedy="Mark one as ground truth in Label Studio, or remove the others.",
        )
    results = annotations[0].get("result") if annotations else []
    if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
        raise TalError(f"{called}: its result is not a list", where=path, remedy=SHAPE)
    return [(item.get("type"), item.get("value")) for item in results if "value" in item]


def _flat_regions(task):
    """(kind, value) of each region of a task in JSON-MIN, where regions are lists beside the data."""
    for values in task.values():
        for value in values if isinstance(values, list) else ():
            if isinstance(value, dict):
                yield next((kind for kind in ("timelinelabels", "labels") if kind in value), None), value


def _frames(value, rate, called, path):
    """Segments of a region in frames, which are counted from 1."""
    ranges = value.get("ranges")
    if not isinstance(ranges, list) or not ranges or not all(isinstance(item, dict) for item in ranges):
        raise TalError(f"{called}: no ranges", where=path, remedy=SHAPE)
    for item in ranges:
        first, last = (
            as_frame(item.get(name), where=path, name=f"{called}, {name}", least=1)
            for name in ("start", "end")
        )
        for label in _labels(value.get("timelinelabels"), called, path):
            yield checked(((first - 1) / rate, last / rate, label), where=path, name=called)


def _seconds(value, called, path):
    """Segments of a region of a sound."""
    start, end = (as_time(value.get(name), where=path, name=f"{called}, {name}") for name in ("start", "end"))
    for label in _labels(value.get("labels"), called, path):
        yield checked((start, end, label), where=path, name=called)


def _labels(labels, called, path):
    if not isinstance(labels, list) or not labels:
        raise TalError(f"{called} has no label", where=path, remedy=f"Label it ({short(labels)} is there).")
    return [as_label(label, where=path, name=called) for label in labels]
