import json
import re
import subprocess
import sys
from copy import copy
from dataclasses import replace
from functools import partial

import pytest

from tal_lib import __version__, training
from tal_lib.cli import main
from tal_lib.cost import DoesNotFit, profile
from tal_lib.data import limited_subset, partly_annotated, write_annotations
from tal_lib.evaluation import write_detections
from tal_lib.files import REPOSITORY
from tal_lib.process.quiet import check_quiet


def test_help_ends_with_code_zero(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--help"])
    assert left.value.code == 0 and "usage: tal train" in capsys.readouterr().out


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "tal_lib", "--version"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"tal {__version__}" and done.returncode == 0


def test_bad_arguments_are_two(capsys):
    for arguments in (["sweep"], ["nonesuch"], []):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
    assert main(["cost", "nonesuch", "--length", "5", "--dim", "3"]) == 2
    assert main(["data", "check", "nonesuch"]) == 2
    assert main(["train", "bilstm", "--set", "epochs", "--out", "x"]) == 2
    assert "Choose from" in capsys.readouterr().err


TRAIN = ("train", "bilstm", "--out", "out")
COST = ("cost", "bilstm", "--length", "8", "--dim", "4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "--set", "batch_size=four"), "--set: batch_size: 'four' is not a whole number"),
        (
            (*TRAIN, "--set", "shrink=0.5"),
            "--set: shrink: 0.5 is not a list of values. The default is [0.9, 1.0]",
        ),
        ((*TRAIN, "--set", "epochs=2.5"), "--set: epochs: 2.5 is not a whole number"),
        ((*TRAIN, "--set", "epochs=true"), "--set: epochs: True is not a number"),
        ((*TRAIN, "--set", f"epochs={'9' * 400}"), "an integer of 400 digits"),
        ((*TRAIN, "--set", "learning_rate=-1e-3"), "--set: learning_rate: -0.001 is not above 0"),
        ((*TRAIN, "--set", "width=0"), "--set: bilstm: width: 0 is not at least 1"),
        ((*TRAIN, "--set", "wdth=8"), "Did you mean width?"),
        ((*TRAIN, "--set", "=8"), "'=8' is not KEY=VALUE"),
        ((*TRAIN, "--set", "width=[8"), "width: not valid YAML"),
        ((*TRAIN, "--proposals", "bmn"), "unknown option 'generator'"),
        ((*TRAIN, "--preset", "papr"), "unknown preset 'papr'"),
        ((*TRAIN, "--fraction", "nan"), "argument --fraction: 'nan' is not a finite number"),
        ((*TRAIN, "--fraction", "0"), "argument --fraction: '0' is not above 0"),
        ((*TRAIN, "--people", "0"), "argument --people: '0' is not above 0"),
        ((*TRAIN, "--annotated", "1.5"), "argument --annotated: '1.5' is not at most 1"),
        ((*TRAIN, "--seed", "-1"), "argument --seed: '-1' is not at least 0"),
        ((*TRAIN, "--seed", "9" * 30), "argument --seed: '999"),
        ((*TRAIN, "--device", "gpu"), "--device: unknown device 'gpu'"),
        ((*TRAIN, "--device", "cuda"), "--device: device cuda: there is no CUDA GPU here"),
        ((*TRAIN, "--device", "cuda:0"), "--device: device cuda:0: there is no CUDA GPU here"),
        ((*COST, "--device", "tpu"), "unknown device 'tpu'"),
        ((*COST, "--device", "cuda"), "there is no CUDA GPU here"),
        ((*COST, "--set", "epochs=3"), "--set: epochs is an option of the training recipe"),
        ((*COST, "--set", "context=-1"), "context: -1 is not at least 0"),
        ((*COST, "--threads", "0"), "argument --threads: '0' is not at least 1"),
        ((*COST, "--precision", "float16"), "unknown precision 'float16'"),
        (("cost", "bilstm", "--length", "8", "0", "--dim", "4"), "argument --length: '0' is not at least 1"),
        (("cost", "bilstm", "--length", "8", "--dim", "-3"), "argument --dim: '-3' is not at least 1"),
        (("cost", "bilstm", "--length", "1e99", "--dim", "4"), "argument --length: '1e99'"),
        (("sweep", "quick", "--jobs", "0"), "argument --jobs: '0' is not at least 1"),
        (("sweep", "quick", "--threads", "two"), "argument --threads: 'two' is not a whole number"),
        (("sweep", "quick", "--time-limit", "0"), "argument --time-limit: '0' is not above 0"),
        (
            ("sweep", "quick", "--memory-limit", "inf"),
            "argument --memory-limit: 'inf' is not a finite number",
        ),
        (("sweep", "quick", "--only", "seed"), "--only takes KEY=VALUE"),
        (("sweep", "nonesuch"), "'nonesuch': grid file not found"),
        (("verify", "--sample", "0"), "argument --sample: '0' is not at least 1"),
        (("verify", "--tolerance", "-1"), "argument --tolerance: '-1' is not at least 0"),
        (("data", "subset", "synthetic", "--fraction", "2"), "argument --fraction: '2' is not at most 1"),
        (("extract", "v.mp4", "--out", "out", "--fps", "0"), "argument --fps: '0' is not above 0"),
        (
            ("serve", "0", "--model", "m.pt", "--port", "99999"),
            "argument --port: '99999' is not at most 65535",
        ),
        (("data", "prepare", "x", "--out", "out", "--count", "0"), "argument --count: '0' is not at least 1"),
    ],
)
def test_a_bad_argument_is_one_line_before_any_work(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("tal_lib.data.load_benchmark", None)  # nothing is loaded
    try:
        code = main(list(arguments))
    except SystemExit as left:
        code = left.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith("tal: ") and message in line
    assert not list(tmp_path.iterdir())


def test_the_device_of_the_environment_is_checked_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAL_DEVICE", "tpu")
    assert main(list(TRAIN)) == 2 and "TAL_DEVICE: unknown device 'tpu'" in capsys.readouterr().err


def test_numbers_as_people_write_them_train(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    values = ("learning_rate=1e-3", "weight_decay=5e-2", "min_score=1e-3", "epochs=1", "min_steps=2")
    sets = [part for value in values for part in ("--set", value)]
    assert main(["train", "window_cnn", *sets, "--out", str(tmp_path)]) == 0
    from tal_lib.training import load_model

    assert load_model(tmp_path / "model.pt").model.config.post.min_score == 0.001


def test_data(capsys, tmp_path):
    assert main(["data", "list"]) == 0 and "synthetic" in capsys.readouterr().out
    assert (
        main(["data", "check", "synthetic"]) == 0
        and "60 recordings, 0 without features, 0 broken" in capsys.readouterr().out
    )
    assert (
        main(["data", "subset", "synthetic", "--fraction", "0.2", "--seed", "5", "--out", str(tmp_path)]) == 0
    )
    assert json.loads((tmp_path / "synthetic_20p5.json").read_text())["database"]
    assert main(["data", "fetch", "thumos14"]) == 2


def test_train_and_eval_agree(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    assert (
        main(
            [
                "train",
                "window_cnn",
                "--set",
                "epochs=2",
                "--set",
                "min_steps=4",
                "--set",
                "stride=1",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    trained = capsys.readouterr().out
    import pandas as pd

    table = pd.DataFrame(
        {
            "recording": small.recordings("test"),
            "split": "test",
            "duration": [small.duration(r) for r in small.recordings("test")],
        }
    )
    write_annotations(tmp_path / "truth.json", table, small.annotations("test"))
    assert main(["eval", str(tmp_path / "detections.json"), str(tmp_path / "truth.json")]) == 0
    scored = capsys.readouterr().out
    assert re.match(r"synthetic, the official split: trained on \d+ recordings, tested on \d+\n", trained)
    assert trained.splitlines()[1:4] == scored.splitlines()[1:4]  # the same figures, from files alone


def test_train_on_a_part_of_the_annotation(small, tmp_path, capsys, monkeypatch):
    seen = {}

    def fit(model, benchmark, recordings, *arguments, **options):
        seen["segments"], seen["recordings"] = len(benchmark.annotations_of(recordings)), recordings
        return training.fit(model, benchmark, recordings, *arguments, **options)

    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    monkeypatch.setattr("tal_lib.study.fit", fit)
    monkeypatch.setattr(small, "_people", {name: name[-1] for name in small.recordings()})
    short = ["--set", "epochs=1", "--set", "min_steps=2", "--seed", "3", "--out", str(tmp_path)]
    assert main(["train", "window_cnn", "--people", "0.5", "--annotated", "0.5", *short]) == 0
    chosen = limited_subset(small, 1.0, 3, people=0.5)
    part = partly_annotated(small, chosen, 0.5, 3)
    assert seen == {"segments": len(part.annotations_of(chosen)), "recordings": chosen}
    assert seen["segments"] < len(small.annotations_of(chosen)) and len(chosen) == 4


def test_train_with_two_streams_or_a_teacher(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    short = ["--set", "epochs=1", "--set", "min_steps=2"]
    late = ["train", "bilstm", "--fusion", "late", *short, "--out", str(tmp_path / "late")]
    assert main([*late, "--weights", "rgb=1"]) == 2 and main([*late, "--weights", "rgb=x", "flow=1"]) == 2
    assert main([*late, "--stream", "rgb"]) == 2 and main([*late, "--weights", "rgb=3", "flow=1"]) == 0
    assert (tmp_path / "late" / "flow" / "model.pt").is_file() and (
        tmp_path / "late" / "detections.json"
    ).is_file()
    assert "rgb=1.0" not in (errors := capsys.readouterr().err) and "weights {'rgb': 1}" in errors
    assert main(["train", "afsd", *short, "--out", str(tmp_path / "afsd")]) == 0
    teacher = ["--teacher", str(tmp_path / "afsd" / "model.pt")]
    assert (
        main(
            [
                "train",
                "gaf",
                "--set",
                "width=32",
                "--set",
                "head_width=32",
                *short,
                *teacher,
                "--out",
                str(tmp_path / "gaf"),
            ]
        )
        == 0
    )
    assert "score" in (tmp_path / "gaf" / "history.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("name", ["i3d.rgb", "train", "keys"])
def test_late_fusion_refuses_a_name_that_it_cannot_hold(name, small, tmp_path, capsys, monkeypatch):
    """Before a model is trained; early fusion takes any name."""
    data = copy(small)
    streams = dict(zip((name, "flow"), small.feature_spec.streams.values(), strict=True))
    data.feature_spec = replace(small.feature_spec, streams=streams)
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: data)
    short = ["--set", "epochs=1", "--set", "min_steps=2", "--out", str(tmp_path / "o")]
    command = ["train", "window_cnn", *short]
    assert main([*command, "--fusion", "late"]) == 2 and not (tmp_path / "o").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"late cannot hold a stream that is called {name}. Rename the stream" in line
    assert main(command) == 0


def test_eval_of_proposals_with_class_scores(tmp_path, capsys):
    import json

    import pandas as pd

    table = pd.DataFrame({"recording": ["r", "s"], "split": "test", "duration": 9.0})
    truth = pd.DataFrame(
        {"recording": ["r", "s"], "start": [1.0, 3.0], "end": [2.0, 8.0], "label": ["x", "y"]}
    )
    write_annotations(tmp_path / "t.json", table, truth)
    write_detections(tmp_path / "p.json", truth.assign(score=[0.9, 0.8], label="proposal"))
    (tmp_path / "c.json").write_text(json.dumps({"r": {"x": 0.9, "y": 0.1}, "s": {"x": 0.2, "y": 0.8}}))
    assert (
        main(
            [
                "eval",
                str(tmp_path / "p.json"),
                str(tmp_path / "t.json"),
                "--class-scores",
                str(tmp_path / "c.json"),
                "--recall",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "AR@1 100.00" in out and "4 detections" in out and "avg" in out and "100.0" in out.splitlines()[-1]


def test_eval_refuses_other_recordings(small, tmp_path, capsys):
    import pandas as pd

    table = pd.DataFrame({"recording": ["r"], "split": "test", "duration": [9.0]})
    truth = pd.DataFrame({"recording": ["r"], "start": [1.0], "end": [2.0], "label": ["x"]})
    write_annotations(tmp_path / "t.json", table, truth)
    write_detections(tmp_path / "d.json", truth.assign(recording="other", score=1.0))
    assert main(["eval", str(tmp_path / "d.json"), str(tmp_path / "t.json")]) == 2
    assert "recording other is not in the annotations" in capsys.readouterr().err


def test_cost_prints_a_table(capsys, monkeypatch, in_this_process):
    in_this_process(sys.modules[profile.__module__])
    monkeypatch.setattr("tal_lib.cost.profile", partial(profile, min_seconds=0.02))
    assert (
        main(
            ["cost", "window_cnn", "--length", "64", "128", "--dim", "8", "--classes", "3", "--threads", "1"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "GMACs" in out and "none" in out and len(out.strip().splitlines()) == 4


@pytest.mark.parametrize("busy", [True, False])
def test_cost_notes_a_busy_machine(capsys, monkeypatch, in_this_process, busy):
    in_this_process(sys.modules[profile.__module__])
    monkeypatch.setattr("tal_lib.cost.profile", partial(profile, min_seconds=0.02))
    load = partial(check_quiet, load=2.0 if busy else 0.0, cores=2)
    monkeypatch.setattr("tal_lib.process.quiet.check_quiet", load)
    assert main(["cost", "window_cnn", "--length", "64", "--dim", "8", "--threads", "1"]) == 0
    note = "note: this machine is busy (load average 2.0 on 2 cores, at most 0.5)"
    assert (note in capsys.readouterr().err) == busy


def test_a_length_that_does_not_fit_loses_no_other(capsys, monkeypatch, in_this_process):
    in_this_process(sys.modules[profile.__module__])
    asked = []

    def fits_up_to_64(model, dim, length, *given, **options):
        asked.append(length)
        if length > 64:
            raise DoesNotFit(f"{model} at {length} steps does not fit into memory")
        return profile(model, dim, length, *given, min_seconds=0.02, **options)

    monkeypatch.setattr("tal_lib.cost.profile", fits_up_to_64)
    given = ["--dim", "8", "--classes", "3", "--threads", "1"]
    assert main(["cost", "window_cnn", "--length", "128", "64", "256", *given]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].split()[0] == "64"
    assert "window_cnn does not fit into memory at 128, 256 steps" in printed.err and asked == [128, 64]
    assert main(["cost", "window_cnn", "--length", "128", *given]) == 2
    assert capsys.readouterr().out == ""
