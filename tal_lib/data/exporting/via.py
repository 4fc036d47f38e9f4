"""VIA 3: one project file (JSON) with a view a recording.

Each segment has the attribute `label`, a list of the classes. Detections also have `score`, a text. If both
annotations and detections are exported, the attribute `layer` tells them apart. If the
videos are known, VIA opens them; else a person selects them. `tal data import PROJECT.json` reads the project
as VIA saves it.

Source: VIA 3 code documentation, "Structure of VIA Project JSON File"
(https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md).
"""

from pathlib import Path

from tal_lib.data.exporting.collect import Layers, milliseconds
from tal_lib.data.importing.collect import LAYERS
from tal_lib.data.importing.via import LAYER, LAYER_ABOUT
from tal_lib.files import digest, write_json
from tal_lib.writing import claim

NAME = "via_project.json"
TEXT, SELECT = 1, 4  # kinds of attributes
VIDEO = 4  # kind of file
SELECTED, PATH = 1, 3  # where a file is: chosen by the person, or on the local disk
SEGMENT = "FILE1_Z2_XY0"  # an attribute of a temporal segment
SUFFIX = ".mp4"  # of a video that is not known


def write(out: str | Path, layers: Layers) -> list[Path]:
    """Write the project into the folder `out`.

    Raises:
        TalError: a project that this program did not write is there.
    """
    out = claim(out, [NAME], sources=layers.videos.values())
    return [write_json(out / NAME, project(layers))]


def project(layers: Layers) -> dict:
    """The project, as VIA reads it."""
    options = {str(number): label for number, label in enumerate(layers.labels)}
    numbers = {label: number for number, label in options.items()}
    choices = {str(number): name for number, name in enumerate(LAYERS)}
    scored = any("score" in table for table in layers.tables.values())
    views = {str(number): name for number, name in enumerate(layers.recordings, 1)}
    metadata = {}
    for view, recording in views.items():
        for layer, table in layers.of(recording).items():
            for number, row in enumerate(table.itertuples(index=False)):
                start, end = milliseconds(row.start, row.end)  # pyright: ignore[reportAttributeAccessIssue]
                values = {"1": numbers[row.label]}  # pyright: ignore[reportAttributeAccessIssue]
                if len(layers.tables) > 1:
                    values["3"] = str(LAYERS.index(layer))
                if "score" in table:
                    values["2"] = f"{row.score:.4f}"  # pyright: ignore[reportAttributeAccessIssue]
                metadata[f"{view}_{digest(layer, number)[:8]}"] = {
                    "vid": view,
                    "flg": 0,
                    "z": [start / 1000, end / 1000],
                    "xy": [],
                    "av": values,
                }
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "segments",
            "creator": "VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
            "created": 0,
            "vid_list": list(views),
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": False,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": {
            "1": _attribute("label", SELECT, "class of the action", options),
            **({"2": _attribute("score", TEXT, "score of the detection", {})} if scored else {}),
            **({"3": _attribute(LAYER, SELECT, LAYER_ABOUT, choices)} if len(layers.tables) > 1 else {}),
        },
        "file": {view: _file(view, recording, layers) for view, recording in views.items()},
        "view": {view: {"fid_list": [view]} for view in views},
        "metadata": metadata,
    }


def _attribute(name, kind, about, options):
    return {
        "aname": name,
        "anchor_id": SEGMENT,
        "type": kind,
        "desc": about,
        "options": options,
        "default_option_id": "",
    }


def _file(view, recording, layers):
    video = layers.videos.get(recording)
    return {
        "fid": view,
        "fname": recording + (Path(video).suffix if video is not None else SUFFIX),
        "type": VIDEO,
        "loc": SELECTED if video is None else PATH,
        "src": "" if video is None else str(Path(video).resolve()),
    }
