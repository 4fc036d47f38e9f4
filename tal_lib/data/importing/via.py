"""VIA 3 (VGG Image Annotator): the temporal segments of a project file (JSON).

A segment is a metadata entry with two times in `z` (seconds) and an empty `xy`; entries with one time or a
region describe pictures, and are left out. The label is the value of an attribute: of the one named, else of
the only one with options (select, radio, checkbox), else of the only one.

A project that this library exported with annotations and detections has the attribute `layer`. One of the two
must then be chosen.

Source: VIA 3 code documentation, "Structure of VIA Project JSON File"
(https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md).
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tal_lib.data.importing.collect import (
    LAYERS,
    Annotated,
    Options,
    as_label,
    as_time,
    checked,
    left_out,
    media_id,
    refuse_two_layers,
)
from tal_lib.errors import TalError, short
from tal_lib.reading import read_json
from tal_lib.validation import unknown_name

NAME = "VIA"
LAYER, LAYER_ABOUT = "layer", "layer of the export: annotations or detections"  # attribute of exported files
TEXT, CHECKBOX = 1, 2  # kinds of attributes
SHAPE = "Give the project file that VIA 3 saves (not VIA 2, and not its CSV)."
PARTS = ("attribute", "file", "view", "metadata")


def matches(path: Path, start: bytes) -> bool:
    """Whether a file is in this format, by its first bytes."""
    return (
        start.lstrip()[:1] == b"{"
        and b'"database"' not in start
        and any(mark in start for mark in (b'"vid_list"', b'"loc_prefix"', b'"anchor_id"', b'"fid_list"'))
    )


def read(path: Path, options: Options) -> Iterator[Annotated]:
    """The recordings of a project file, one per view.

    Raises:
        TalError: unexpected JSON structure, a view of several files, an unknown attribute, or a segment
            without label or with wrong times.
    """
    project = read_json(path, what="VIA project", remedy=SHAPE)
    parts = [_object(project.get(name) if isinstance(project, dict) else None, name, path) for name in PARTS]
    attributes, files, views, metadata = parts
    segments: dict[str, list] = {view: [] for view in views}
    others = dict.fromkeys(views, 0)
    temporal = {}
    for key, entry in metadata.items():
        entry = _object(entry, f"metadata {key}", path)
        view = str(entry.get("vid"))
        if view not in views:
            raise TalError(
                f"metadata {short(key)} belongs to view {short(view)}, which is not there",
                where=path,
                remedy="The file may be truncated; save the project again.",
            )
        times, region = entry.get("z"), entry.get("xy")
        if isinstance(times, list) and len(times) == 2 and not region:
            temporal[key] = (view, times, _object(entry.get("av"), f"metadata {key}.av", path))
        else:
            others[view] += 1
    if (layer := _layer(attributes)) is not None:
        temporal = _of_layer(temporal, layer, attributes[layer], options.tiers, path)
        attributes = {key: entry for key, entry in attributes.items() if key != layer}
    attribute = _attribute(attributes, [values for _, _, values in temporal.values()], options, path)
    for key, (view, times, values) in temporal.items():
        called = f"metadata {short(key)}"
        start, end = (
            as_time(value, where=path, name=f"{called}, z {number}") for number, value in enumerate(times, 1)
        )
        for label in _labels(attributes[attribute], values.get(attribute), called, path):
            segments[view].append(checked((start, end, label), where=path, name=called))
    for view, entry in views.items():
        recording = _recording(view, _object(entry, f"view {view}", path), files, path)
        remarks = left_out(recording, others[view], "entries that are no temporal segments")
        yield Annotated(recording=recording, segments=sorted(segments[view]), remarks=remarks)


def _object(value, name, path):
    if not isinstance(value, dict):
        problem = f"no {name!r} in it" if value is None else f"{name}: {short(value)} is not an object"
        raise TalError(f"unexpected JSON structure: {problem}", where=path, remedy=SHAPE)
    return value


def _recording(view, entry, files, path):
    """The id of the recording that a view shows."""
    shown = entry.get("fid_list")
    if not isinstance(shown, list) or len(shown) != 1:
        raise TalError(
            f"view {short(view)} does not show exactly one file",
            where=path,
            remedy="Annotate one video per view.",
        )
    file = _object(files.get(str(shown[0])), f"file {shown[0]}", path)
    for value in (file.get("fname"), file.get("src")):
        if isinstance(value, str) and (name := media_id(value, folders=True)):
            return name
    raise TalError(f"file {short(shown[0])} has no name", where=path, remedy="Give it one in VIA.")


def _layer(attributes):
    """The id of the attribute that tells exported annotations and detections apart, else None."""
    for key, entry in attributes.items():
        if isinstance(entry, dict) and (entry.get("aname"), entry.get("desc")) == (LAYER, LAYER_ABOUT):
            return key
    return None


def _of_layer(temporal, layer, attribute, wanted, path):
    """The temporal segments of the layer that was chosen."""
    if not wanted:
        refuse_two_layers(path)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in LAYERS):
            raise unknown_name(pattern, LAYERS, where=path, name="layer")
    chosen = {}
    for key, (view, times, values) in temporal.items():
        if values.get(layer) in (None, ""):
            raise TalError(
                f"metadata {short(key)} has no {LAYER}", where=path, remedy="Choose its layer in VIA."
            )
        (name,) = _labels(attribute, values[layer], f"metadata {short(key)}", path)
        if any(fnmatchcase(name, pattern) for pattern in wanted):
            kept = {attribute: value for attribute, value in values.items() if attribute != layer}
            chosen[key] = (view, times, kept)
    return chosen


def _attribute(attributes, used, options, path):
    """The id of the attribute that holds the labels."""
    names = {
        key: str(_object(entry, f"attribute {key}", path).get("aname")) for key, entry in attributes.items()
    }
    if options.attribute is not None:
        chosen = [key for key, name in names.items() if name == options.attribute]
        if not chosen:
            raise unknown_name(options.attribute, names.values(), where=path, name="attribute")
    else:
        chosen = [key for key in names if any(key in values for values in used)]
        if len(chosen) > 1:
            with_options = [key for key in chosen if attributes[key].get("type") != TEXT]
            chosen = with_options if len(with_options) == 1 else chosen
        chosen = chosen or (list(names)[:1] if not used else [])
    if len(chosen) != 1:
        shown = ", ".join(names[key] for key in chosen)
        raise TalError(
            f"segments have several attributes ({shown})" if chosen else "segments have no attribute",
            where=path,
            remedy="Say which one is the label, with --attribute NAME."
            if chosen
            else "Describe the segments in VIA.",
        )
    return chosen[0]


def _labels(attribute, value, called, path):
    """The labels of one segment: several for a checkbox."""
    choices = attribute.get("options")
    choices = choices if isinstance(choices, dict) else {}
    text = str(value) if value is not None else ""
    parts = text.split(",") if attribute.get("type") == CHECKBOX else [text]
    return [as_label(choices.get(part, part), where=path, name=called) for part in parts]
