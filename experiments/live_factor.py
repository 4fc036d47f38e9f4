"""The real-time factor of the live demo: on its page, and in the notebook `10_end_to_end`.

    python experiments/live_factor.py [--seconds 60] [--height 480] [--models local_global window_cnn]

A rendered video plays once through `Stream`, which serves the page, at the pace of the video. Then the same
pictures go through the same parts without waiting, as in the notebook. Both count the seconds of decoding,
features and localization per second of video, without drawing. The models have random weights. Writes
results/experiments/live_factor.csv. Needs a machine that does nothing else.
"""

import argparse
import time

import pandas as pd
import torch

from tal_lib import models
from tal_lib.files import write_text
from tal_lib.provenance import device_name, git_commit
from tal_lib.reports.layout import Layout
from tal_lib.video import end_to_end, long_videos
from tal_lib.video.stream import WORK, Stream

BACKBONE = "hog-hof"
CLASSES = 20


def served(video: str, spec: dict, threads: int) -> dict:
    """`served_factor` and `dropped` frames of the page after the video has played once; seconds of parts."""
    torch.set_num_threads(threads)
    stream = Stream(video, end_to_end.live_detector(spec, BACKBONE), loop=False).start()
    while stream.source.state not in ("ended", "lost"):
        time.sleep(0.1)
    time.sleep(1)  # the model may still work on the last pictures
    stream.stop()
    shown = stream.analytics()
    parts = {f"served_{part}_s": stream.parts.total([part]) for part in WORK}
    return {"served_factor": shown["real_time_factor"], "dropped": shown["dropped_frames"]} | parts


def main():
    """Print both factors of every model and how far they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of video")
    parser.add_argument("--height", type=int, default=480, help="of its pictures")
    parser.add_argument("--models", nargs="+", default=["local_global", "window_cnn"], choices=models.names())
    chosen = parser.parse_args()
    video, rows = long_videos.video_of(chosen.seconds, chosen.height, 0), []
    for name in chosen.models:
        row = end_to_end.live(video, BACKBONE, name, num_classes=CLASSES, seconds=chosen.seconds)
        spec = {"name": name, "preset": "compact", "num_classes": CLASSES, "overrides": {}}
        spec |= {"input_dim": sum(end_to_end.backbone(BACKBONE).streams.values())}
        rows.append(row | served(str(video), spec, row["threads"]))
    table = pd.DataFrame(rows).rename(columns={"threads": "threads_used"})
    table["difference"] = table.served_factor / table.real_time_factor - 1
    print(
        table[["model", "real_time_factor", "served_factor", "dropped", "difference"]].to_string(index=False)
    )
    path = Layout().experiments / "live_factor.csv"
    write_text(path, table.assign(device_name=device_name(), git_commit=git_commit()).to_csv(index=False))
    print(path)


if __name__ == "__main__":
    main()
