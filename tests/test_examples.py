"""The plug-ins of docs/adding-a-model.md and docs/adding-a-dataset.md, used from outside the repository."""

import os
import subprocess
import sys

import pytest

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
