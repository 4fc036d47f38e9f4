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
import re
import zipfile

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import read_annotations
from tal_lib.data.importing import FORMATS, format_of
from tal_lib.data.importing.collect import media_id
from tal_lib.video.frames import write_video

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


def rows(content):
    return list(content.segments.itertuples(index=False, name=None))


@pytest.mark.parametrize("name", EXPECTED)
def test_segments_of_each_tool(exports, name):
    assert format_of(exports.folder / name) is FORMATS[exports.kinds[name]]
    got = sorted(rows(exports.read(exports.folder / name)))
    assert [(row[0], row[3]) for row in got] == [(row[0], row[3]) for row in sorted(EXPECTED[name])]
    assert [row[1:3] for row in got] == [pytest.approx(row[1:3]) for row in sorted(EXPECTED[name])]


def test_recordings_durations_and_rates(exports):
    content = exports.read(
        exports.folder / "boris.csv",
        exports.folder / "cvat.xml",
        fps=None,
        rates={"street": 30.0},
        test=("b",),
    )
    table = content.recordings.set_index("recording")
    assert table.duration.to_dict() == {"cage_1": 180.0, "a": 100.0, "b": 50.0, "street": 154.0}
    assert table.fps.to_dict() == {"cage_1": 25.0, "a": 25.0, "b": 30.0, "street": 30.0}
    assert table.split.to_dict() == {"cage_1": "train", "a": "train", "b": "test", "street": "train"}
    assert exports.read(exports.folder / "via.json").recordings.recording.tolist() == [
        "Alioli",
        "mouse",
    ]  # one has no segment


def test_what_is_left_out_is_said(exports):
    texts = [str(remark) for name in EXPECTED for remark in exports.read(exports.folder / name).repairs]
    assert "lab.01: 1 annotations of dependent tiers (name a tier with --tier)" in texts
    assert "Alioli: 1 entries that are no temporal segments" in texts
    assert "cage_1: 1 point events, which have no duration" in texts
    assert any(text.startswith("street: duration by the task's 4,620 frames") for text in texts)


def test_elan_tiers_and_labels(exports):
    path = exports.folder / "lab.eaf"
    assert rows(exports.read(path, tiers=("*hand",))) == ELAN
    assert rows(exports.read(path, tiers=("note",))) == [("lab.01", 4.005, 6.5, "slow")]  # its parent's time
    assert [row[3] for row in rows(exports.read(path, label="tier"))] == [
        "left hand",
        "right hand",
        "left hand",
    ]
    with pytest.raises(TalError, match="lab.eaf: unknown tier 'lef hand'.*Did you mean left hand"):
        exports.read(path, tiers=("lef hand",))


def test_via_attributes(exports):
    def second(project):
        project["metadata"]["-glfwaaX"]["av"]["2"] = "Egg, brown"
        project["metadata"]["+mHHT-tg"]["av"]["2"] = "Oil"

    path = exports.edited("via.json", second)
    assert rows(exports.read(path)) == VIA  # the attribute with options
    assert [row[3] for row in rows(exports.read(path, attribute="Object"))] == ["Egg, brown", "Oil"]

    def checkbox(project):
        project["attribute"]["1"]["type"] = 2
        project["metadata"]["-glfwaaX"]["av"]["1"] = "1,2"

    path = exports.edited("via.json", checkbox)
    assert [row[3] for row in rows(exports.read(path))] == ["Break Egg", "Pour Liquid", "Pour Liquid"]

    def both(project):
        second(project)
        project["attribute"]["2"]["type"] = 3

    with pytest.raises(TalError, match=r"several attributes \(Activity, Object\).*--attribute"):
        exports.read(exports.edited("via.json", both))


def test_cvat_attribute_and_steps(exports, tmp_path):
    values = "".join(
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1">'
        + (f'<attribute name="action">{value}</attribute>' if value else "")
        + "</box>"
        for frame, outside, value in ((0, 0, "walk"), (30, 0, None), (60, 0, "__undefined__"), (90, 0, "sit"))
    )
    text = (exports.folder / "cvat.xml").read_text()
    head = text[: text.index("<track")].replace(
        "<frame_filter></frame_filter>", "<frame_filter>step=10</frame_filter>"
    )
    path = tmp_path / "cvat.xml"
    path.write_text(head + f'<track id="0" label="person">{values}</track></annotations>')
    got = rows(exports.read(path, attribute="action", durations={"street": 200.0}))
    assert got == [("street", 0.0, 2.0, "walk"), ("street", 3.0, pytest.approx(4629 / 30), "sit")]
    with pytest.raises(TalError, match="cvat.xml: unknown attribute 'acton'.*Did you mean action"):
        exports.read(path, attribute="acton", durations={"street": 200.0})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("annotations.xml", text)
    (tmp_path / "task.zip").write_bytes(archive.getvalue())
    assert rows(exports.read(tmp_path / "task.zip")) == rows(exports.read(exports.folder / "cvat.xml"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"video": 3, "text": 4}, "task 7: 0 videos in its data .video, text."),
        ({"left": "a.mp4", "right": "b.mp4"}, "task 7: 2 videos in its data .left, right."),
        ([], "task 7: data is not an object"),
    ],
)
def test_label_studio_tasks_have_one_video(exports, data, message):
    with pytest.raises(TalError, match=message):
        exports.read(exports.edited("label_studio.json", lambda tasks: tasks[0].update(data=data)))


@pytest.mark.parametrize(
    ("video", "recording"),
    [
        ("/data/upload/3/0a1b2c3d-cook_1.mp4", "cook_1"),
        ("http://host:8080/data/upload/3/0a1b2c3d-cook%201.mp4", "cook 1"),
        ("/data/upload/3/cook_1.mp4", "cook_1"),
        ("s3://bucket/0a1b2c3d-cook_1.mp4", "0a1b2c3d-cook_1"),  # not an upload: the user's own name
        ("/data/local-files/?d=upload/0a1b2c3d-cook_1.mp4", "0a1b2c3d-cook_1"),
    ],
)
def test_label_studio_uploads_have_the_name_of_their_file(exports, video, recording):
    file = exports.edited("label_studio.json", lambda tasks: tasks[0].update(data={"video": video}))
    content = exports.read(file, durations={recording: 12.0})
    assert content.recordings.recording.tolist() == [recording]


def test_label_studio_seconds_of_a_sound_and_several_annotators(exports):
    def sound(tasks):
        tasks[0]["annotations"][0]["result"][1] |= {
            "type": "labels",
            "value": {"start": 3.25, "end": 4.5, "channel": 0, "labels": ["kick"]},
        }

    assert rows(exports.read(exports.edited("label_studio.json", sound)))[1] == ("cook_1", 3.25, 4.5, "kick")

    def two(tasks):
        tasks[0]["annotations"].append(tasks[0]["annotations"][0] | {"id": 9, "result": []})

    def chosen(tasks):
        two(tasks)
        tasks[0]["annotations"][1]["ground_truth"] = True

    with pytest.raises(TalError, match="task 7 has 2 annotations.*ground truth"):
        exports.read(exports.edited("label_studio.json", two))
    assert rows(exports.read(exports.edited("label_studio.json", chosen))) == []


@pytest.mark.parametrize("name", ["label_studio.json", "label_studio_min.json", "cvat.xml", "cvat_tags.xml"])
def test_frames_without_a_rate_are_refused(exports, name):
    with pytest.raises(
        TalError, match=f"{name}.*frame numbers, and the frame rate is not known.*--fps.*--videos"
    ):
        exports.read(exports.folder / name, fps=None)


@pytest.mark.parametrize("name", ["lab.eaf", "via.json", "label_studio.json"])
def test_unknown_durations_are_refused(exports, name):
    with pytest.raises(
        TalError, match=f"{name}: recording .*its duration is not known.*--durations.*--videos"
    ):
        exports.read(exports.folder / name, durations={})


def test_a_wrong_rate_is_noticed(exports):
    """Frames of 25 a second read as 250: everything would be at the beginning; as 2.5: beyond the end."""
    with pytest.raises(
        TalError, match="label_studio.json: recording cook_1: 'clap'.*beyond its duration of 12 s"
    ):
        exports.read(exports.folder / "label_studio.json", fps=3.0)


def test_encodings(exports, tmp_path):
    """XML in the encoding that it declares; a byte-order mark before a table."""
    text = (exports.folder / "lab.eaf").read_text().replace("wave &amp; clap", "ähnlich")
    for encoding in ("ISO-8859-1", "UTF-16"):
        path = tmp_path / f"{encoding}.eaf"
        path.write_bytes(text.replace("UTF-8", encoding).encode(encoding))
        assert rows(exports.read(path))[0][3] == "ähnlich"
    wrong = tmp_path / "wrong.eaf"
    wrong.write_bytes(text.encode("latin-1"))
    with pytest.raises(TalError, match="wrong.eaf: not valid XML.*UTF-8"):
        exports.read(wrong)
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + (exports.folder / "boris.csv").read_bytes())
    assert rows(exports.read(marked)) == rows(exports.read(exports.folder / "boris.csv"))
    table = tmp_path / "latin.csv"
    table.write_bytes((exports.folder / "boris.csv").read_text().replace("sniff", "é").encode("latin-1"))
    with pytest.raises(TalError, match="latin.csv: BORIS table is not UTF-8"):
        exports.read(table)


def test_one_recording_in_two_files(exports):
    other = exports.changed("lab.eaf")
    with pytest.raises(TalError, match="recording lab.01 is annotated here and in .*lab.eaf"):
        exports.read(exports.folder / "lab.eaf", other)
    with pytest.raises(TalError, match="recording cook_1 is annotated twice"):
        exports.read(exports.edited("label_studio.json", lambda tasks: tasks.append(tasks[0] | {"id": 8})))
    with pytest.raises(TalError, match="unknown recording 'lab.02'.*Did you mean lab.01"):
        exports.read(exports.folder / "lab.eaf", test=("lab.02",))


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


def test_the_command(exports, tmp_path, capsys):
    table = tmp_path / "durations.csv"
    table.write_text(
        "recording,duration\n" + "".join(f"{name},{s}\n" for name, s in exports.durations.items())
    )
    out = tmp_path / "mydata"
    command = [
        "data",
        "import",
        str(exports.folder / "lab.eaf"),
        str(exports.folder / "via.json"),
        "--out",
        str(out),
    ]
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


def test_durations_with_the_line_ends_of_an_old_mac(exports, tmp_path):
    table = tmp_path / "durations.csv"
    lines = ["recording,duration", *(f"{name},{s}" for name, s in exports.durations.items())]
    table.write_bytes("\r".join(lines).encode())
    command = ["data", "import", str(exports.folder / "lab.eaf"), "--durations", str(table)]
    assert main([*command, "--out", str(tmp_path / "mydata")]) == 0
    assert rows(read_annotations(tmp_path / "mydata" / "annotations.json")) == ELAN


def test_the_command_says_what_is_wrong_before_it_writes(exports, tmp_path, capsys):
    (tmp_path / "wide.csv").write_text(f"recording,duration\n{200_000 * 'x'},1\n")
    for extra, message in (
        ([], "its duration is not known"),
        (["--as", "elann"], "unknown format 'elann'.*elan"),
        (["--set", "stride_s=1"], "--set, --annotations and --features are for data sets with features"),
        (["--durations", str(tmp_path / "none.csv")], "none.csv: table of durations not found"),
        (["--durations", str(tmp_path / "wide.csv")], "wide.csv: not a readable table .*Expected lines"),
    ):
        assert (
            main(["data", "import", str(exports.folder / "lab.eaf"), "--out", str(tmp_path / "o"), *extra])
            == 2
        )
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "o").exists()


def test_durations_and_rates_of_the_videos(exports, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "cook_1.mp4", (np.zeros((32, 32, 3), np.uint8) for _ in range(75)), 25)
    command = ["data", "import", str(exports.folder / "label_studio.json"), "--out", str(tmp_path / "o")]
    assert main([*command, "--videos", str(videos)]) == 0
    content = read_annotations(tmp_path / "o" / "annotations.json")
    assert content.recordings.fps.tolist() == [25.0]
    assert content.recordings.duration.tolist() == pytest.approx([3.0], abs=0.05)
    assert rows(content)[1] == ("cook_1", pytest.approx(60 / 25), pytest.approx(61 / 25), "clap")
