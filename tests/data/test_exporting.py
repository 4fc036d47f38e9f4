"""Annotations and detections go to ELAN and VIA and come back to the millisecond."""

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import read_annotations, write_annotations
from tal_lib.data.exporting import FORMATS, layers
from tal_lib.data.exporting.collect import file_names
from tal_lib.data.importing import Options, import_files
from tal_lib.video.frames import write_video

COLUMNS = ["recording", "start", "end", "label"]


def table(*rows, score=None):
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame if score is None else frame.assign(score=score)


def returned(folder, name, **options):
    """The segments of an exported folder, as imported."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".eaf", ".json"))
    content = import_files(paths, Options(durations=Everything(), **options), kind=name)
    return content


class Everything(dict):
    """A duration for every recording."""

    def get(self, key, default=None):
        return 1e6


def in_milliseconds(frame):
    """Rows in whole milliseconds, sorted."""
    times = [np.round(frame[name].to_numpy(float) * 1000).astype(int).tolist() for name in ("start", "end")]
    return sorted(zip(frame.recording, *times, frame.label))


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from("&<>\"' .%é汉"), max_size=12
).map(lambda text: "x" + text + "x")
ROWS = st.lists(
    st.tuples(TEXT, st.integers(0, 3_600_000), st.integers(1, 60_000), TEXT), min_size=1, max_size=12
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, scored=st.booleans())
def test_what_goes_out_comes_back(name, tmp_path_factory, rows, scored):
    """Ids and labels of any text, overlapping segments, equal ones; to the millisecond."""
    out = tmp_path_factory.mktemp("out")
    frame = table(*((r, s / 1000, (s + length) / 1000, label) for r, s, length, label in rows))
    kinds = {"detections": frame.assign(score=0.5)} if scored else {"annotations": frame}
    try:
        file_names(dict.fromkeys(frame.recording), ".eaf")
    except TalError:  # two ids with one file name
        return
    FORMATS[name].write(out, layers(**kinds))
    content = returned(out, name)
    assert in_milliseconds(content.segments) == in_milliseconds(frame)
    assert set(content.recordings.recording) == set(frame.recording)


@pytest.mark.parametrize("name", FORMATS)
def test_recordings_without_segments_are_there_to_be_annotated(name, tmp_path):
    written = FORMATS[name].write(tmp_path, layers(annotations=table(), recordings=("a", "P01/b c")))
    assert len(written) == (2 if name == "elan" else 1)
    content = returned(tmp_path, name)
    assert sorted(content.recordings.recording) == ["P01/b c", "a"] and not len(content.segments)


def test_elan_tiers_do_not_overlap(tmp_path):
    """ELAN cannot hold overlapping annotations in one tier: they get tiers of their own."""
    frame = table(("r", 0, 5, "a"), ("r", 1, 2, "b"), ("r", 2, 9, "a"), ("r", 5, 6, "c"), ("r", 8, 9, "b"))
    (path,) = FORMATS["elan"].write(
        tmp_path, layers(detections=frame.assign(score=[0.9, 0.5, 0.1, 0.3, 0.2]))
    )
    root = ElementTree.parse(path).getroot()
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    tiers = {}
    for tier in root.iter("TIER"):
        spans = [
            (slots[item.get("TIME_SLOT_REF1")], slots[item.get("TIME_SLOT_REF2")])
            for item in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:]))
        tiers[tier.get("TIER_ID")] = len(spans)
    assert tiers == {"detections": 3, "score of detections": 0, "detections 2": 2, "score of detections 2": 0}
    scores = [item.findtext("ANNOTATION_VALUE") for item in root.iter("REF_ANNOTATION")]
    assert sorted(scores) == ["0.1000", "0.2000", "0.3000", "0.5000", "0.9000"]
    values = [item.text for item in root.iter("CVE_VALUE")]
    assert values == ["a", "b", "c"]
    assert [child.tag for child in root if child.tag != "TIER"] == [
        "HEADER",
        "TIME_ORDER",
        "LINGUISTIC_TYPE",
        "LINGUISTIC_TYPE",
        "LANGUAGE",
        "CONSTRAINT",
        "CONTROLLED_VOCABULARY",
    ]  # the order of EAFv3.0.xsd


def test_annotations_and_detections_side_by_side(tmp_path):
    truth, detections = table(("r", 1, 2, "a")), table(("r", 1.25, 2.5, "a"), score=0.7)
    both = layers(annotations=truth, detections=detections)
    FORMATS["elan"].write(tmp_path, both)
    assert in_milliseconds(returned(tmp_path, "elan", tiers=("detections*",)).segments) == in_milliseconds(
        detections
    )
    assert in_milliseconds(returned(tmp_path, "elan", tiers=("annotations*",)).segments) == in_milliseconds(
        truth
    )
    with pytest.raises(TalError, match="r.eaf: it holds two layers of an export.*--tier 'annotations"):
        returned(tmp_path, "elan")


def test_layers_of_a_via_project(tmp_path):
    truth, detected = table(("r", 1, 2, "a"), ("r", 3, 4, "b")), table(("r", 1.25, 2.5, "a"), score=0.7)
    (path,) = FORMATS["via"].write(tmp_path, layers(annotations=truth, detections=detected))
    for layer, rows in (("annotations", truth), ("detections*", detected)):
        assert in_milliseconds(returned(tmp_path, "via", tiers=(layer,)).segments) == in_milliseconds(rows)
    with pytest.raises(TalError, match="it holds two layers of an export, annotations and detections. Take"):
        returned(tmp_path, "via")
    with pytest.raises(TalError, match="unknown layer 'truth'"):
        returned(tmp_path, "via", tiers=("truth",))
    project = json.loads(path.read_text())
    next(iter(project["metadata"].values()))["av"].pop("3")  # as a segment that a person added
    path.write_text(json.dumps(project))
    with pytest.raises(TalError, match="has no layer. Choose its layer in VIA"):
        returned(tmp_path, "via", tiers=("annotations",))


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_alone_needs_no_choice(name, tmp_path):
    FORMATS[name].write(tmp_path, layers(annotations=table(("r", 1, 2, "a"))))
    assert len(returned(tmp_path, name).segments) == 1


def test_via_project_has_what_via_reads(tmp_path):
    detections = table(("r", 1.2345678, 2.5, "a"), ("s", 0, 1, "b"), score=[0.75, 0.25])
    (path,) = FORMATS["via"].write(tmp_path, layers(detections=detections, videos={"r": tmp_path / "r.webm"}))
    project = json.loads(path.read_text())
    assert set(project) == {"project", "config", "attribute", "file", "view", "metadata"}
    assert project["project"]["vid_list"] == ["1", "2"] and project["view"]["1"] == {"fid_list": ["1"]}
    assert project["attribute"]["1"]["anchor_id"] == "FILE1_Z2_XY0" and project["attribute"]["1"]["type"] == 4
    assert project["attribute"]["1"]["options"] == {"0": "a", "1": "b"}
    assert project["file"]["1"] == {
        "fid": "1",
        "fname": "r.webm",
        "type": 4,
        "loc": 3,
        "src": str(tmp_path / "r.webm"),
    }
    assert project["file"]["2"]["fname"] == "s.mp4" and project["file"]["2"]["loc"] == 1
    entry = next(iter(project["metadata"].values()))
    assert entry == {"vid": "1", "flg": 0, "z": [1.235, 2.5], "xy": [], "av": {"1": "0", "2": "0.7500"}}


def test_detections_before_the_beginning_and_very_short_ones(tmp_path):
    detections = table(("r", -0.5, 1, "a"), ("r", 2, 2.0001, "b"), ("r", -3, -1, "c"), score=[0.9, 0.8, 0.7])
    FORMATS["elan"].write(tmp_path, layers(detections=detections))
    assert in_milliseconds(returned(tmp_path, "elan").segments) == [
        ("r", 0, 1000, "a"),
        ("r", 2000, 2001, "b"),
    ]


def test_only_the_best_detections():
    detections = table(
        *(("r", i, i + 1, "a") for i in range(5)), ("s", 0, 1, "a"), score=[0.1, 0.5, 0.3, 0.9, 0.2, 0.05]
    )
    kept = layers(detections=detections, min_score=0.2, top=2).tables["detections"]
    assert sorted(kept.score) == [0.5, 0.9]
    assert len(layers(detections=detections, top=2).tables["detections"]) == 3


@pytest.mark.parametrize("bad", ["a\nb", "\x00", " ", "\ud800"])
def test_text_that_no_tool_can_hold_is_refused(bad):
    for row in ((bad, 0, 1, "a"), ("r", 0, 1, bad)):
        with pytest.raises(TalError, match="is not one line of text"):
            layers(annotations=table(row))


def test_file_names():
    assert file_names(["P01/a", "..", "é" * 300], ".eaf") == {
        "P01/a": "P01_a.eaf",
        "..": "recording.eaf",
        "é" * 300: "é" * 100 + ".eaf",
    }
    with pytest.raises(
        TalError, match="recording a_b would be written to the same file as another one, a_b.eaf"
    ):
        file_names(["a/b", "a_b"], ".eaf")


@pytest.fixture
def data(tmp_path):
    """An annotation file and a detections file of two recordings."""
    recordings = pd.DataFrame({"recording": ["r", "s"], "split": "test", "duration": 20.0})
    truth = table(("r", 1.0, 2.0, "a"), ("s", 3.0, 4.0, "b"))
    write_annotations(tmp_path / "truth.json", recordings, truth)
    results = {"r": [{"segment": [1.5, 2.5], "label": "a", "score": 0.9}], "s": [], "q": []}
    (tmp_path / "found.json").write_text(
        json.dumps({"results": {k: v for k, v in results.items() if k != "q"}})
    )
    return tmp_path


def test_the_command_and_the_way_back(data, capsys):
    out, back = data / "elan", data / "back"
    command = ["data", "export", "--as", "elan", "--annotations", str(data / "truth.json"), "--out", str(out)]
    assert main([*command, "--detections", str(data / "found.json")]) == 0
    assert "2 files for 2 recordings: 2 annotations, 1 detections" in capsys.readouterr().out
    assert sorted(path.name for path in out.glob("*.eaf")) == ["r.eaf", "s.eaf"]
    files = [str(path) for path in sorted(out.glob("*.eaf"))]
    (data / "seconds.csv").write_text("r,20\ns,20\n")
    again = ["data", "import", *files, "--durations", str(data / "seconds.csv"), "--out", str(back)]
    assert main([*again, "--tier", "annotations*", "--split", "test"]) == 0
    assert (back / "annotations.json").read_text() == (data / "truth.json").read_text()


def test_corrected_recordings_update_their_data_set(data, capsys):
    """One file is corrected: durations and splits are known, and the other recording stays."""
    out = data / "elan"
    export = ["data", "export", "--as", "elan", "--annotations", str(data / "truth.json"), "--out", str(out)]
    assert main([*export, "--recordings", "s"]) == 0
    path = out / "s.eaf"
    path.write_text(path.read_text().replace('TIME_VALUE="4000"', 'TIME_VALUE="4250"'))
    command = ["data", "import", str(path), "--update", str(data / "truth.json"), "--out", str(data / "new")]
    assert main(command) == 0
    content = read_annotations(data / "new" / "annotations.json")
    assert content.segments.values.tolist() == [["r", 1.0, 2.0, "a"], ["s", 3.0, 4.25, "b"]]
    assert content.recordings.values.tolist()[1][:3] == ["s", "test", 20.0]
    assert len(content.recordings) == 2


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_an_import_does_not_replace_what_it_reads(more, data, capsys):
    export = ["data", "export", "--as", "elan", "--annotations", str(data / "truth.json")]
    assert main([*export, "--out", str(data / "elan")]) == 0
    source = data / "annotations.json"
    (data / "truth.json").rename(source)
    before = source.read_bytes()
    command = ["data", "import", str(data / "elan" / "s.eaf"), "--update", str(source), "--out", str(data)]
    assert main([*command, *more]) == 2
    assert "annotations.json: would be overwritten by the output" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_corrected_file_is_not_replaced(data, capsys):
    """The work of a person is lost only with --overwrite."""
    out = data / "elan"
    command = ["data", "export", "--as", "elan", "--annotations", str(data / "truth.json"), "--out", str(out)]
    assert main(command) == 0 and main(command) == 0
    path = out / "r.eaf"
    path.write_text(path.read_text().replace(">a<", ">b<"))
    capsys.readouterr()
    assert main(command) == 2
    assert "r.eaf: was changed since" in capsys.readouterr().err and ">b<" in path.read_text()
    assert main([*command, "--overwrite"]) == 0


def test_videos_and_single_recordings(data, capsys):
    videos = data / "videos"
    videos.mkdir()
    write_video(videos / "r.mp4", (np.zeros((32, 32, 3), np.uint8) for _ in range(5)), 5)
    command = [
        "data",
        "export",
        "--as",
        "elan",
        "--annotations",
        str(data / "truth.json"),
        "--out",
        str(data),
    ]
    assert main([*command, "--videos", str(videos), "--recordings", "r"]) == 0
    medium = ElementTree.parse(data / "r.eaf").getroot().find("HEADER/MEDIA_DESCRIPTOR")
    assert medium.get("MEDIA_URL") == f"file://{videos / 'r.mp4'}" and not (data / "s.eaf").exists()
    assert main([*command, "--recordings", "t"]) == 2
    assert "unknown recording t" in capsys.readouterr().err
    assert main(["data", "export", "--as", "via", "--out", str(data)]) == 2
    assert "nothing to export" in capsys.readouterr().err


def test_an_export_of_nothing_is_refused(data, capsys):
    for kind in ("elan", "via"):
        command = ["data", "export", "--as", kind, "--detections", str(data / "found.json")]
        assert main([*command, "--out", str(data / "none"), "--min-score", "2"]) == 2
        assert (
            "no detection or annotation is left" in capsys.readouterr().err and not (data / "none").exists()
        )
