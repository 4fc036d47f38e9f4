"""CVAT: tracks of "CVAT for video 1.1" and tags of "CVAT for images 1.1" (XML, as exported or in its zip).

A track is a segment wherever its object is visible: from a shape with `outside="0"` to the next one with
`outside="1"`, or to the task's last frame. With an attribute, each run of one value is a segment, labelled by
the value. A tag that neighbouring frames share is one segment. Frames are counted from 0 in the video, and a
segment ends where its last frame ends.

Source: CVAT documentation, "XML annotation format" 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/).
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tal_lib.data.importing.collect import Annotated, Options, as_frame, as_label, checked, media_id
from tal_lib.data.limits import check_size
from tal_lib.data.remarks import Remark
from tal_lib.errors import TalError, short
from tal_lib.reading import parse_xml, read_bytes
from tal_lib.validation import unknown_name

NAME = "CVAT"
SHAPE = "Export the task from CVAT as 'CVAT for video 1.1' (tracks) or 'CVAT for images 1.1' (tags)."
INSIDE = "annotations.xml"
LARGEST = 2**28  # bytes of XML
NO_LABEL = ("", "__undefined__")  # values of an attribute that name no action


@dataclass(frozen=True)
class _Task:
    """What the file says about its task: the video, its frames, and the numbers of the annotated ones."""

    recording: str
    first: int
    last: int | None  # last annotated frame
    step: int


def matches(path: Path, start: bytes) -> bool:
    """Whether a file is in this format, by its first bytes."""
    return b"<annotations" in start or start[:4] == b"PK\x03\x04"


def read(path: Path, options: Options) -> Iterator[Annotated]:
    """The recording of a task.

    Raises:
        TalError: not CVAT's XML, several tasks, no frame rate, or a track or tag that does not fit.
    """
    root = parse_xml(_xml(path), where=path)
    if root.tag != "annotations":
        raise TalError(f"the root element is {root.tag}", where=path, remedy=SHAPE)
    task = _task(root, path)
    tracks, images = root.findall("track"), root.findall("image")
    if tracks and images:
        raise TalError("has both tracks and images", where=path, remedy=SHAPE)
    seen: set[str] = set()
    runs = []
    for number, track in enumerate(tracks, 1):
        name = track.get("id") or str(number)
        if name in seen:
            raise TalError(f"track {short(name)} appears twice", where=path, remedy="Export it again.")
        seen.add(name)
        runs += _track_runs(track, f"track {name}", task, options.attribute, path)
    if options.attribute is not None and tracks and not runs:
        names = {item.get("name") for item in root.iterfind("track/*/attribute")}
        if options.attribute not in names:
            raise unknown_name(options.attribute, sorted(filter(None, names)), where=path, name="attribute")
    runs += _tag_runs(images, task, path)
    rate = options.rate(task.recording, path)
    segments = [
        checked((first / rate, end / rate, label), where=path, name=called)
        for first, end, label, called in runs
    ]
    duration, remarks = _duration(task, rate)
    yield Annotated(
        recording=task.recording, segments=sorted(segments), duration=duration, fps=rate, remarks=remarks
    )


def _xml(path):
    """The bytes of the XML, of an archive too."""
    raw = read_bytes(path, what="CVAT export")
    if raw[:4] != b"PK\x03\x04":
        return raw
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(INSIDE).file_size
            check_size(size, path, INSIDE)
            if size > LARGEST:
                raise TalError(f"{INSIDE} holds {size / 2**20:,.0f} MiB", where=path, remedy=SHAPE)
            return archive.read(INSIDE)
    except KeyError:
        raise TalError(f"no {INSIDE} in the archive", where=path, remedy=SHAPE) from None
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise TalError(f"cannot be unpacked ({error})", where=path, remedy="Copy it again.") from None
    except Exception as error:  # errors of the decompressor on damaged data
        if isinstance(error, TalError):
            raise
        raise TalError(
            f"cannot be unpacked ({type(error).__name__})", where=path, remedy="Copy it again."
        ) from None


def _task(root, path):
    about = root.find("meta/task")
    about = root.find("meta/job") if about is None else about
    if root.find("meta/project") is not None:
        raise TalError("is the export of a project", where=path, remedy="Export each task by itself.")
    if about is None:
        raise TalError("no meta/task in it", where=path, remedy=SHAPE)

    def number(name):
        text = about.findtext(name)
        return as_frame(text, where=path, name=name) if (text or "").strip() else None

    source = root.findtext("meta/source") or about.findtext("source") or about.findtext("name") or ""
    step = 1
    for part in (about.findtext("frame_filter") or "").split(";"):
        name, _, value = part.partition("=")
        if name.strip() == "step":
            step = as_frame(value, where=path, name="frame_filter", least=1)
    first, last, size = number("start_frame") or 0, number("stop_frame"), number("size")
    if last is None and size:
        last = first + (size - 1) * step
    recording = media_id(source)
    if not recording:
        raise TalError("the task has neither source nor name", where=path, remedy="Name the task in CVAT.")
    return _Task(recording, first, last, step)


def _duration(task, rate):
    """The duration by the task's frames, if the task starts with the video."""
    if task.first or task.last is None:
        return None, ()
    frames = task.last + task.step
    text = f"duration by the task's {frames:,} frames, unless --durations or --videos say otherwise"
    return frames / rate, (Remark(task.recording, "as published", text),)


def _track_runs(track, called, task, attribute, path):
    """(first frame, end frame (excluded), label, name) of each run of a track."""
    shapes = [(_frame(shape, called, path), shape) for shape in track]
    shapes.sort(key=lambda pair: pair[0])
    for (frame, _), (other, _) in zip(shapes, shapes[1:]):
        if frame == other:
            raise TalError(f"{called}: two shapes in frame {frame}", where=path, remedy="Export it again.")
    runs, label, start, value = [], None, 0, ""
    for frame, shape in shapes:
        value = _value(shape, attribute, value)
        new = None
        if not _outside(shape, called, path) and (attribute is None or value not in NO_LABEL):
            new = as_label(track.get("label") if attribute is None else value, where=path, name=called)
        if new != label:
            if label is not None:
                runs.append((start, frame, label, called))
            label, start = new, frame
    if label is not None:
        last = shapes[-1][0] if task.last is None else max(task.last, shapes[-1][0])
        runs.append((start, last + task.step, label, called))
    return runs


def _value(shape, attribute, before):
    """The value of a shape's attribute; the one before if it does not state it."""
    for item in shape.iterfind("attribute") if attribute is not None else ():
        if item.get("name") == attribute:
            return (item.text or "").strip()
    return before


def _frame(shape, called, path):
    return as_frame(shape.get("frame"), where=path, name=f"{called}, frame")


def _outside(shape, called, path):
    text = shape.get("outside", "0")
    if text not in ("0", "1"):
        raise TalError(f"{called}: outside is {short(text)}", where=path, remedy="Expected 0 or 1.")
    return text == "1"


def _tag_runs(images, task, path):
    """(first frame, end frame (excluded), label, name) of each run of frames that share a tag."""
    frames: dict[str, list[int]] = {}
    seen = set()
    for image in images:
        frame = as_frame(image.get("id"), where=path, name="image id")
        if frame in seen:
            raise TalError(f"image {frame} appears twice", where=path, remedy="Export it again.")
        seen.add(frame)
        for tag in image.iterfind("tag"):
            label = as_label(tag.get("label"), where=path, name=f"image {frame}, tag")
            frames.setdefault(label, []).append(frame)
    for label, numbers in frames.items():
        numbers = sorted(set(numbers))
        start = numbers[0]
        for frame, after in zip(numbers, [*numbers[1:], None]):
            if after is None or after > frame + task.step:
                yield start, frame + task.step, label, f"tag {label}"
                start = after
