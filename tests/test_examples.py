"""The plug-ins of docs/adding-a-model.md and docs/adding-a-dataset.md, used from outside the repository."""

import os
import subprocess
import sys

import pytest

from tal_lib.cli import main
from tal_lib.files import REPOSITORY


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / "tal_lib" / "plugins.py").is_file(), reason="needs tal_lib/plugins.py")
def test_a_model_and_a_benchmark_from_files_work_together(tmp_path):
    plugins = [part for name in ("my_detector", "my_benchmark") for part in ("--plugin", f"{name}.py")]
    for name in plugins[1::2]:
        (tmp_path / name).write_text((REPOSITORY / "examples" / name).read_text())

    def tal(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tal_lib", *arguments, *plugins],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )

    done = tal("train", "center_offsets", "--benchmark", "counting", "--out", "out")
    assert done.returncode == 0, done.stderr
    score = float(done.stdout.split("avg mAP")[1].split()[0])
    assert score > 60, "the classes differ in their columns: a trained detector finds them"
    unknown = tal("train", "center_offset", "--benchmark", "counting", "--out", "out2")
    assert unknown.returncode == 2 and "center_offsets" in unknown.stderr


def test_a_trained_model_detects_the_walk(tmp_path, capsys):
    """It was annotated as walking, and down and up stairs, from 8.7, 37.1, 74.1, 92.6 and 113.0 s."""
    files = ["examples/walk/walk.npy", "--model", "hapt/temporalmaxer"]
    assert main(["detect", str(REPOSITORY / files[0]), *files[1:], "--out", str(tmp_path / "out")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("walk ")]
    labels = ["walking", "walking", "walking_downstairs", "walking_upstairs", "walking_downstairs"]
    assert [row[3] for row in rows] == labels
    assert [float(row[1]) for row in rows] == pytest.approx([8.7, 37.1, 74.1, 92.6, 113.0], abs=2)
