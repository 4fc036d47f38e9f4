"""Speed of `hog-hof` compared with its former version, which described one picture at a time.

    python experiments/hog_hof.py [--seconds 60] [--repeats 15]

Both describe the same pictures of a rendered video (480p, 16 per second), after decoding, in turn, in the
batches of an extraction. A row is a height of the pictures: 480, whole ones; 192, as the reader of an
extraction scales them; 48, the gray ones that are described. Both versions scale to the last. The process
keeps the memory that it frees, as the commands of `tal` do: otherwise the threads wait for each other. The
former version is the one that the tests compare every bit with (`tests/video/test_same_hog_hof.py`). Prints
the least seconds of each and their ratio (other programs and other virtual machines only add time), and
writes results/experiments/hog_hof.csv; rows of other machines stay. Needs an idle machine.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib.files import write_text
from tal_lib.process.memory import keep_freed
from tal_lib.provenance import device_name, git_commit, usable_cores
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import read_csv
from tal_lib.video import Reader, backbone, long_videos
from tal_lib.video.end_to_end import SAMPLINGS
from tal_lib.video.extract import BATCH
from tests.video.test_same_hog_hof import slow


def timed(call):
    """(seconds, result) of a call."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def main():
    """Measure, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of video")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each version")
    chosen = parser.parse_args()
    model = backbone("hog-hof")
    video = long_videos.video_of(chosen.seconds, 480, 0)
    rate = SAMPLINGS["hog-hof"].rate
    whole, scaled = (np.stack(list(Reader(video, rate, size))) for size in (None, model.size))
    gray = np.stack([model.prepare(picture) for picture in scaled])
    keep_freed()
    rows = [measured(model, pictures, chosen.repeats) for pictures in (whole, scaled, gray)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    table = table.assign(device_name=device_name(), git_commit=git_commit())
    path = Layout().experiments / "hog_hof.csv"
    others = read_csv(path)
    others = others[others.device_name != device_name()] if len(others) else others
    write_text(path, pd.concat([others, table]).to_csv(index=False))
    print(path)


def in_batches(describe, pictures):
    """Descriptions of all pictures, in the batches of an extraction."""
    parts, before = [], None
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        parts.append(describe(batch, before))
        before = batch[-1]
    return np.concatenate(parts)


def measured(model, pictures, repeats):
    """The row of these pictures."""
    rows = []
    for _ in range(repeats):
        former_s, former = timed(lambda: in_batches(slow, pictures))
        now_s, now = timed(lambda: in_batches(model.describe, pictures))
        rows.append((former_s, now_s, float(np.abs(former - now).max())))
    former_s, now_s = (min(column) for column in list(zip(*rows))[:2])
    return {
        "pictures": len(pictures),
        "height": pictures.shape[1],
        "former_s": former_s,
        "now_s": now_s,
        "times_as_fast": former_s / now_s,
        "largest_difference": max(row[2] for row in rows),
        "repeats": repeats,
        "threads_used": usable_cores(),
    }


if __name__ == "__main__":
    main()
