"""Files of annotation tools, in the form that each tool documents (`tests/data/exports`):

| file | form documented in |
| --- | --- |
| lab.eaf | EAF_Annotation_Format_3.0_and_ELAN.pdf and EAFv3.0.xsd, The Language Archive (MPI Nijmegen) |
| via.json | VIA 3 CodeDoc.md, "Structure of VIA Project JSON File" (gitlab.com/vgg/via) |
| boris.csv | BORIS user guide, "Export events"; columns of `export_events.py`, version 9 |
| boris_7.tsv | BORIS's own tests, `test_export_aggregated_events_test_full_1.tsv` |
| label_studio.json, _min.json | labelstud.io: tag TimelineLabels; "Export annotations": JSON, JSON_MIN |
| cvat.xml, cvat_tags.xml | docs.cvat.ai, "XML annotation format" 1.1, video and images |

ELAN and CVAT write times of their own: milliseconds, and frames from 0; Label Studio counts frames from 1.
"""

import io
import json
import re
import zipfile

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import read_annotations
from tal_lib.data.importing import FORMATS, Options, format_of, import_files
from tal_lib.data.importing.collect import media_id
from tal_lib.files import REPOSITORY
from tal_lib.video.frames import write_video

EXPORTS = REPOSITORY / "tests" / "data" / "exports"
DURATIONS = {"lab.01": 10.0, "Alioli": 30.0, "mouse": 5.0, "cook_1": 12.0}
KINDS = {
    "lab.eaf": "elan",
    "via.json": "via",
    "boris.csv": "boris",
    "boris_7.tsv": "boris",
    "label_studio.json": "label_studio",
    "label_studio_min.json": "label_studio",
    "cvat.xml": "cvat",
    "cvat_tags.xml": "cvat",
}
ELAN = [
    ("lab.01", 0.78, 2.34, "wave & clap"),
    ("lab.01", 2.34, 4.005, "reach"),
    ("lab.01", 4.005, 6.5, "reach"),
]
VIA = [("Alioli", 2.0, 6.5, "Break Egg"), ("Alioli", 9.0, 20.0, "Pour Liquid")]
BORIS = [("cage_1", 1.8, 8.125, "sniff"), ("a", 90.0, 95.0, "sniff"), ("b", 10.5, 12.0, "dig, deep")]
LABEL_STUDIO = [("cook_1", 0.0, 1.0, "wave"), ("cook_1", 2.0, 61 / 30, "clap")]
CVAT = [
    ("street", 0.0, 10 / 30, "car"),
    ("street", 2.0, 2.5, "car"),
    ("street", 4600 / 30, 4620 / 30, "person"),
]
CVAT_TAGS = [
    ("street", 3 / 30, 5 / 30, "run"),
    ("street", 5 / 30, 7 / 30, "jump"),
    ("street", 9 / 30, 10 / 30, "run"),
]
EXPECTED = {
    "lab.eaf": ELAN,
    "via.json": VIA,
    "boris.csv": BORIS,
    "boris_7.tsv": [("video_test_25fps_180s", 1.8, 8.125, "s")],
    "label_studio.json": LABEL_STUDIO,
    "label_studio_min.json": LABEL_STUDIO,
    "cvat.xml": CVAT,
    "cvat_tags.xml": CVAT_TAGS,
}


def options(**changes):
    return Options(**{"fps": 30.0, "durations": DURATIONS} | changes)


def read(*paths, **changes):
    return import_files(paths, options(**changes))


def rows(content):
    return list(content.segments.itertuples(index=False, name=None))


def changed(tmp_path, name, *pairs):
    """A copy of an exported file with some texts replaced."""
    text = (EXPORTS / name).read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def edited(tmp_path, name, edit):
    """A copy of an exported JSON file, changed by a function."""
    content = json.loads((EXPORTS / name).read_text())
    edit(content)
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", KINDS)
def test_segments_of_each_tool(name):
    assert format_of(EXPORTS / name) is FORMATS[KINDS[name]]
    got = sorted(rows(read(EXPORTS / name)))
    assert [(row[0], row[3]) for row in got] == [(row[0], row[3]) for row in sorted(EXPECTED[name])]
    assert [row[1:3] for row in got] == [pytest.approx(row[1:3]) for row in sorted(EXPECTED[name])]


def test_recordings_durations_and_rates():
    content = read(EXPORTS / "boris.csv", EXPORTS / "cvat.xml", fps=None, rates={"street": 30.0}, test=("b",))
    table = content.recordings.set_index("recording")
    assert table.duration.to_dict() == {"cage_1": 180.0, "a": 100.0, "b": 50.0, "street": 154.0}
    assert table.fps.to_dict() == {"cage_1": 25.0, "a": 25.0, "b": 30.0, "street": 30.0}
    assert table.split.to_dict() == {"cage_1": "train", "a": "train", "b": "test", "street": "train"}
    assert read(EXPORTS / "via.json").recordings.recording.tolist() == [
        "Alioli",
        "mouse",
    ]  # one has no segment


def test_what_is_left_out_is_said():
    texts = [str(remark) for name in KINDS for remark in read(EXPORTS / name).repairs]
    assert "lab.01: 1 annotations of dependent tiers (name a tier with --tier)" in texts
    assert "Alioli: 1 entries that are no temporal segments" in texts
    assert "cage_1: 1 point events, which have no duration" in texts
    assert any(text.startswith("street: duration by the task's 4,620 frames") for text in texts)


def test_elan_tiers_and_labels():
    path = EXPORTS / "lab.eaf"
    assert rows(read(path, tiers=("*hand",))) == ELAN
    assert rows(read(path, tiers=("note",))) == [("lab.01", 4.005, 6.5, "slow")]  # its parent's time
    assert [row[3] for row in rows(read(path, label="tier"))] == ["left hand", "right hand", "left hand"]
    with pytest.raises(TalError, match="lab.eaf: unknown tier 'lef hand'.*Did you mean left hand"):
        read(path, tiers=("lef hand",))


def test_via_attributes(tmp_path):
    def second(project):
        project["metadata"]["-glfwaaX"]["av"]["2"] = "Egg, brown"
        project["metadata"]["+mHHT-tg"]["av"]["2"] = "Oil"

    path = edited(tmp_path, "via.json", second)
    assert rows(read(path)) == VIA  # the attribute with options
    assert [row[3] for row in rows(read(path, attribute="Object"))] == ["Egg, brown", "Oil"]

    def checkbox(project):
        project["attribute"]["1"]["type"] = 2
        project["metadata"]["-glfwaaX"]["av"]["1"] = "1,2"

    path = edited(tmp_path, "via.json", checkbox)
    assert [row[3] for row in rows(read(path))] == ["Break Egg", "Pour Liquid", "Pour Liquid"]

    def both(project):
        second(project)
        project["attribute"]["2"]["type"] = 3

    with pytest.raises(TalError, match=r"several attributes \(Activity, Object\).*--attribute"):
        read(edited(tmp_path, "via.json", both))


def test_cvat_attribute_and_steps(tmp_path):
    values = "".join(
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1">'
        + (f'<attribute name="action">{value}</attribute>' if value else "")
        + "</box>"
        for frame, outside, value in ((0, 0, "walk"), (30, 0, None), (60, 0, "__undefined__"), (90, 0, "sit"))
    )
    text = (EXPORTS / "cvat.xml").read_text()
    head = text[: text.index("<track")].replace(
        "<frame_filter></frame_filter>", "<frame_filter>step=10</frame_filter>"
    )
    path = tmp_path / "cvat.xml"
    path.write_text(head + f'<track id="0" label="person">{values}</track></annotations>')
    got = rows(read(path, attribute="action", durations={"street": 200.0}))
    assert got == [("street", 0.0, 2.0, "walk"), ("street", 3.0, pytest.approx(4629 / 30), "sit")]
    with pytest.raises(TalError, match="cvat.xml: unknown attribute 'acton'.*Did you mean action"):
        read(path, attribute="acton", durations={"street": 200.0})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("annotations.xml", text)
    (tmp_path / "task.zip").write_bytes(archive.getvalue())
    assert rows(read(tmp_path / "task.zip")) == rows(read(EXPORTS / "cvat.xml"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"video": 3, "text": 4}, "task 7: 0 videos in its data .video, text."),
        ({"left": "a.mp4", "right": "b.mp4"}, "task 7: 2 videos in its data .left, right."),
        ([], "task 7: data is not an object"),
    ],
)
def test_label_studio_tasks_have_one_video(tmp_path, data, message):
    with pytest.raises(TalError, match=message):
        read(edited(tmp_path, "label_studio.json", lambda tasks: tasks[0].update(data=data)))


def test_label_studio_seconds_of_a_sound_and_several_annotators(tmp_path):
    def sound(tasks):
        tasks[0]["annotations"][0]["result"][1] |= {
            "type": "labels",
            "value": {"start": 3.25, "end": 4.5, "channel": 0, "labels": ["kick"]},
        }

    assert rows(read(edited(tmp_path, "label_studio.json", sound)))[1] == ("cook_1", 3.25, 4.5, "kick")

    def two(tasks):
        tasks[0]["annotations"].append(tasks[0]["annotations"][0] | {"id": 9, "result": []})

    def chosen(tasks):
        two(tasks)
        tasks[0]["annotations"][1]["ground_truth"] = True

    with pytest.raises(TalError, match="task 7 has 2 annotations.*ground truth"):
        read(edited(tmp_path, "label_studio.json", two))
    assert rows(read(edited(tmp_path, "label_studio.json", chosen))) == []


@pytest.mark.parametrize("name", ["label_studio.json", "label_studio_min.json", "cvat.xml", "cvat_tags.xml"])
def test_frames_without_a_rate_are_refused(name):
    with pytest.raises(
        TalError, match=f"{name}.*frame numbers, and the frame rate is not known.*--fps.*--videos"
    ):
        read(EXPORTS / name, fps=None)


@pytest.mark.parametrize("name", ["lab.eaf", "via.json", "label_studio.json"])
def test_unknown_durations_are_refused(name):
    with pytest.raises(
        TalError, match=f"{name}: recording .*its duration is not known.*--durations.*--videos"
    ):
        read(EXPORTS / name, durations={})


def test_a_wrong_rate_is_noticed():
    """Frames of 25 a second read as 250: everything would be at the beginning; as 2.5: beyond the end."""
    with pytest.raises(
        TalError, match="label_studio.json: recording cook_1: 'clap'.*beyond its duration of 12 s"
    ):
        read(EXPORTS / "label_studio.json", fps=3.0)


TWICE = 'ANNOTATION_ID="a1"'
BAD = {
    "not elan": ("lab.eaf", [("ANNOTATION_DOCUMENT", "DOCUMENT")], "its root is DOCUMENT"),
    "half of it": ("lab.eaf", [("</ANNOTATION_DOCUMENT>", "")], "not valid XML"),
    "other units": (
        "lab.eaf",
        [('TIME_UNITS="milliseconds"', 'TIME_UNITS="PAL-frames"')],
        "times are PAL-frames",
    ),
    "shifted video": ("lab.eaf", [('MIME_TYPE="', 'TIME_ORIGIN="2000" MIME_TYPE="')], "shifted by 2000 ms"),
    "negative time": ("lab.eaf", [('TIME_VALUE="780"', 'TIME_VALUE="-780"')], "a1, ts1: '-780' is before"),
    "huge time": ("lab.eaf", [('"780"', '"' + "9" * 400 + '"')], "tier left hand, annotation a1, ts1: "),
    "no number": ("lab.eaf", [('TIME_VALUE="780"', 'TIME_VALUE="soon"')], "'soon' is not a number"),
    "end before start": ("lab.eaf", [('"2340"', '"700"')], "annotation a1: 0.78–0.7 s ends before"),
    "slot without time": ("lab.eaf", [(' TIME_VALUE="780"', "")], "a1: time slot 'ts1' has no time"),
    "unknown slot": ("lab.eaf", [('REF1="ts1"', 'REF1="ts77"')], "time slot 'ts77' is not in the file"),
    "same annotation id": ("lab.eaf", [('ANNOTATION_ID="a2"', TWICE)], "annotation 'a1' is there twice"),
    "same slot": ("lab.eaf", [('SLOT_ID="ts2"', 'SLOT_ID="ts1"')], "time slot 'ts1' is there twice"),
    "same tier": ("lab.eaf", [('"right hand"', '"left hand"')], "tier 'left hand' is there twice"),
    "no value": ("lab.eaf", [("wave &amp; clap", " ")], "annotation a1 has no value.*--label tier"),
    "two lines": ("lab.eaf", [("wave &amp; clap", "wave\nclap")], "'wave.nclap' is not one line"),
    "beyond": ("lab.eaf", [('"6500"', '"65000"')], "'reach' at 4.005–65 s is beyond its duration of 10 s"),
    "no view": ("via.json", [('"view"', '"views"')], "no 'view' in it"),
    "view of two": (
        "via.json",
        [('"fid_list": [\n    2\n   ]', '"fid_list": [1, 2]')],
        "view '2' does not show",
    ),
    "negative z": ("via.json", [("6.5", "-6.5")], "metadata '-glfwaaX', z 2: -6.5 is before the beginning"),
    "swapped z": ("via.json", [("6.5", "0.5")], "2–0.5 s ends before it has begun"),
    "text z": ("via.json", [("6.5", '"x"')], "'x' is not a number"),
    "no label in via": ("via.json", [('"1": "1"', '"3": "1"')], "metadata '-glfwaaX' has no label"),
    "no view of it": ("via.json", [('"vid": "1"', '"vid": "9"')], "belongs to view '9'"),
    "same metadata": ("via.json", [("+mHHT-tg", "-glfwaaX")], "'-glfwaaX' is listed twice"),
    "boris column": ("boris.csv", [("Stop (s)", "Stop")], "columns missing: Stop .s."),
    "boris half line": ("boris.csv", [(",b.mp4,1,1,,,,", ",b.mp4")], "line 5 does not have 25 values"),
    "boris offset": ("boris.csv", [("cage_1.mp4,0,", "cage_1.mp4,3.5,")], "line 2: .*time offset of 3.5 s"),
    "boris comma": (
        "boris.csv",
        [("1.800,8.125", '"1,800",8.125')],
        "line 2, Start .s.: '1,800' is not a number",
    ),
    "boris pictures": ("boris.csv", [("1.800,8.125", "NA,NA")], "line 2: no Start .s."),
    "boris live": (
        "boris.csv",
        [("Media file,player", "Live observation,player")],
        "line 2: .*no media file",
    ),
    "boris stop": ("boris.csv", [("1.800,8.125", "8.125,8.125")], "line 2: 8.125–8.125 s ends before"),
    "boris one name": (
        "boris.csv",
        [("player #1:a.mp4", "player #1:c/cage_1.mp4")],
        "two media files are called cage_1",
    ),
    "boris 7, two files": (
        "boris_7.tsv",
        [("180s.mp4", "180s.mp4;c.mp4")],
        "2 media files of unknown duration",
    ),
    "frame 0": (
        "label_studio.json",
        [('"start": 1,', '"start": 0,')],
        "task 7, region 1, start: 0 is not a frame",
    ),
    "frame of a float": (
        "label_studio.json",
        [('"start": 1,', '"start": 1.5,')],
        "start: 1.5 is not a whole number",
    ),
    "range reversed": ("label_studio.json", [('"end": 61', '"end": 59')], "task 7, region 2: .* ends before"),
    "huge frame": ("label_studio.json", [('"end": 61', '"end": 1' + "0" * 30)], "region 2, end: "),
    "no labels": ("label_studio.json", [('"clap"', "")], "task 7, region 2 has no label"),
    "track twice": (
        "cvat.xml",
        [('id="1" label="person"', 'id="0" label="person"')],
        "track '0' is there twice",
    ),
    "shape twice": ("cvat.xml", [('frame="10"', 'frame="1"')], "track 0: two shapes in frame 1"),
    "negative frame": ("cvat.xml", [('frame="60"', 'frame="-60"')], "track 0, frame: '-60' is not a frame"),
    "frame is text": ("cvat.xml", [('frame="60"', 'frame="six"')], "'six' is not a whole number"),
    "outside": ("cvat.xml", [('outside="1"', 'outside="yes"')], "track 0: outside is 'yes'"),
    "image twice": ("cvat_tags.xml", [('id="4"', 'id="3"')], "image 3 is there twice"),
    "no task": ("cvat.xml", [("<task>", "<tusk>"), ("</task>", "</tusk>")], "no meta/task in it"),
    "project": ("cvat.xml", [("<task>", "<project></project><task>")], "is the export of a project"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_name_file_item_and_remedy(tmp_path, case):
    name, pairs, message = BAD[case]
    path = changed(tmp_path, name, *pairs)
    with pytest.raises(TalError, match=message) as error:
        import_files([path], options(), kind=KINDS[name])
    text = str(error.value)
    assert str(path) in text and "\n" not in text
    assert error.value.remedy and text.endswith(error.value.remedy)


LAUGHS = "".join(
    f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10 if n else "lol"}">' for n in range(10)
)  # stands for 3 GB


@pytest.mark.parametrize("kind", ["elan", "cvat"])
@pytest.mark.parametrize(
    "doctype",
    [
        f"<!DOCTYPE x [{LAUGHS}]>",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x SYSTEM "http://localhost:1/x.dtd">',
        "<!DOCTYPE x [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>",
    ],
)
def test_entities_are_refused_before_they_are_read(tmp_path, kind, doctype):
    name = {"elan": "lab.eaf", "cvat": "cvat.xml"}[kind]
    text = (EXPORTS / name).read_text()
    start = text.index("?>") + 2
    path = tmp_path / name
    path.write_text(text[:start] + doctype + text[start:])
    with pytest.raises(TalError, match=f"{name}: holds a document type .DOCTYPE."):
        import_files([path], options(), kind=kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 50, b"\xff\xfe\x00", "é".encode("latin-1"), b"{", b"[]", b"<a>" * 50_000, b"PK\x03\x04"],
)
def test_other_files_are_refused(tmp_path, kind, content):
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(TalError, match=r"file\.dat"):
        import_files([path], options(), kind=kind)


def test_encodings(tmp_path):
    """XML in the encoding that it declares; a byte-order mark before a table."""
    text = (EXPORTS / "lab.eaf").read_text().replace("wave &amp; clap", "ähnlich")
    for encoding in ("ISO-8859-1", "UTF-16"):
        path = tmp_path / f"{encoding}.eaf"
        path.write_bytes(text.replace("UTF-8", encoding).encode(encoding))
        assert rows(read(path))[0][3] == "ähnlich"
    wrong = tmp_path / "wrong.eaf"
    wrong.write_bytes(text.encode("latin-1"))
    with pytest.raises(TalError, match="wrong.eaf: not valid XML.*UTF-8"):
        read(wrong)
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + (EXPORTS / "boris.csv").read_bytes())
    assert rows(read(marked)) == rows(read(EXPORTS / "boris.csv"))
    table = tmp_path / "latin.csv"
    table.write_bytes((EXPORTS / "boris.csv").read_text().replace("sniff", "é").encode("latin-1"))
    with pytest.raises(TalError, match="latin.csv: BORIS table is not UTF-8"):
        read(table)


def test_thousands_of_tiers(tmp_path):
    text = (EXPORTS / "lab.eaf").read_text()
    tier = text[text.index("<TIER") : text.index("</TIER>") + 7]
    many = "".join(
        tier.replace('"left hand"', f'"t{n}"').replace('"a1"', f'"b{n}"').replace('"a2"', f'"c{n}"')
        for n in range(5000)
    )
    path = tmp_path / "many.eaf"
    path.write_text(text.replace("<LINGUISTIC_TYPE", many + "<LINGUISTIC_TYPE", 1))
    assert len(read(path).segments) == 10_003


def test_one_recording_in_two_files(tmp_path):
    other = changed(tmp_path, "lab.eaf")
    with pytest.raises(TalError, match="recording lab.01 is annotated here and in .*lab.eaf"):
        read(EXPORTS / "lab.eaf", other)
    with pytest.raises(TalError, match="recording cook_1 is annotated twice"):
        read(edited(tmp_path, "label_studio.json", lambda tasks: tasks.append(tasks[0] | {"id": 8})))
    with pytest.raises(TalError, match="unknown recording 'lab.02'.*Did you mean lab.01"):
        read(EXPORTS / "lab.eaf", test=("lab.02",))


@pytest.mark.parametrize(
    ("media", "name"),
    [
        ("file:///C:/My%20videos/a.b.mp4", "a.b"),
        ("./x/clip.MOV", "clip"),
        ("C:\\videos\\clip.avi", "clip"),
        ("/data/local-files/?d=set/clip%201.mp4", "clip 1"),
        ("https://host/v/clip.mp4?token=1#t=3", "clip"),
        ("100%25.mp4", "100%25"),
        ("video.v1", "video.v1"),
        ("P01/P01_02.mp4", "P01_02"),
    ],
)
def test_recordings_are_named_after_their_video(media, name):
    assert media_id(media) == name
    assert media_id("P01/P01_02.mp4", folders=True) == "P01/P01_02"
    assert media_id("../../etc/P01.mp4", folders=True) == "P01"


def test_the_command(tmp_path, capsys):
    table = tmp_path / "durations.csv"
    table.write_text("recording,duration\n" + "".join(f"{name},{s}\n" for name, s in DURATIONS.items()))
    out = tmp_path / "mydata"
    command = ["data", "import", str(EXPORTS / "lab.eaf"), str(EXPORTS / "via.json"), "--out", str(out)]
    assert main([*command, "--durations", str(table), "--test", "mouse"]) == 0
    assert "3 recordings (2 train, 1 test), 5 segments, 4 classes" in capsys.readouterr().out
    content = read_annotations(out / "annotations.json")
    assert rows(content) == ELAN + VIA
    assert main([*command, "--durations", str(table)]) == 0  # its own file is replaced
    (out / "annotations.json").write_text("{}")
    capsys.readouterr()
    assert main([*command, "--durations", str(table)]) == 2
    assert "was changed since" in capsys.readouterr().err
    assert main([*command, "--durations", str(table), "--overwrite"]) == 0


def test_the_command_says_what_is_wrong_before_it_writes(tmp_path, capsys):
    for extra, message in (
        ([], "its duration is not known"),
        (["--as", "elann"], "unknown format 'elann'.*elan"),
        (["--set", "stride_s=1"], "--set, --annotations and --features are for data sets with features"),
        (["--durations", str(tmp_path / "none.csv")], "none.csv: table of durations not found"),
    ):
        assert main(["data", "import", str(EXPORTS / "lab.eaf"), "--out", str(tmp_path / "o"), *extra]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "o").exists()


def test_durations_and_rates_of_the_videos(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "cook_1.mp4", (np.zeros((32, 32, 3), np.uint8) for _ in range(75)), 25)
    command = ["data", "import", str(EXPORTS / "label_studio.json"), "--out", str(tmp_path / "o")]
    assert main([*command, "--videos", str(videos)]) == 0
    content = read_annotations(tmp_path / "o" / "annotations.json")
    assert content.recordings.fps.tolist() == [25.0]
    assert content.recordings.duration.tolist() == pytest.approx([3.0], abs=0.05)
    assert rows(content)[1] == ("cook_1", pytest.approx(60 / 25), pytest.approx(61 / 25), "clap")
