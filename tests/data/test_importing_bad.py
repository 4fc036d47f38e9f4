"""Damaged and hostile files of annotation tools: one line names file, item and remedy; nothing expands."""

import pytest

from tal_lib import TalError
from tal_lib.data.importing import FORMATS, import_files

TWICE = 'ANNOTATION_ID="a1"'
BAD = {
    "not elan": ("lab.eaf", [("ANNOTATION_DOCUMENT", "DOCUMENT")], "the root element is DOCUMENT"),
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
    "same annotation id": ("lab.eaf", [('ANNOTATION_ID="a2"', TWICE)], "annotation 'a1' appears twice"),
    "same slot": ("lab.eaf", [('SLOT_ID="ts2"', 'SLOT_ID="ts1"')], "time slot 'ts1' appears twice"),
    "same tier": ("lab.eaf", [('"right hand"', '"left hand"')], "tier 'left hand' appears twice"),
    "no value": ("lab.eaf", [("wave &amp; clap", " ")], "annotation a1 has no value.*--label tier"),
    "two lines": ("lab.eaf", [("wave &amp; clap", "wave\nclap")], "'wave.nclap' is not one line"),
    "beyond": ("lab.eaf", [('"6500"', '"65000"')], "'reach' at 4.005–65 s is beyond its duration of 10 s"),
    "no view": ("via.json", [('"view"', '"views"')], "no 'view' in it"),
    "view of two": (
        "via.json",
        [('"fid_list": [\n    2\n   ]', '"fid_list": [1, 2]')],
        "view '2' does not show",
    ),
    "negative z": (
        "via.json",
        [("6.5", "-6.5")],
        "metadata '-glfwaaX', z 2: -6.5 is before the start of the recording",
    ),
    "swapped z": ("via.json", [("6.5", "0.5")], "2–0.5 s ends before it starts"),
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
        "track '0' appears twice",
    ),
    "shape twice": ("cvat.xml", [('frame="10"', 'frame="1"')], "track 0: two shapes in frame 1"),
    "negative frame": ("cvat.xml", [('frame="60"', 'frame="-60"')], "track 0, frame: '-60' is not a frame"),
    "frame is text": ("cvat.xml", [('frame="60"', 'frame="six"')], "'six' is not a whole number"),
    "outside": ("cvat.xml", [('outside="1"', 'outside="yes"')], "track 0: outside is 'yes'"),
    "image twice": ("cvat_tags.xml", [('id="4"', 'id="3"')], "image 3 appears twice"),
    "no task": ("cvat.xml", [("<task>", "<tusk>"), ("</task>", "</tusk>")], "no meta/task in it"),
    "project": ("cvat.xml", [("<task>", "<project></project><task>")], "is the export of a project"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_name_file_item_and_remedy(exports, case):
    name, pairs, message = BAD[case]
    path = exports.changed(name, *pairs)
    with pytest.raises(TalError, match=message) as error:
        import_files([path], exports.options(), kind=exports.kinds[name])
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
def test_entities_are_refused_before_they_are_read(exports, tmp_path, kind, doctype):
    name = {"elan": "lab.eaf", "cvat": "cvat.xml"}[kind]
    text = (exports.folder / name).read_text()
    start = text.index("?>") + 2
    path = tmp_path / name
    path.write_text(text[:start] + doctype + text[start:])
    with pytest.raises(TalError, match=f"{name}: holds a document type .DOCTYPE."):
        import_files([path], exports.options(), kind=kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 50, b"\xff\xfe\x00", "é".encode("latin-1"), b"{", b"[]", b"<a>" * 50_000, b"PK\x03\x04"],
)
def test_other_files_are_refused(exports, tmp_path, kind, content):
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(TalError, match=r"file\.dat"):
        import_files([path], exports.options(), kind=kind)


def test_thousands_of_tiers(exports, tmp_path):
    text = (exports.folder / "lab.eaf").read_text()
    tier = text[text.index("<TIER") : text.index("</TIER>") + 7]
    many = "".join(
        tier.replace('"left hand"', f'"t{n}"').replace('"a1"', f'"b{n}"').replace('"a2"', f'"c{n}"')
        for n in range(5000)
    )
    path = tmp_path / "many.eaf"
    path.write_text(text.replace("<LINGUISTIC_TYPE", many + "<LINGUISTIC_TYPE", 1))
    assert len(exports.read(path).segments) == 10_003
