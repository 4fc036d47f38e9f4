import json
import subprocess
import sys

import pytest

from tal_lib import __version__
from tal_lib.cli import main
from tal_lib.data import write_annotations
from tal_lib.evaluation import write_detections
from tal_lib.files import REPOSITORY


def test_every_command_explains_itself(capsys):
    for arguments in (
        [],
        ["data"],
        ["data", "list"],
        ["data", "fetch"],
        ["data", "check"],
        ["data", "subset"],
        ["sweep"],
        ["report"],
        ["cost"],
        ["train"],
        ["eval"],
    ):
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--help"])
        assert left.value.code == 0 and "usage: tal" in capsys.readouterr().out


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
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None: small)
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
    assert trained.splitlines()[:3] == scored.splitlines()[1:4]  # the same figures, from files alone


def test_train_with_two_streams_or_a_teacher(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None: small)
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


def test_cost_prints_a_table(capsys):
    assert (
        main(
            ["cost", "window_cnn", "--length", "64", "128", "--dim", "8", "--classes", "3", "--threads", "1"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "GMACs" in out and "none" in out and len(out.strip().splitlines()) == 4
