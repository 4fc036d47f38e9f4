"""ELAN (`.eaf`): one file a recording, a tier a layer.

Annotations of one tier cannot overlap in ELAN, so overlapping segments get further tiers: `detections`,
`detections 2`, …. Scores are in a dependent tier. The labels form a controlled vocabulary, so that a person
picks one instead of typing it. `tal data import FOLDER/*.eaf` reads the corrected files.

Source: ELAN Annotation Format, EAF 3.0 (EAFv3.0.xsd). Times are whole milliseconds.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from tal_lib.data.exporting.collect import Layers, file_names, milliseconds
from tal_lib.data.importing.elan import RECORDING
from tal_lib.files import write_text
from tal_lib.writing import claim

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_VOCABULARY, _ACTION, _SCORE = "labels", "action", "score"
MIME = "video/mp4"
MIMES = {
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".avi": "video/x-msvideo",
}
DATE = "1970-01-01T00:00:00+00:00"  # the same input gives the same file


def write(out: str | Path, layers: Layers) -> list[Path]:
    """Write one file a recording into the folder `out`.

    Raises:
        TalError: a file that this program did not write is there, or two ids would have one file.
    """
    names = file_names(layers.recordings, ".eaf")
    out = claim(out, names.values(), sources=layers.videos.values())
    return [write_text(out / names[name], _text(name, layers)) for name in layers.recordings]


def _text(recording, layers):
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "",
            "DATE": DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": _XSI,
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = _add(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if (video := layers.videos.get(recording)) is not None:
        _add(
            header,
            "MEDIA_DESCRIPTOR",
            MEDIA_URL="file://" + quote(Path(video).resolve().as_posix()),
            MIME_TYPE=MIMES.get(Path(video).suffix.lower(), MIME),
        )
    _add(header, "PROPERTY", recording, NAME=RECORDING)
    order = _add(root, "TIME_ORDER")
    count = 0
    for name, table in layers.of(recording).items():
        for number, rows in enumerate(_apart(table), 1):
            tier_id = name if number == 1 else f"{name} {number}"
            tier = _add(root, "TIER", LINGUISTIC_TYPE_REF=_ACTION, TIER_ID=tier_id)
            scores = []
            for start, end, label, score in rows:
                count += 1
                slots = [f"ts{2 * count - 1}", f"ts{2 * count}"]
                for slot, value in zip(slots, (start, end)):
                    _add(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(value))
                item = _add(
                    _add(tier, "ANNOTATION"),
                    "ALIGNABLE_ANNOTATION",
                    ANNOTATION_ID=f"a{count}",
                    TIME_SLOT_REF1=slots[0],
                    TIME_SLOT_REF2=slots[1],
                )
                _add(item, "ANNOTATION_VALUE", label)
                if score is not None:
                    scores.append((f"a{count}", score))
            if scores:
                _add_scores(root, tier_id, scores)
    _add_types(root, layers.labels)
    _sort_slots(order)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent, tag, text=None, **attributes):
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _apart(table) -> Iterator[list[tuple]]:
    """The segments as tiers without overlaps: rows of (start, end) in milliseconds, label, score or None."""
    tiers: list[list[tuple]] = [[]]
    scored = "score" in table
    for row in table.itertuples(index=False):
        start, end = milliseconds(row.start, row.end)
        tier = next((tier for tier in tiers if not tier or tier[-1][1] <= start), None)
        if tier is None:
            tiers.append(tier := [])
        tier.append((start, end, row.label, row.score if scored else None))
    yield from tiers


def _add_scores(root, parent, scores):
    """A tier that gives each annotation of its parent a score."""
    tier = _add(root, "TIER", LINGUISTIC_TYPE_REF=_SCORE, PARENT_REF=parent, TIER_ID=f"score of {parent}")
    for target, score in scores:
        item = _add(
            _add(tier, "ANNOTATION"), "REF_ANNOTATION", ANNOTATION_ID=f"s{target}", ANNOTATION_REF=target
        )
        _add(item, "ANNOTATION_VALUE", f"{score:.4f}")


def _add_types(root, labels):
    _add(
        root,
        "LINGUISTIC_TYPE",
        CONTROLLED_VOCABULARY_REF=_VOCABULARY,
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=_ACTION,
        TIME_ALIGNABLE="true",
    )
    _add(
        root,
        "LINGUISTIC_TYPE",
        CONSTRAINTS="Symbolic_Association",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=_SCORE,
        TIME_ALIGNABLE="false",
    )
    _add(root, "LANGUAGE", LANG_ID="und", LANG_LABEL="undetermined (und)")
    _add(
        root,
        "CONSTRAINT",
        DESCRIPTION="1-1 association with a parent annotation",
        STEREOTYPE="Symbolic_Association",
    )
    vocabulary = _add(root, "CONTROLLED_VOCABULARY", CV_ID=_VOCABULARY)
    _add(vocabulary, "DESCRIPTION", LANG_REF="und")
    for number, label in enumerate(labels, 1):
        entry = _add(vocabulary, "CV_ENTRY_ML", CVE_ID=f"label{number}")
        _add(entry, "CVE_VALUE", label, DESCRIPTION="", LANG_REF="und")


def _sort_slots(order):
    """ELAN expects time slots in order of time."""
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE")))
