"""`make demo`: render videos, train local_global on them in minutes, and detect actions in an unseen video.

python -m tal_lib.video.demo [--port 8000] [--folder runs/demo] [--rounds N]
"""

import argparse
import sys
import threading
from pathlib import Path

import numpy as np

from tal_lib.data import load_benchmark
from tal_lib.disk import no_empty_folders
from tal_lib.errors import TalError
from tal_lib.study import train_and_score
from tal_lib.video.detect import ready
from tal_lib.video.extract import Sampling, extract
from tal_lib.video.frames import write_video
from tal_lib.video.live import Answer, LiveDetector
from tal_lib.video.rendered import FPS, draw, render, scene
from tal_lib.video.server import make_server
from tal_lib.video.stream import Stream
from tal_lib.writing import listed, overwriting

SAMPLING = Sampling(fps=FPS, window=16, stride=4)
UNSEEN_SECONDS = 60.0


def prepare(
    folder: Path,
    *,
    train: int = 40,
    test: int = 8,
    seconds: float = 40.0,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Render the videos, extract their features and train a model in a folder. Existing parts are kept.

    Returns:
        the checkpoint.
    """
    render(folder, train, test, seconds, progress=progress)
    extract(folder / "videos", folder / "features", "hog-hof", SAMPLING, workers=workers, progress=progress)
    checkpoint = folder / "model" / "model.pt"
    if not listed(checkpoint):
        data = load_benchmark(str(folder))
        run = train_and_score(
            data,
            "local_global",
            recipe={"epochs": 30, "feature_noise": 0.05, "max_steps": 96},
            recordings=data.recordings("train"),
            out_dir=checkpoint.parent,
            progress=progress,
        )
        print(
            f"trained on {len(run.recordings)} videos; avg mAP {100 * run.scores.mean():.1f} % on "
            f"{len(data.recordings('test'))} test videos"
        )
    return checkpoint


def unseen(folder: Path, seconds: float = UNSEEN_SECONDS):
    """(path, scene) of a video whose seed is in no training set."""
    rng = np.random.default_rng([12345, 1, 0])
    plan, path = scene(rng, seconds), folder / "unseen.mp4"
    if not listed(path):
        write_video(path, draw(plan, rng), FPS)
    return path, plan


class Score:
    """The fraction of seconds with the correct label.

    Each answer stands for one stride. "Nothing" is an answer too.
    """

    def __init__(self, actions):
        self.actions, self.right, self.total = actions, 0, 0

    def __call__(self, answer: Answer) -> None:
        truth = next((label for start, end, label in self.actions if start <= answer.time_s < end), None)
        self.total += 1
        self.right += answer.label == truth

    @property
    def share(self) -> float:
        """The fraction of correct answers so far."""
        return self.right / max(1, self.total)


def main(arguments=None) -> int:
    """Prepare, serve, and print the score of the first round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/demo", type=Path, help="folder (default: runs/demo)")
    parser.add_argument("--port", default=8000, type=int, help="port of the page (default: 8000)")
    parser.add_argument(
        "--rounds",
        default=0,
        type=int,
        help="stop after the video was played N times (default: 0, run until Ctrl-C)",
        metavar="N",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that tal did not write, and files that were edited since",
    )
    given = parser.parse_args(arguments)
    try:
        with no_empty_folders(), overwriting(given.overwrite):
            chosen = ready(prepare(given.folder))
            video, plan = unseen(given.folder)
        score, announced = Score(plan.actions), threading.Event()
        detector = LiveDetector(chosen.model, chosen.classes, chosen.spec, prepared=chosen.prepared)

        def listen(answer):
            if stream.source.rounds == 0:
                score(answer)
            elif not announced.is_set():
                announced.set()
                print(
                    f"first round: {100 * score.share:.0f} % of {UNSEEN_SECONDS:.0f} seconds are classified "
                    "correctly",
                    flush=True,
                )
            if given.rounds and stream.source.rounds >= given.rounds:
                threading.Thread(target=server.close, daemon=True).start()

        stream = Stream(str(video), detector, on_answer=listen)
        server = make_server(stream, port=given.port)
    except TalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stream.start()
    print(f"watch at http://127.0.0.1:{server.effective_port}/  (Ctrl-C ends)", flush=True)
    try:
        server.run()
    except (KeyboardInterrupt, OSError):
        pass
    finally:
        stream.stop()
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
