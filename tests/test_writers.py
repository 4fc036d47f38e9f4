"""Commands that write: they never replace foreign files, for any target. A disk error gives one line.

`CASES` has every option of every command that names an output. The parser's test reports missing ones.
"""

import argparse
import json
import os
import re
import shutil
import zipfile
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import nbformat
import pytest
import torch

from tal_lib import cli, models
from tal_lib.cli import main
from tal_lib.data import hapt
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.files import REPOSITORY
from tal_lib.reports import site
from tal_lib.study import Scored
from tal_lib.sweeps import plan
from tal_lib.sweeps.ledger import read_ledger
from tal_lib.training import Trained, save_model
from tal_lib.video import demo
from tal_lib.video.rendered import render
from tal_lib.writing import LIST

PLACES = {"out", "results", "runs", "figures", "root", "folder", "target", "output", "to", "save", "dest"}
READ_ONLY = {  # options of that kind that only say where something is read
    ("tal data list", "root"),
    ("tal data check", "root"),
    ("tal data subset", "root"),
    ("tal train", "root"),
    ("tal released", "root"),
    ("tal eval", "root"),
    ("tal report", "runs"),
    ("tal verify", "results"),
    ("tal versions stamp", "results"),
    ("tal collect", "runs"),
    ("tal collect", "results"),
    ("tal publish", "folder"),
}


@dataclass(frozen=True)
class Case:
    """One option that says where a command writes."""

    command: list[str]  # with {place} for the option's value and {world} for the folder of the inputs
    files: tuple[
        str, ...
    ]  # that it writes there, as far as they are known; {cell} is the id of the sweep's cell
    overwrite: bool = True  # whether it has --overwrite
    room: int = 12_288  # bytes of a disk that is full before the command is done


CASES = {
    ("tal train", "out"): Case(
        "train window_cnn --set epochs=1 --set min_steps=1 --out {place}".split(),
        ("model.pt", "history.csv", "training.pt", "detections.json", "proposals.json"),
    ),
    ("tal train late", "out"): Case(
        "train window_cnn --fusion late --set epochs=1 --set min_steps=1 --out {place}".split(),
        ("rgb/model.pt", "flow/history.csv", "detections.json"),
    ),
    ("tal export", "out"): Case(
        "export window_cnn --checkpoint {world}/small.pt --format torchscript --out {place}".split(),
        ("model.ts", "model.json"),
    ),
    ("tal extract", "out"): Case(
        "extract {world}/videos/test_000.mp4 --again --out {place}".split(), ("test_000.npy",), room=8192
    ),
    ("tal detect", "out"): Case(
        "detect {world}/videos/test_000.mp4 --model {world}/model.pt --window 16 --draw "
        "--out {place}".split(),
        ("test_000.json", "test_000.csv", "test_000.png", "test_000.mp4"),
    ),
    ("tal data subset", "out"): Case(
        "data subset synthetic --fraction 0.2 --seed 5 --out {place}".split(),
        ("synthetic_20p5.json",),
        room=4096,
    ),
    ("tal data import", "out"): Case(
        "data import {world}/hand.eaf --durations {world}/durations.csv --out {place}".split(),
        ("annotations.json",),
        room=0,
    ),
    ("tal data export", "out"): Case(
        "data export --as elan --annotations {world}/annotations.json --out {place}".split(),
        ("test_000.eaf", "train_000.eaf"),
        room=4096,
    ),
    ("tal data prepare", "out"): Case(
        "data prepare {world}/videos --out {place}".split(), ("test_000.mp4", "train_000.mp4")
    ),
    ("tal data render", "out"): Case(
        "data render --train 1 --test 0 --seconds 4 --out {place}".split(),
        ("render.json", "annotations.json", "videos/train_000.mp4"),
    ),
    ("tal data fetch", "root"): Case(
        "data fetch hapt --from {world}/archive.bin --root {place}".split(), ("hapt/hapt.zip",)
    ),
    ("tal collect", "out"): Case(
        "collect {world}/models.yaml --runs {world}/trained --out {place}".split(),
        ("synthetic/window_cnn/model.safetensors", "synthetic/window_cnn/README.md"),
        room=4096,
    ),
    ("tal released", "out"): Case(
        "released temporalmaxer {world}/released.pth.tar --benchmark clips --set width=32 "
        "--set head_width=32 --set padded_steps=64 --out {place}".split(),
        ("detections.json", "model.pt"),
    ),
    ("tal report", "results"): Case(
        "report --results {place} --figures {world}/figures --runs {world}/runs --no-notebooks".split(),
        (
            "tables/class_ap.parquet",
            "tables/data_efficiency_summary.csv",
            "readers/accuracy/proposals_hapt.md",
            "readers/accuracy/proposals_hapt.tex",
        ),
        room=40_960,
    ),
    ("tal report", "figures"): Case(
        "report --results {world}/results --figures {place} --runs {world}/runs --no-notebooks".split(),
        ("accuracy/average_recall_hapt.png",),
    ),
    ("tal site", "out"): Case(
        "site --out {place}".split(),
        ("index.html", "assets/tal/site.css", "figures/accuracy/curve.png"),
        room=16_384,
    ),
    ("tal sweep", "results"): Case(
        "sweep {world}/sweeps/grid.yaml --results {place} --runs {world}/cells".split(),
        ("ledger/grid.jsonl",),
        overwrite=False,
        room=0,
    ),
    ("tal sweep", "runs"): Case(
        "sweep {world}/sweeps/grid.yaml --results {world}/ledgers --runs {place}".split(),
        ("grid/{cell}/notes.txt", "grid/{cell}.failed/notes.txt", "grid/.{cell}.part/notes.txt"),
        overwrite=False,
        room=4096,
    ),
    ("demo", "folder"): Case(
        "--folder {place}".split(), ("annotations.json", "videos/train_000.mp4", "render.json")
    ),
}
NAMES = [f"{command} --{option}" for command, option in CASES]
HAVE_OVERWRITE = {key: case for key, case in CASES.items() if case.overwrite and key[0] != "demo"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, small, released_weights):
    """Whatever the commands read."""
    world = render(tmp_path_factory.mktemp("world"), train=1, test=1, seconds=4.0, progress=False)
    torch.manual_seed(0)
    model = models.build(
        "temporalmaxer", input_dim=549, num_classes=2, width=16, head_width=16, ranges=((0, 4), (4, 10_000))
    )
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"hog": 432, "hof": 117})
    save_model(world / "model.pt", Trained(model.eval(), ("one", "other"), spec, None))
    narrow = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"one": 8})
    little = models.build("window_cnn", input_dim=8, num_classes=2).eval()
    save_model(world / "small.pt", Trained(little, ("one", "other"), narrow, None))
    released = released_weights(small.feature_spec.dim, len(small.classes), 32)
    torch.save({"epoch": 34, "state_dict_ema": released}, world / "released.pth.tar")
    with zipfile.ZipFile(world / "archive.bin", "w") as archive:
        archive.writestr("RawData", os.urandom(50_000))
    shutil.copy(REPOSITORY / "tests" / "data" / "exports" / "lab.eaf", world / "hand.eaf")
    (world / "durations.csv").write_text("lab.01,10\n")
    for name in ("notebooks", "results"):
        (world / name).mkdir()
    page = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title\n\nA sentence. " + "x" * 9000)]
    )
    nbformat.write(page, world / "notebooks" / "00_findings.ipynb")
    (world / "pictures" / "accuracy").mkdir(parents=True)
    (world / "pictures" / "accuracy" / "curve.png").write_bytes(b"png" * 3000)
    (world / "sweeps").mkdir()
    work = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "number: int = 1\nout_dir: str = ''", metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell(
                "import pandas as pd\nfrom tal_lib.sweeps import record\n" + "# x\n" * 3000
            ),
            nbformat.v4.new_code_cell("record(out_dir, {'t': pd.DataFrame({'x': [number]})}, config=[])"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
    )
    nbformat.write(work, world / "sweeps" / "work.ipynb")
    block = {"notebook": str(world / "sweeps" / "work.ipynb"), "parameters": {"number": 3}}
    (world / "sweeps" / "grid.yaml").write_text(json.dumps({"cells": [block]}))
    _add_run(world, small)
    return world


def _add_run(world, small):
    """A grid of one training, and its run folder, which `tal collect` reads."""
    block = {"notebook": "02_train_evaluate.ipynb", "parameters": {"benchmark": "synthetic"}}
    block["grid"] = {"model": ["window_cnn"]}
    (world / "models.yaml").write_text(json.dumps({"cells": [block]}))
    with pytest.MonkeyPatch.context() as patch:  # as `run` does: the data is a part of the cell's id
        patch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
        cell = plan(world / "models.yaml")[0]
    folder = world / "trained" / "models" / cell.id
    folder.mkdir(parents=True)
    few = {"nms": "none", "max_candidates": 50, "max_detections": 20}
    model = models.build(
        "window_cnn", input_dim=small.feature_spec.dim, num_classes=len(small.classes), **few
    )
    save_model(folder / "model.pt", Trained(model.eval(), small.classes, small.feature_spec, None))
    scores = Scored(benchmark=small, model=model).scores
    record = {"id": cell.id, "notebook": cell.notebook.name, "parameters": cell.parameters}
    record["tables"] = {"data_efficiency": [{"tiou": tiou, "map": value} for tiou, value in scores.items()]}
    record["provenance"] = {"data_hash": "", "git_commit": "", "utc": ""}
    (folder / "cell.json").write_text(json.dumps(record))


@pytest.fixture
def run(inputs, small, tmp_path, monkeypatch):
    """Runs a case with a value for its option; the exit code."""
    world = tmp_path / "world"
    shutil.copytree(inputs, world)
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    monkeypatch.setattr(hapt, "SOURCE", replace(hapt.SOURCE, check=lambda *_: None))
    sources = {"results": world, "figures": world / "pictures", "about": world / "none.md"}
    sources |= {"docs": world / "none", "packages": ()}
    monkeypatch.setattr(site, "build", partial(site.build, **sources))
    monkeypatch.setattr(site, "_run_mkdocs", _pages_as_they_are)
    monkeypatch.chdir(tmp_path)

    def run(case, place, *more):
        if "report" in case.command:
            results = place if case.command[2] == "{place}" else world / "results"
            _with_ledger(Path(results))
        words = [word.format(place=place, world=world) for word in case.command] + list(more)
        return demo.main(words) if case is CASES["demo", "folder"] else main(words)

    run.world = world
    return run


def _pages_as_they_are(sources, folder):
    """In place of MkDocs, which is slow and writes to a folder of its own: each source becomes a page."""
    for path in sources.folder.rglob("*"):
        if path.is_file() and path.name != LIST:
            name = path.relative_to(sources.folder)
            page = folder / (name.with_suffix(".html") if path.suffix in (".md", ".ipynb") else name)
            page.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, page)


def _with_ledger(results):
    """Two committed trainings in a ledger, as far as the folder can be written."""
    if os.path.isdir(results) and os.access(results, os.W_OK) and not (results / "ledger").exists():
        (results / "ledger").mkdir()
        (results / "ledger" / "x.jsonl").write_text(_two_lines())


@cache
def _two_lines():
    records = [
        record
        for record in read_ledger(REPOSITORY / "results" / "ledger" / "hapt.jsonl").values()
        if record["notebook"] == "02_train_evaluate.ipynb"
        and record["parameters"]["benchmark"] == "hapt"
        and record["parameters"].get("fold", -1) < 0
    ]
    return "".join(json.dumps(record) + "\n" for record in records[:2])


def tree(folder):
    """Every file below a folder and what it holds, but for ledgers' locks and the lists of written files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
        and path.name != LIST
        and not path.name.endswith(".lock")
        and "ledger/x" not in str(path)
    }


def one_line(capsys, *texts):
    """What the command said of what was wrong."""
    parts = re.split(r"[\r\n]|(?=tal: )", capsys.readouterr().err)  # a progress bar may stand before it
    lines = [line for line in parts if line.startswith(("tal: ", "error: "))]
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    assert all(text in lines[0] for text in texts), lines
    return lines[0]


def test_every_option_that_names_a_place_is_tested():
    options = set()

    def walk(parser, name):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, child in action.choices.items():
                    walk(child, f"{name} {word}")
            elif action.dest in PLACES:
                options.add((name, action.dest))

    walk(cli._parser(), "tal")
    tested = {key for key in CASES if key[0] not in ("demo", "tal train late")}
    assert options == tested | READ_ONLY
    assert not tested & READ_ONLY


@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
@pytest.mark.parametrize("below", ["", "/deeper/still"], ids=["the place", "a parent"])
def test_a_file_is_not_a_folder(case, below, run, tmp_path, capsys):
    (tmp_path / "place").write_text("precious")
    assert run(case, f"{tmp_path}/place{below}") == 2
    one_line(capsys, f"{tmp_path}/place", "is a file, not a folder. Name ")
    assert (tmp_path / "place").read_text() == "precious"


@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
def test_files_of_others_stay(case, run, tmp_path, capsys):
    place = tmp_path / "place"
    for name in case.files:
        path = place / _named(name, run.world)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"precious {name}")
    before = tree(place)
    assert run(case, place) == 2
    one_line(capsys, str(place))
    assert tree(place) == before


@pytest.mark.parametrize("name", ["rest", "only"])
@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
def test_each_single_file_of_others_stays(case, name, run, tmp_path, capsys):
    """As above, with the first or the last of the files alone."""
    place = tmp_path / "place"
    path = place / _named(case.files[0 if name == "only" else -1], run.world)
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    assert run(case, place) == 2
    one_line(capsys, str(place))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("case", HAVE_OVERWRITE.values(), ids=[" --".join(key) for key in HAVE_OVERWRITE])
def test_overwrite_replaces_them_and_a_change_is_noticed(case, run, tmp_path, capsys):
    """--overwrite replaces only these files. Then they are the program's, until somebody changes one."""
    place = tmp_path / "place"
    for name in (*case.files, "notes.txt"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("precious")
    assert run(case, place, "--overwrite") == 0
    written = tree(place)
    assert written.pop("notes.txt") == b"precious"
    written.pop("training.pt", None)  # of an interrupted training: nothing is left of it
    assert all(content != b"precious" for content in written.values()) and written
    assert run(case, place) == 0
    (place / "notes.txt").unlink()
    changed = place / next(name for name in case.files if name != "training.pt")
    changed.write_text("changed by hand")
    capsys.readouterr()
    assert run(case, place) == 2
    one_line(capsys, str(changed), "was changed since it was written", "--overwrite")
    assert changed.read_text() == "changed by hand"


@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
def test_a_read_only_place_is_told_before_any_work(case, run, small_disk, capsys, monkeypatch):
    monkeypatch.setattr(torch.optim.Optimizer, "step", lambda *_: pytest.fail("work began"))
    disk = small_disk("-o", "ro")
    assert run(case, disk / "new") == 2
    one_line(capsys, str(disk), "cannot be written (Read-only file system)", "Name ")


@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
def test_a_disk_that_fills_up_leaves_no_part_of_a_file(case, run, small_disk, capsys):
    disk = small_disk("-o", "size=400k")
    place = disk / "place"
    place.mkdir()
    if "report" in case.command:
        _with_ledger(place)
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - case.room))
    code = run(case, place)
    assert code == 2
    one_line(capsys, "the disk is full. Free some space")
    for path in place.rglob("*"):  # nothing but whole files of their own names
        if path.is_file() and path.name not in (LIST, ".lock"):
            assert path.stat().st_size and not path.name.startswith(".tal-"), path
            assert path.suffix != ".json" or json.loads(path.read_text()) is not None
    (disk / "filler").unlink()
    if case is CASES["tal train", "out"]:
        assert run(case, place) == 0


def _named(name, world):
    """A file's name, with the id of the sweep's cell."""
    return name.format(cell=plan(world / "sweeps" / "grid.yaml")[0].id) if "{cell}" in name else name


def spellings(path, tmp_path):
    """Other names of a file: through a link to it or to its folder, by `..`, and a hard link."""
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").symlink_to(path.parent)
    os.link(path, tmp_path / "hard")
    return {
        "itself": path,
        "a link": tmp_path / "link",
        "a linked folder": tmp_path / "folder" / path.name,
        "..": path.parent / ".." / path.parent.name / path.name,
        "a hard link": tmp_path / "hard",
    }


@pytest.mark.parametrize("spelling", ["itself", "a link", "a linked folder", "..", "a hard link"])
@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_a_teacher_is_not_replaced_by_its_student(spelling, more, run, tmp_path, capsys):
    """Not even a checkpoint that this program wrote."""
    teacher = tmp_path / "place" / "model.pt"
    command = CASES["tal train", "out"].command
    assert run(Case(command, ()), teacher.parent) == 0
    before = tree(teacher.parent)
    name = spellings(teacher, tmp_path)[spelling]
    assert run(Case(command, ()), teacher.parent, "--teacher", str(name), *more) == 2
    one_line(capsys, "would be overwritten by the output")
    assert tree(teacher.parent) == before


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("place", [".", "../videos", "{linked}"])
def test_a_video_is_not_replaced_by_its_drawing(place, more, run, tmp_path, capsys, monkeypatch):
    videos = run.world / "videos"
    (tmp_path / "linked").symlink_to(videos)
    monkeypatch.chdir(videos)
    before = tree(videos)
    command = ["detect", "test_000.mp4", "--model", "{world}/model.pt", "--draw", "--out", "{place}"]
    assert run(Case(command, ()), place.format(linked=tmp_path / "linked"), *more) == 2
    one_line(capsys, "test_000.mp4: would be overwritten by the output")
    assert tree(videos) == before


def test_other_sources_are_not_replaced(run, tmp_path, capsys):
    """A checkpoint named as its graph, a video as its features, a folder that is its origin, archives."""
    shutil.copy(run.world / "small.pt", run.world / "model.ts")
    shutil.copy(run.world / "videos" / "test_000.mp4", run.world / "clip.npy")
    before = tree(run.world)
    export = "export window_cnn --checkpoint {world}/model.ts --format torchscript --out {place} --overwrite"
    assert run(Case(export.split(), ()), run.world) == 2
    one_line(capsys, "model.ts: would be overwritten by the output")
    assert run(Case("extract {world}/clip.npy --out {place} --overwrite".split(), ()), run.world) == 2
    one_line(capsys, "clip.npy: would be overwritten by the output")
    for place in (run.world / "videos", run.world / "videos" / "some"):
        assert run(CASES["tal data prepare", "out"], place, "--overwrite") == 2
        one_line(capsys, "lies in the folder that files are taken from")
    shutil.rmtree(run.world / "videos" / "some", ignore_errors=True)
    assert tree(run.world) == before
    assert run(CASES["tal data fetch", "root"], tmp_path / "root") == 0
    archive = tmp_path / "root" / "hapt" / "hapt.zip"
    fetch = ["data", "fetch", "hapt", "--from", str(archive), "--root", "{place}"]
    assert run(Case(fetch, ()), tmp_path / "root") == 0
    assert archive.read_bytes() == (run.world / "archive.bin").read_bytes()


def test_features_of_two_kinds_are_not_mixed(run, tmp_path, capsys):
    extract = "extract {world}/videos --out {place}".split()
    place = tmp_path / "features"
    assert run(Case([*extract, "--fps", "8"], ()), place) == 0
    (place / "train_000.npy").unlink()  # as after an interruption
    before = tree(place)
    for more in (
        [],
        ["--overwrite"],
        ["--fps", "8", "--window", "4"],
        ["--fps", "8", "--stride", "3", "--again"],
    ):
        assert run(Case([*extract, *more], ()), place) == 2
        one_line(capsys, "contains features with other settings")
    assert tree(place) == before
    assert (
        run(Case([*extract, "--fps", "8"], ()), place) == 0
        and "1 new, 1 were there" in capsys.readouterr().out
    )
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "other.npy").write_bytes(b"theirs")
    assert run(Case(extract, ()), tmp_path / "theirs", "--overwrite") == 2
    one_line(capsys, "holds features (other.npy) but no spec.json")


def test_two_files_of_one_name_are_both_kept(run, tmp_path, capsys):
    origin = tmp_path / "origin"
    for index, name in enumerate(("a/x.npy", "b/x.npy", "b/X.npy", "y.npy")):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(bytes([index]))
    prepare = ["data", "prepare", str(origin), "--kind", ".npy", "--out", "{place}"]
    assert run(Case([*prepare[:-2], "--count", "2", *prepare[-2:]], ()), tmp_path / "p") == 2
    one_line(capsys, "two files would be called b_")  # b_x.npy and b_X.npy are one file on some disks
    (origin / "b" / "X.npy").unlink()
    assert run(Case(prepare, ()), tmp_path / "p") == 0
    assert tree(tmp_path / "p") == {"a_x.npy": b"\0", "b_x.npy": b"\1", "y.npy": b"\3"}
    assert run(Case(prepare, ()), tmp_path / "p") == 0 and "0 new, 3 were there" in capsys.readouterr().out


def test_a_rendered_folder_holds_one_kind_of_videos(run, tmp_path, capsys):
    case = CASES["tal data render", "out"]
    assert run(case, tmp_path / "r") == 0
    before = tree(tmp_path / "r")
    assert run(case, tmp_path / "r", "--seed", "1") == 2 and run(case, tmp_path / "r", "--seconds", "5") == 2
    assert (
        "contains videos of another seed or length" in capsys.readouterr().err
        and tree(tmp_path / "r") == before
    )


def test_a_site_removes_its_own_old_pages_alone(run, tmp_path):
    case, place = CASES["tal site", "out"], tmp_path / "site"
    assert run(case, place) == 0
    (place / "figures" / "accuracy" / "theirs.png").write_bytes(b"theirs")
    pages = run.world / "notebooks"
    shutil.move(pages / "00_findings.ipynb", pages / "01_data.ipynb")
    (run.world / "pictures" / "accuracy" / "curve.png").unlink()
    assert run(case, place) == 0
    notebooks = place / "results" / "notebooks"
    assert not (notebooks / "00_findings.html").exists() and (notebooks / "01_data.html").is_file()
    assert [path.name for path in (place / "figures" / "accuracy").glob("[!.]*")] == ["theirs.png"]


@pytest.mark.parametrize(
    "name", ["ä 名 🎬", "-x", "a\nb", "%s{}$(x)", "." + 100 * "x", 240 * "n", os.fsdecode(b"\xff\xfe")]
)
def test_unusual_names_of_videos_and_places(name, run, tmp_path, capsys):
    video = tmp_path / f"{name}.mp4"
    shutil.copy(run.world / "videos" / "test_000.mp4", video)
    place = tmp_path / "out" / name
    command = ["detect", str(video), "--model", "{world}/model.pt", "--draw", "--out", "{place}"]
    assert (
        run(Case([command[0], command[1].replace("{", "{{").replace("}", "}}"), *command[2:]], ()), place)
        == 0
    )
    written = [path.name for path in place.glob("*") if path.name != LIST]
    assert sorted(written) == sorted(f"{name}.{suffix}" for suffix in ("json", "csv", "png", "mp4"))


@pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
def test_a_name_that_is_too_long_is_told(case, run, tmp_path, capsys):
    assert run(case, tmp_path / (300 * "n")) == 2
    one_line(capsys, "cannot be written (File name too long)")
