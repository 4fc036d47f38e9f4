"""What `tal` refuses, or is interrupted in: one clear line, exit code 2, and nothing left behind."""

import argparse
import json
import os
import urllib.error
import urllib.request

import numpy as np
import pytest

from tal_lib import TalError, cli, sweeps
from tal_lib.cli import main
from tal_lib.disk import make_folder, no_empty_folders
from tal_lib.files import REPOSITORY, atomic_path, data_root
from tal_lib.sweeps import declare, identity
from tal_lib.sweeps import runner as runners
from tal_lib.sweeps.versions import Versions

EAF = REPOSITORY / "tests" / "data" / "exports" / "lab.eaf"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with an annotation file, detections of it, a broken video and a file `f`."""
    monkeypatch.chdir(tmp_path)
    video = {"subset": "testing", "duration": 10, "annotations": [{"label": "a", "segment": [1, 3]}]}
    (tmp_path / "a.json").write_text(json.dumps({"database": {"x": video}}))
    (tmp_path / "d.json").write_text(
        json.dumps({"results": {"x": [{"label": "a", "segment": [1, 3], "score": 0.5}]}})
    )
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "f").write_text("x")
    (tmp_path / "hand.eaf").write_bytes(EAF.read_bytes())
    return tmp_path


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(capsys, *arguments):
    """The one line of a command that is refused. It has printed nothing else."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and len(lines) == 1 and lines[0].startswith("tal: "), (out, err)
    return lines[0]


def no_network(*_, **__):
    raise urllib.error.URLError("no network")


def ctrl_c(*_, **__):
    raise KeyboardInterrupt


# --- nothing is left behind ----------------------------------------------------------------------------

LEAVE_NOTHING = [
    "data fetch hapt --root o",
    "data fetch sfinge3d --root o/p",
    "data fetch urfall --root o",
    "data fetch hapt --from f --root o",
    "extract v --out o/p",
    "detect v/bad.mp4 --model none --out o",
    "data prepare v --out o",
    "data render --train 0 --test 0 --out o",
    "data import hand.eaf --out o",
    "train bilstm --stream nonesuch --out o",
    "train bilstm --teacher f --out o/p",
    "export bilstm --checkpoint f --out o",
    "report --results o --figures p --runs q",
    "report --results o --figures f --runs q",
    "sweep quick --cluster nonsense --results o --runs p",
    "sweep quick --cluster slurm:none.yaml --results o/p --runs q/r",
]


@pytest.mark.parametrize("command", LEAVE_NOTHING)
def test_a_refused_command_leaves_nothing(command, here, capsys, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    before = tree(here)
    assert main(command.split()) in (1, 2)
    assert "tal: " in capsys.readouterr().err or command.split()[0] in ("extract", "data")
    assert tree(here) == before


INTERRUPTED = {
    "data fetch hapt --root o": "urllib.request.urlopen",
    "extract v --out o/p": "tal_lib.video.frames.Reader.__init__",
    "data prepare v --out o": "tal_lib.video.frames.Reader.__init__",
    "train bilstm --out o/p": "tal_lib.study.fit",
    "train bilstm --fusion late --out o": "tal_lib.study.fit",
    "report --results o --figures p": "tal_lib.reports.report.read_all",
    "sweep quick --results o/p --runs q": "tal_lib.sweeps.runner.check_runs",
}


@pytest.mark.parametrize("command", INTERRUPTED)
def test_an_interrupted_command_leaves_nothing(command, here, capsys, monkeypatch):
    monkeypatch.setattr(INTERRUPTED[command], ctrl_c)
    before = tree(here)
    assert main(command.split()) == 130
    assert "interrupted" in capsys.readouterr().err
    assert tree(here) == before


def test_folders_that_were_there_or_are_used_stay(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt), no_empty_folders():
        make_folder(tmp_path / "old")
        make_folder(tmp_path / "old" / "new" / "newer")
        make_folder(tmp_path / "used" / "empty")
        (tmp_path / "used" / "file").write_text("")
        raise KeyboardInterrupt
    assert tree(tmp_path) == ["old", "used", "used/file"]
    with pytest.raises(TalError), atomic_path(tmp_path / "a" / "b" / "c"):
        raise TalError("no")
    with pytest.raises(OSError):
        make_folder(tmp_path / "a" / "b" / ("x" * 300))
    assert tree(tmp_path) == ["old", "used", "used/file"]


@pytest.mark.parametrize("left", ["", "hapt", "hapt/.tal-part.zip"])
def test_an_empty_data_folder_does_not_hide_the_shared_one(left, tmp_path, monkeypatch):
    monkeypatch.delenv("TAL_DATA", raising=False)
    monkeypatch.setattr("tal_lib.files.REPOSITORY", tmp_path / "study")
    data, shared = tmp_path / "study" / "data", tmp_path / "shared" / "data"
    assert data_root() == data
    shared.mkdir(parents=True)
    data.mkdir(parents=True)
    if left.endswith(".zip"):  # of a killed download
        (data / "hapt").mkdir()
        (data / left).write_bytes(b"part")
    else:
        (data / left).mkdir(exist_ok=True)
    assert data_root() == shared
    (data / "hapt").mkdir(exist_ok=True)
    (data / "hapt" / "hapt.zip").write_bytes(b"")
    assert data_root() == data


def test_a_sweep_removes_its_lock_if_nothing_else_is_there(tmp_path):
    with runners._alone(tmp_path):
        with pytest.raises(TalError, match="another sweep"), runners._alone(tmp_path):
            pass
        assert tree(tmp_path) == [".lock"]
    assert not tree(tmp_path)
    with runners._alone(tmp_path):
        (tmp_path / "cell").mkdir()
    assert tree(tmp_path) == [".lock", "cell"]


def test_a_lock_that_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    path, flock = tmp_path / ".lock", runners.fcntl.flock

    def removed_before(*arguments):
        monkeypatch.setattr(runners.fcntl, "flock", flock)
        path.unlink()
        flock(*arguments)

    monkeypatch.setattr(runners.fcntl, "flock", removed_before)
    with runners._alone(tmp_path):
        with pytest.raises(TalError, match="another sweep"), runners._alone(tmp_path):
            pass


# --- empty values --------------------------------------------------------------------------------------


def _commands(parser, words=()):
    """Every command without subcommands: its words and its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for name, command in group.choices.items():
            yield from _commands(command, (*words, name))
    if words:
        yield words, parser


def test_an_empty_value_is_refused_for_every_argument(capsys, monkeypatch):
    """Also for numbers, choices, and for arguments that a command gets later on."""
    parser, count = cli._parser(), 0
    monkeypatch.setattr(cli, "_parser", lambda: parser)
    for words, command in _commands(parser):
        others = []  # values of the positional arguments before
        for action in command._actions:
            if action.nargs == 0 or isinstance(action, argparse._SubParsersAction):
                continue
            option = action.option_strings[-1:]
            name = option[0] if option else (action.metavar or action.dest)
            for value in ("", " "):
                with pytest.raises(SystemExit) as end:
                    main([*words, *option, value] if option else [*words, *others, value])
                _, err = capsys.readouterr()
                assert end.value.code == 2 and len(err.splitlines()) == 1, (words, err)
                assert f"{name}: the value is empty" in err, (words, err)
            others += [] if option else ["x"]
            count += 1
    assert count > 100


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["eval", "d.json", "a.json", "--only", "benchmark="], "--only"),
        (["sweep", "quick", "--only", "benchmark= "], "--only"),
        (["verify", "--only", "model="], "--only"),
        (["collect", "quick", "--only", "model="], "--only"),
        (["train", "bilstm", "--out", "o", "--set", "width="], "--set"),
        (["train", "bilstm", "--out", "o", "--fusion", "late", "--weights", "rgb=", "flow=1"], "--weights"),
    ],
)
def test_an_empty_value_of_a_name_is_refused(arguments, option, here, capsys):
    line = refused(capsys, *arguments)
    assert option in line and "is empty" in line
    assert not (here / "o").exists()


def test_an_empty_text_can_still_be_asked_for(capsys):
    assert main(["sweep", "quick", "--dry-run", "--only", "stream=''", "--only", "seed=0"]) == 0
    assert "02_train_evaluate" in capsys.readouterr().out


# --- links that lead to themselves, folders that are missing ---------------------------------------------

LOOPS = [
    "eval loop a.json",
    "eval d.json loop",
    "eval d.json a.json --taxonomy loop",
    "data list --root loop",
    "data check hapt --root loop/x",
    "data fetch hapt --root loop",
    "data subset synthetic --fraction 0.5 --out loop",
    "data import loop --out o",
    "data import v --annotations a.json --features loop --out o",
    "data export --as elan --annotations a.json --videos loop --out o",
    "data prepare v --out loop/x",
    "extract loop --out o",
    "extract v --out loop",
    "detect loop --model none --out o",
    "detect v/bad.mp4 --model loop --out o",
    "serve loop --model none",
    "train bilstm --teacher loop --out o",
    "export bilstm --checkpoint loop --out o",
    "report --runs loop --results o",
    "sweep quick --runs loop --results o",
    "sweep quick --results loop --runs o --dry-run",
    "sweep quick --cluster slurm:loop --runs o --results o",
    "verify loop",
    "site --out loop",
    "models --plugin loop",
]


@pytest.mark.parametrize("command", LOOPS)
def test_a_link_that_leads_to_itself(command, here, capsys):
    os.symlink("loop", here / "loop")
    before = tree(here)
    line = refused(capsys, *command.split())
    assert "loop: " in line or "loop/x: " in line, line
    assert "symbolic link that leads to itself. Remove the link" in line
    assert tree(here) == before


def test_links_inside_a_folder_are_problems_of_their_videos(here, capsys):
    os.symlink("loop.mp4", here / "v" / "loop.mp4")
    assert main("extract v --out o".split()) == 1
    assert "loop: v/loop.mp4: file not found" in capsys.readouterr().out
    line = refused(capsys, *"data import hand.eaf --videos v --out o".split())
    assert "v/" in line and not (here / "o").exists()


@pytest.mark.parametrize("action", ["import hand.eaf", "export --as via --annotations a.json"])
def test_the_folder_of_videos_must_be_there(action, here, capsys):
    for name, problem in (("none", "folder not found"), ("f", "is a file, not a folder")):
        line = refused(capsys, "data", *action.split(), "--videos", name, "--out", "o")
        assert line.startswith(f"tal: {name}: {problem}. ")
    assert not (here / "o").exists()


@pytest.mark.parametrize(
    "command", ["data list", "data check hapt", "data subset hapt --fraction 1", "train bilstm --out o"]
)
def test_a_data_folder_that_is_read_must_be_there(command, here, capsys):
    assert refused(capsys, *command.split(), "--root", "none").startswith("tal: none: folder not found.")


def test_a_report_of_nothing_names_the_option(here, capsys):
    line = refused(capsys, *"report --results r".split())
    assert "no finished cell" in line and "Name the --results folder of a sweep" in line
    assert not (here / "r").exists()


# --- results are printed only after all is checked -------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--recall"]])
def test_eval_checks_the_taxonomy_before_it_prints(more, here, capsys):
    for text, problem in (
        (None, "not found"),
        ("{", "not valid JSON"),
        ('{"levels": ["top"], "classes": {"b": ["all"]}}', "a"),
    ):
        path = here / "taxonomy.json"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        assert problem in refused(capsys, "eval", "d.json", "a.json", "--taxonomy", path, *more)


def test_detect_checks_its_output_before_it_works(here, capsys, monkeypatch):
    (here / "x.npy").write_bytes(b"")
    (here / "o").mkdir()
    (here / "o" / "detections.json").write_text("of somebody")
    monkeypatch.setattr("tal_lib.video.detect_features.detect_in_features", ctrl_c)
    monkeypatch.setattr("tal_lib.video.detect.ready", ctrl_c)
    line = refused(capsys, *"detect x.npy --model f --out o".split())
    assert "o/detections.json: was not written by this program" in line


# --- what --only leaves out is not asked of the machine --------------------------------------------------

TRAIN = "notebook: 02_train_evaluate.ipynb"


@pytest.fixture
def grid(here, monkeypatch, real_data):
    """A grid of benchmarks of which only `hapt` is installed; `plan(only)` gives the ids of its cells."""
    archive = real_data("hapt/hapt.zip")
    (here / "data" / "hapt").mkdir(parents=True)
    os.symlink(archive, here / "data" / "hapt" / "hapt.zip")
    monkeypatch.setenv("TAL_DATA", str(here / "data"))

    def plan(blocks, **only):
        (here / "g.yaml").write_text("cells:\n" + "".join(f"  - {block}\n" for block in blocks))
        return [cell.id for cell in sweeps.plan("g.yaml", only or None)]

    identity.about_data.cache_clear()
    yield plan
    identity.about_data.cache_clear()


def test_only_does_not_ask_for_the_data_of_the_others(grid, here):
    installed = f"{{{TRAIN}, grid: {{benchmark: [hapt_validation, synthetic], seed: [0, 1]}}}}"
    both = (
        f"{{{TRAIN}, grid: {{benchmark: [sfinge3d_validation, hapt_validation, /none/clips], seed: [0, 1]}}}}"
    )
    other = f"{{{TRAIN}, parameters: {{benchmark: thumos14, skip: 3, fold: 2, also: [urfall]}}}}"
    ids = grid([installed], benchmark="hapt_validation")
    assert len(ids) == 2 and grid([both, other], benchmark="hapt_validation") == ids
    assert grid([other, both], benchmark="hapt_validation", seed="1") == ids[1:]
    with pytest.raises(TalError, match="block 1: parameter benchmark: .*sfinge3d.zip: file not found"):
        grid([both, other])
    with pytest.raises(TalError, match="block 1: parameter benchmark: .*sfinge3d.zip: file not found"):
        grid([both, other], benchmark="sfinge3d_validation")


def test_only_does_not_ask_for_the_device_of_the_others(grid, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cost = "{notebook: 03_inference_cost.ipynb, grid: {device: [cuda, cpu]}}"
    assert len(grid([cost], device="cpu")) == 1
    for only in ({}, {"device": "cuda"}):
        with pytest.raises(TalError, match="parameter device: device cuda: there is no CUDA GPU here"):
            grid([cost], **only)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("benchmark: [hapt, nonesuch]", "parameter benchmark: no benchmark 'nonesuch'"),
        ("benchmark: [hapt, synthetic], seed: [0, -1]", "seed: -1 is not at least 0"),
        ("benchmark: [hapt], model: [tridet, tridett]", "unknown model.* 'tridett'"),
        ("benchmark: [hapt], device: [cpu]", "unknown parameter 'device'"),
        ("benchmark: [hapt], preset: [compact, huge]", "huge"),
    ],
)
def test_the_grid_is_checked_as_a_whole(values, problem, grid):
    blocks = [f"{{{TRAIN}, parameters: {{benchmark: synthetic}}}}", f"{{{TRAIN}, grid: {{{values}}}}}"]
    with pytest.raises(TalError, match=f"block 2.*{problem}"):
        grid(blocks, benchmark="synthetic", model="local_global", seed="0", preset="compact")


def test_an_unknown_name_of_only_is_told_first(grid):
    with pytest.raises(TalError, match="--only: unknown parameter 'benchmrk'.*Did you mean benchmark"):
        grid([f"{{{TRAIN}, parameters: {{benchmark: sfinge3d}}}}"], benchmrk="hapt")


def test_no_cell_is_no_success(here, capsys):
    for more in (["--dry-run"], []):
        line = refused(capsys, "sweep", "quick", "--only", "seed=99", "--results", "o", "--runs", "p", *more)
        assert "no cell with these values" in line
    assert not (here / "o").exists() and not (here / "p").exists()


def test_a_sweep_runs_although_another_benchmark_is_missing(grid, here, capsys):
    """To its end: the whole grid is also asked for the detections that are kept."""
    (here / "g.yaml").write_text(
        f"detections: 5\ncells:\n  - {{{TRAIN}, grid: {{benchmark: [sfinge3d, synthetic]}}}}\n"
    )
    command = "sweep g.yaml --only benchmark=synthetic --dry-run --results o --runs p"
    assert main(command.split()) == 0
    assert "1 cells, 1 to do" in capsys.readouterr().out
    assert not (here / "o").exists() and not (here / "p").exists()


# --- careless values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("data render --out o --train 0 --test 0", "no video to render"),
        ("data render --out o --train 1 --test 0 --seconds 0.01", "0.01 s are shorter than a frame"),
        ("data prepare f --out o", "f: is a file, not a folder"),
        ("detect x.npy --model f --out o", "no checkpoint of PyTorch, damaged, or with code in it"),
        ("released tridet none --benchmark synthetic --out o", "none: file not found. Check the path"),
        ("sweep quick --cluster slurm: --results o --runs p", "Check the path"),
    ],
)
def test_a_careless_request_is_one_line(command, problem, here, capsys):
    before = tree(here)
    line = refused(capsys, *command.split())
    assert problem in line and "weights_only" not in line and len(line) < 300
    assert tree(here) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("sweep quick --memory-limit 1e-12", "--memory-limit: '1e-12' is not at least 0.001"),
        ("versions stamp --sample 0", "--sample: '0' is not at least 1"),
        ("versions stamp --seed -1", "--seed: '-1' is not at least 0"),
        ("versions stamp --longest nan", "--longest: 'nan' is not a finite number"),
    ],
)
def test_a_number_out_of_bounds(arguments, problem, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2 and problem in capsys.readouterr().err


def test_nothing_is_stamped_if_no_code_changed(capsys, monkeypatch):
    monkeypatch.setattr(declare, "undeclared", lambda *_: {})
    monkeypatch.setattr(Versions, "write", ctrl_c)
    assert main(["versions", "stamp"]) == 0
    assert capsys.readouterr().out == "no area has changed code\n"


@pytest.mark.parametrize("name", ["ünï côdé", "視頻 🎬", "a'b;$(c)", "-x"])
def test_a_folder_of_any_name_is_a_benchmark(name, here, capsys):
    folder = here / name
    (folder / "features").mkdir(parents=True)
    (folder / "annotations.json").write_text((here / "a.json").read_text())
    np.save(folder / "features" / "x.npy", np.ones((10, 3), np.float32))
    spec = {"stride_s": 1, "window_s": 1, "streams": {"one": 3}}
    (folder / "features" / "spec.json").write_text(json.dumps(spec))
    assert main(["data", "check", f"./{name}"]) == 0
    assert "1 recordings, 0 without features, 0 broken" in capsys.readouterr().out
