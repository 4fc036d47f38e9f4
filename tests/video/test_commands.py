"""The commands as users type them."""

import json
import os
import re
import signal
import subprocess
import sys
import types
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import torch

from tal_lib import models
from tal_lib.cli import main
from tal_lib.cli.cost import _about_windows, _ended_early
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.files import REPOSITORY
from tal_lib.training import Trained, save_model
from tal_lib.video import Reader
from tal_lib.video.rendered import render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A rendered video and a model, untrained, that finds something in it."""
    folder = render(tmp_path_factory.mktemp("commands"), train=0, test=1, seconds=8.0, progress=False)
    torch.manual_seed(0)
    model = models.build(
        "temporalmaxer", input_dim=549, num_classes=2, width=16, head_width=16, ranges=((0, 4), (4, 10_000))
    ).eval()
    torch.nn.init.constant_(model.class_out.bias, 0.0)
    spec = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"hog": 432, "hof": 117})
    save_model(folder / "model.pt", Trained(model, ("one", "other"), spec, None))
    return folder


def test_extract(folder, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    asked = [
        "extract",
        str(folder / "videos" / "test_000.mp4"),
        str(tmp_path / "bad.mp4"),
        "--out",
        str(tmp_path / "features"),
    ]
    assert main(asked) == 1
    out = capsys.readouterr().out
    assert "bad: " in out and "cannot be opened" in out and "2 videos: 1 new, 0 were there, 1 failed" in out
    assert main([*asked[:2], *asked[3:]]) == 0 and "0 new, 1 were there, 0 failed" in capsys.readouterr().out
    assert main(["extract", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "f")]) == 1
    assert main(["extract", str(tmp_path), "--backbone", "vgg", "--out", str(tmp_path / "f")]) == 2


def test_detect(folder, tmp_path, capsys):
    video = folder / "videos" / "test_000.mp4"
    assert (
        main(
            [
                "detect",
                str(video),
                "--model",
                str(folder / "model.pt"),
                "--out",
                str(tmp_path),
                "--draw",
                "--threshold",
                "0.1",
            ]
        )
        == 0
    )
    out, error = capsys.readouterr()
    assumed = [line for line in error.splitlines() if "tal: " in line]
    assert len(assumed) == 1 and "tal: 16 frames per step are assumed" in assumed[0]
    assert all(str(tmp_path / f"test_000.{suffix}") in out for suffix in ("json", "csv", "png", "mp4"))
    table = pd.read_csv(tmp_path / "test_000.csv")
    assert set(table.label) <= {"one", "other"} and len(table) and table.end.max() <= 8.01
    assert json.loads((tmp_path / "test_000.json").read_text())["results"]["test_000"][0]["segment"][1] > 0
    reader = Reader(tmp_path / "test_000.mp4", 16)
    assert (
        reader.duration == pytest.approx(8, abs=0.2) and next(iter(reader)).shape[0] > 360
    )  # the band below the picture
    assert main(["detect", str(tmp_path / "none.mp4"), "--model", str(folder / "model.pt")]) == 2
    assert "none.mp4" in capsys.readouterr().err
    stated = ["detect", str(tmp_path / "none.mp4"), "--model", str(folder / "model.pt"), "--window", "16"]
    assert main(stated) == 2 and len(capsys.readouterr().err.splitlines()) == 1  # no other line
    assert main(["detect", str(video), "--model", str(tmp_path / "none.pt")]) == 2


def test_cost_says_which_models_see_the_whole_recording_in_detect():
    row = lambda model, same, steps: types.SimpleNamespace(
        model=model, same_as_whole=same, steps=steps, window=2304
    )
    assert _about_windows([row("bilstm", True, 9000), row("tridet", False, 2304)]) == ""
    said_of = _about_windows([row("bilstm", True, 9000), row("tridet", False, 9000)])
    assert said_of.endswith("`tal detect` gives the whole recording to tridet.")


def test_cost_of_a_checkpoint_and_of_a_video_that_ends_early(folder, capsys):
    video, model = (str(folder / name) for name in ("videos/test_000.mp4", "model.pt"))
    assert main(["cost", "--video", video, "--model", model, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "temporalmaxer" in out and "hog-hof" in out and "can be read" not in out
    assert "one every 0.5 s, 16 described frames/s" in out
    assert "the whole recording" not in out
    assert main(["cost", "--video", video, "--model", model, "--frames-per-step", "8", "--threads", "1"]) == 0
    assert "one every 0.5 s, 8 described frames/s" in capsys.readouterr().out
    assert main(["cost", "--video", video, "--model", model, "--frames-per-step", "5", "--threads", "1"]) == 2
    assert "give no step every 0.5 s. Give another number, such as 4." in capsys.readouterr().err
    assert main(["cost", "--video", video, "--model", "bilstm", "--frames-per-step", "16"]) == 2
    assert "no model is trained" in capsys.readouterr().err
    assert _ended_early(video, 8.0) == ""
    assert "only 2.0 of 8.0 s can be read" in _ended_early(video, 2.0)


def test_serve(folder):
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tal_lib",
            "serve",
            str(folder / "videos" / "test_000.mp4"),
            "--model",
            str(folder / "model.pt"),
            "--port",
            "0",
        ],
        cwd=REPOSITORY,
        env=os.environ | {"TAL_TOKEN": "secret"},
        stdout=subprocess.PIPE,
        text=True,  # a background job's children ignore Ctrl-C, unless they are told not to
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = server.stdout.readline()
        where = re.search(r"http://127.0.0.1:\d+/", line).group()
        assert "?token=secret" in line
        assert b"secret" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()  # what `ps` shows
        assert json.load(urllib.request.urlopen(f"{where}healthz"))["status"] == "ok"
        numbers = json.load(urllib.request.urlopen(f"{where}analytics?token=secret"))
        assert numbers["classes"] == ["one", "other"]
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_serve_refuses_nonsense(folder, tmp_path, capsys):
    model = str(folder / "model.pt")
    assert (
        main(["serve", str(tmp_path / "none.mp4"), "--model", model]) == 2
        and "file not found" in capsys.readouterr().err
    )
    assert (
        main(["serve", str(folder / "videos" / "test_000.mp4"), "--model", model, "--host", "0.0.0.0"]) == 2
    )
    assert "token" in capsys.readouterr().err


def test_prepare_and_render(folder, tmp_path, capsys):
    assert (
        main(["data", "prepare", str(folder / "videos"), "--out", str(tmp_path / "few"), "--count", "1"]) == 0
    )
    assert "1 files: 1 new" in capsys.readouterr().out and (tmp_path / "few" / "test_000.mp4").is_file()
    assert (
        main(
            ["data", "render", "--out", str(tmp_path / "r"), "--train", "1", "--test", "0", "--seconds", "4"]
        )
        == 0
    )
    assert (tmp_path / "r" / "videos" / "train_000.mp4").is_file()
