"""Memory, frame rate and latency of the live server over time.

    python experiments/live.py [--minutes 30] [--viewers 8]

A separate process serves the unseen video of the demo (`make demo` prepares it) in a loop. One of the viewers
reads slowly. Every ten seconds the script records memory, frame rate, latency, dropped frames, and the number
of pictures that the viewers received. Writes results/experiments/live.csv.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib.process.environment import child_environment
from tal_lib.provenance import provenance
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import write_csv
from tal_lib.video.demo import prepare, unseen


class Viewer(threading.Thread):
    """Reads the pictures with a pause after each, and counts them."""

    def __init__(self, port, pause_s):
        super().__init__(daemon=True)
        self.port, self.pause_s, self.count, self.error = port, pause_s, 0, ""

    def run(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/video_feed")
            response = connection.getresponse()
            while line := response.readline():
                if line.lower().startswith(b"content-length"):
                    response.readline()
                    picture = response.read(int(line.split(b":")[1]))
                    assert picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9")
                    self.count += 1
                    time.sleep(self.pause_s)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"


def analytics(port):
    """The numbers that the server reports about itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/analytics")
    return json.loads(connection.getresponse().read())


@contextmanager
def serving(video: Path, checkpoint: Path, *options: str, threads: int = 1):
    """A separate process that serves a video with `tal serve`; gives its port."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tal_lib",
            "serve",
            str(video),
            "--model",
            str(checkpoint),
            "--port",
            "0",
            *options,
        ],
        env=child_environment(threads),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield int(re.search(r":(\d+)/", server.stdout.readline()).group(1))
    finally:
        server.terminate()
        server.wait()


def main():
    """Serve, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--viewers", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"))
    arguments = parser.parse_args()
    checkpoint, (video, _) = prepare(arguments.folder), unseen(arguments.folder)
    rows = []
    with serving(video, checkpoint) as port:
        viewers = [Viewer(port, 0.0 if index else 2.0) for index in range(arguments.viewers)]
        for viewer in viewers:
            viewer.start()
        began = time.monotonic()
        while time.monotonic() - began < 60 * arguments.minutes:
            time.sleep(10)
            now, before = analytics(port), rows[-1] if rows else {}
            rows.append(
                {
                    "minute": round((time.monotonic() - began) / 60, 3),
                    "memory_mb": now["memory_mb"],
                    "frames_per_s": now["frames_per_s"],
                    "latency_p50_ms": now["latency_ms"]["p50"],
                    "latency_p95_ms": now["latency_ms"]["p95"],
                    "dropped_frames": now["dropped_frames"],
                    "failures": now["failures"],
                    "viewers": now["viewers"],
                    "pictures_fast": min(viewer.count for viewer in viewers[1:]),
                    "pictures_slow": viewers[0].count,
                    "viewer_errors": sum(bool(viewer.error) for viewer in viewers),
                }
            )
            if int(rows[-1]["minute"]) != int(before.get("minute", -1)):
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows)
    settled = table[table.minute >= 1]
    first, last = settled.memory_mb.iloc[[0, -1]]
    print(
        f"memory {first:.1f} MB after a minute, {last:.1f} MB at the end: {100 * (last / first - 1):+.1f} %"
    )
    print(
        f"frames/s {settled.frames_per_s.min():.1f} to {settled.frames_per_s.max():.1f}; "
        f"{table.dropped_frames.iloc[-1]} dropped; {table.failures.iloc[-1]} failures; "
        f"{table.viewer_errors.iloc[-1]} viewers with an error"
    )
    write_csv(table.assign(**provenance(threads=1)), Layout().experiments, "live")


if __name__ == "__main__":
    main()
