"""Speed from a video file to the features of `hog-hof`, compared with the code of a former commit.

    python experiments/former_extraction.py [--former 4cc3672e] [--seconds 60] [--repeats 5]

The former code comes from the history of this repository (a shallow clone does not have it). Present and
former code read the same rendered videos (480p and 1080p) in turn, each in a process of its own, which keeps
the memory that it frees, as the commands of `tal` do. The former commands did not, so this favours the
former code. The first extraction of a process does not count. Prints the median seconds of each, their
ratio, and the largest difference of a feature, and writes results/experiments/former_extraction.csv; rows of
other machines, commits and lengths stay. Needs an idle machine.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tal_lib.files import write_text
from tal_lib.provenance import device_name, git_commit, usable_cores
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import read_csv
from tal_lib.video import long_videos

MEMORY = ROOT / "tal_lib/process/memory.py"
FORMER = "4cc3672e"  # before decoding and features overlapped
EXTRACTION = """
import runpy, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
from tal_lib.video import backbone
from tal_lib.video.extract import Sampling, features_of
assert sys.modules["tal_lib"].__path__[0].startswith(sys.argv[1])
runpy.run_path(sys.argv[2])["keep_freed"]()  # of the present code: the former had none
for _ in range(2):
    began = time.perf_counter()
    features, _ = features_of(sys.argv[3], backbone("hog-hof"), Sampling())
    seconds = time.perf_counter() - began
np.save(sys.argv[4], features)
print(seconds)
"""


def main():
    """Measure, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--former", default=FORMER, help="commit")
    parser.add_argument("--seconds", type=float, default=60.0, help="of video")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each code")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        former = former_code(chosen.former, Path(folder) / "former")
        rows = [
            measured(former, long_videos.video_of(chosen.seconds, height, 0), chosen.repeats, Path(folder))
            | {"height": height, "video_s": chosen.seconds}
            for height in (480, 1080)
        ]
    table = pd.DataFrame(rows).assign(
        former_commit=chosen.former,
        threads_used=usable_cores(),
        device_name=device_name(),
        git_commit=git_commit(),
    )
    print(table.to_string(index=False))
    path = Layout().experiments / "former_extraction.csv"
    others = read_csv(path)
    same = ["device_name", "former_commit", "video_s"]
    others = others[(others[same] != table[same].iloc[0]).any(axis=1)] if len(others) else others
    write_text(path, pd.concat([others, table]).to_csv(index=False))
    print(path)


def former_code(commit, folder):
    """The library of a commit, in a folder."""
    archive = subprocess.run(["git", "archive", commit, "tal_lib"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def measured(former, video, repeats, folder):
    """The row of a video."""
    times = {former: [], ROOT: []}
    for turn in range(repeats):
        for code, seconds in list(times.items())[:: 1 if turn % 2 == 0 else -1]:
            command = [sys.executable, "-c", EXTRACTION, code, MEMORY, video, features_file(folder, code)]
            output = subprocess.run(
                list(map(str, command)), check=True, capture_output=True, text=True
            ).stdout
            seconds.append(float(output))
    before, now = (np.load(features_file(folder, code)) for code in times)
    former_s, now_s = (float(np.median(seconds)) for seconds in times.values())
    return {
        "former_s": former_s,
        "now_s": now_s,
        "times_as_fast": former_s / now_s,
        "largest_difference": float(np.abs(before - now).max()),
        "repeats": repeats,
    }


def features_file(folder, code):
    """Where the features of a code are kept for the comparison."""
    return folder / f"{code.name}.npy"


if __name__ == "__main__":
    main()
