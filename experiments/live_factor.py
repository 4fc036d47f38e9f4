"""The real-time factor of the live demo: on its page, and in the notebook `10_end_to_end`.

    python experiments/live_factor.py [--seconds 60] [--repeats 3] [--models …]

The notebook's function plays a rendered video through the demo's stream. Then `tal serve` plays it in a
process of its own, with a viewer who connects by HTTP, and the page's own factor is read. Both play at the
pace of the video. The models have random weights. Writes results/experiments/live_factor.csv. Needs a machine
that does nothing else.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.live import Viewer, analytics, serving
from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.files import write_text
from tal_lib.provenance import device_name, git_commit
from tal_lib.reports.layout import Layout
from tal_lib.training.checkpoints import Trained, save_model
from tal_lib.video import end_to_end, long_videos

BACKBONE = "hog-hof"
CLASSES = 20


def untrained(name: str, path: Path) -> Path:
    """A checkpoint of a compact model with random weights, for features of `BACKBONE`."""
    streams, sampling = dict(end_to_end.backbone(BACKBONE).streams), end_to_end.SAMPLINGS[BACKBONE]
    torch.manual_seed(0)
    model = models.build(name, input_dim=sum(streams.values()), num_classes=CLASSES)
    spec = FeatureSpec(stride_s=sampling.stride_s, window_s=sampling.window_s, streams=streams)
    return save_model(path, Trained(model, tuple(map(str, range(CLASSES))), spec, None))


def served(video: Path, checkpoint: Path, threads: int) -> dict:
    """`served_factor` and `served_dropped` of the page after the video has played once."""
    with serving(video, checkpoint, "--once", threads=threads) as port:
        Viewer(port, 0.0).start()
        while analytics(port)["state"] in ("starting", "playing"):
            time.sleep(1)
        time.sleep(1)  # the model may still work on the last pictures
        shown = analytics(port)
    return {"served_factor": shown["real_time_factor"], "served_dropped": shown["dropped_frames"]}


def main():
    """Print both factors of every model and how far they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of video")
    parser.add_argument("--height", type=int, default=480, help="of its pictures")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each")
    parser.add_argument("--models", nargs="+", default=["local_global", "window_cnn"], choices=models.names())
    chosen = parser.parse_args()
    video, rows = long_videos.video_of(chosen.seconds, chosen.height, 0), []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.models:
            checkpoint = untrained(name, Path(folder) / f"{name}.pt")
            for repeat in range(chosen.repeats):
                row = end_to_end.live(video, BACKBONE, checkpoint, seconds=chosen.seconds)
                rows.append({"repeat": repeat, **row, **served(video, checkpoint, row["threads"])})
    table = pd.DataFrame(rows).rename(columns={"threads": "threads_used"})
    table["difference"] = table.served_factor / table.real_time_factor - 1
    shown = [
        "model",
        "repeat",
        "real_time_factor",
        "dropped",
        "served_factor",
        "served_dropped",
        "difference",
    ]
    print(table[shown].to_string(index=False))
    path = Layout().experiments / "live_factor.csv"
    write_text(path, table.assign(device_name=device_name(), git_commit=git_commit()).to_csv(index=False))
    print(path)


if __name__ == "__main__":
    main()
