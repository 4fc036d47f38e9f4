"""ELAN (`.eaf`): tiers of annotations whose times are slots in milliseconds.

Only independent tiers are read, unless others are named: a dependent tier (`PARENT_REF`) describes the
annotations of its parent. A segment's label is its value, or the name of its tier.

The recording is named after the first medium, which ELAN shows as the master. If that medium has an offset
(`TIME_ORIGIN`), times of the file are not times of the video, and the file is refused.

Source: ELAN Annotation Format, EAF 3.0 (Max Planck Institute for Psycholinguistics), EAFv3.0.xsd. ELAN itself
writes and reads milliseconds only, whatever other TIME_UNITS the schema allows.
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
from tal_lib.reading import read_xml
from tal_lib.validation import unknown_name

NAME = "ELAN"
RECORDING = "tal:recording"  # header property of files that this library wrote: the recording's id
_ALIGNABLE, _REFERRING = "ALIGNABLE_ANNOTATION", "REF_ANNOTATION"


def matches(path: Path, start: bytes) -> bool:
    """Whether a file is in this format, by its first bytes."""
    return path.suffix.lower() == ".eaf" or b"<ANNOTATION_DOCUMENT" in start


def read(path: Path, options: Options) -> Iterator[Annotated]:
    """The recording of an `.eaf` file.

    Raises:
        TalError: not EAF, another unit of time, ids used twice, a missing or wrong time, or an unknown tier.
    """
    root = read_xml(path, what="ELAN file")
    if root.tag != "ANNOTATION_DOCUMENT":
        raise TalError(
            f"the root element is {root.tag}", where=path, remedy="Give a file saved by ELAN (.eaf)."
        )
    header = root.find("HEADER")
    units = header.get("TIME_UNITS", "milliseconds") if header is not None else "milliseconds"
    if units != "milliseconds":
        raise TalError(
            f"its times are {units}",
            where=path,
            remedy="Save it with ELAN, which writes milliseconds.",
        )
    recording = _recording(header, path)
    if not options.tiers and _exported_id(header) and set(LAYERS) <= set(_tier_names(root)):
        refuse_two_layers(path)
    slots, known = _Slots(root, path), _annotations(root, path)
    segments, skipped = [], 0
    for tier in _tiers(root, options.tiers, path):
        name = tier.get("TIER_ID", "")
        if tier.get("PARENT_REF") and not options.tiers:
            skipped += len(tier)
            continue
        for number, item in enumerate(tier.iterfind("ANNOTATION/*"), 1):
            called = f"tier {name}, annotation {item.get('ANNOTATION_ID') or number}"
            start, end = (slots.time(slot, called) for slot in _ends(item, known, called, path))
            label = name if options.label == "tier" else item.findtext("ANNOTATION_VALUE")
            if options.label != "tier" and not (label or "").strip():
                raise TalError(
                    f"{called} has no value",
                    where=path,
                    remedy="Give it one, or take the tiers' names as labels with --label tier.",
                )
            segment = (start, end, as_label(label, where=path, name=called))
            segments.append(checked(segment, where=path, name=called))
    segments.sort()
    remarks = left_out(recording, skipped, "annotations of dependent tiers (name a tier with --tier)")
    yield Annotated(recording=recording, segments=segments, remarks=remarks)


def _recording(header, path):
    """The recording's id: as written by this library, else by the first medium, else by the file's name."""
    if header is None:
        return path.stem
    if name := _exported_id(header):
        return name
    medium = header.find("MEDIA_DESCRIPTOR")
    if medium is None:
        return path.stem
    if (medium.get("TIME_ORIGIN") or "0").strip() != "0":
        raise TalError(
            f"the video is shifted by {medium.get('TIME_ORIGIN')} ms (TIME_ORIGIN)",
            where=path,
            remedy="Remove the offset in ELAN (Media Synchronization Mode), so that times are the video's.",
        )
    return media_id(medium.get("MEDIA_URL") or medium.get("RELATIVE_MEDIA_URL") or "") or path.stem


def _exported_id(header):
    """The recording's id as this library wrote it, else None."""
    if header is None:
        return None
    ids = [item.text for item in header.iterfind("PROPERTY") if item.get("NAME") == RECORDING]
    return next((text for text in ids if (text or "").strip()), None)


def _tier_names(root):
    return [tier.get("TIER_ID", "") for tier in root.iterfind("TIER")]


def _tiers(root, wanted, path):
    """The tiers to read, each once, in the file's order."""
    tiers, names = list(root.iterfind("TIER")), _tier_names(root)
    _refuse_twice(names, "tier", path)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown_name(pattern, names[:20], where=path, name="tier")
    return [
        tier
        for tier, name in zip(tiers, names)
        if not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)
    ]


def _annotations(root, path):
    """Annotation id → element."""
    items = list(root.iterfind("TIER/ANNOTATION/*"))
    for item in items:
        if item.tag not in (_ALIGNABLE, _REFERRING):
            raise TalError(f"an annotation of kind {item.tag}", where=path, remedy="Save it with ELAN.")
    _refuse_twice([item.get("ANNOTATION_ID") for item in items], "annotation", path)
    return {item.get("ANNOTATION_ID"): item for item in items}


def _ends(item, known, called, path):
    """The two time slots of an annotation. One that refers to another has that one's time."""
    seen = set()
    while item.tag == _REFERRING:
        target = item.get("ANNOTATION_REF")
        if target in seen or target not in known:
            raise TalError(
                f"{called} refers to {'itself' if target in seen else short(target)}",
                where=path,
                remedy="The file is damaged; save it again with ELAN.",
            )
        seen.add(target)
        item = known[target]
    return item.get("TIME_SLOT_REF1"), item.get("TIME_SLOT_REF2")


def _refuse_twice(names, what, path):
    seen = set()
    for name in names:
        if name in seen:
            raise TalError(
                f"{what} {short(name)} appears twice", where=path, remedy="Give every id once; rename one."
            )
        seen.add(name)


class _Slots:
    """The time slots of a file, in seconds."""

    def __init__(self, root, path):
        self.path, self.values = path, {}
        items = list(root.iterfind("TIME_ORDER/TIME_SLOT"))
        _refuse_twice([item.get("TIME_SLOT_ID") for item in items], "time slot", path)
        self.values = {item.get("TIME_SLOT_ID"): item.get("TIME_VALUE") for item in items}

    def time(self, slot, called):
        """Seconds of a slot. `TalError` if it has none."""
        if self.values.get(slot) is None:
            raise TalError(
                f"{called}: time slot {short(slot)} "
                + ("has no time" if slot in self.values else "is not in the file"),
                where=self.path,
                remedy="Align the annotation in ELAN, or leave out its tier with --tier.",
            )
        return as_time(self.values[slot], where=self.path, name=f"{called}, {slot}", scale=1e-3)
