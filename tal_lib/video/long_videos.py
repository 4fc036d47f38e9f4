"""Videos of a chosen length and size to measure cost on: crowded scenes, 30 frames per second, H.264.

The pictures are those of the benchmark `rendered`, shown three times as fast, enlarged, with new noise in
every picture as a sensor gives it. One minute is drawn and encoded; a longer video repeats its packets, so an
hour takes no longer to make. Everything follows from a seed.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from tal_lib.files import atomic_path, cache_root
from tal_lib.validation import Positive, Seed, unknown_name, validate
from tal_lib.video import crowded
from tal_lib.video.frames import write_video
from tal_lib.writing import claim, listed

FPS = 30
SIZES = {480: (854, 480), 1080: (1920, 1080)}  # height -> (width, height)
UNIQUE_S = 60.0  # seconds that are drawn; what is longer repeats them
NOISE = 2.0  # standard deviation of a picture's noise, in 255
NOISE_FIELDS = 16
VERSION = 1  # of the pictures; raised with every change of them


def folder() -> Path:
    """Where the videos are; they can be made again from the seed."""
    return cache_root() / "end_to_end" / str(VERSION)


def video_of(seconds: float, height: int, seed: int = 0, where: Path | None = None) -> Path:
    """The path of a video of this length and height, made now unless it is there.

    Args:
        seconds: rounded to whole frames, beyond a minute to whole minutes.
        height: of `SIZES`.
        where: folder; by default `folder()`.

    Raises:
        TalError: a length, height or seed that is not offered.
    """
    seconds, seed = validate(Positive, seconds, name="seconds"), validate(Seed, seed, name="seed")
    if height not in SIZES:
        raise unknown_name(height, SIZES, name="height")
    where = where or folder()
    unique = min(seconds, UNIQUE_S)
    times = max(1, round(seconds / UNIQUE_S))
    path = where / f"{height}p_{unique * times:g}s_{seed}.mp4"
    if not listed(path):
        claim(where, [path.name])
        if times == 1:
            write_video(path, _pictures(unique, height, seed), FPS)
        else:
            repeat(video_of(UNIQUE_S, height, seed, where), path, times)
    return path


def _pictures(seconds, height, seed) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([seed, height])
    count, size = round(seconds * FPS), SIZES[height]
    scene = replace(crowded.play(rng), seconds=count / crowded.FPS)
    fields = rng.normal(0, NOISE, (NOISE_FIELDS, size[1], size[0], 1)).astype(np.float32)
    for picture in islice(crowded.draw(scene, rng), count):
        large = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        large += fields[rng.integers(NOISE_FIELDS)]
        yield np.clip(large, 0, 255, out=large).astype(np.uint8)


def repeat(source: Path, target: Path, times: int) -> None:
    """Write the pictures of a video `times` times, one after the other, by copying its packets."""
    with atomic_path(target) as temporary, av.open(str(temporary), "w", format="mp4") as out:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                given = container.streams.video[0]
                stream = stream or out.add_stream_from_template(given)
                for packet in container.demux(given):
                    if packet.dts is None:  # the end
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                shift += round(given.frames / Fraction(given.average_rate) / given.time_base)
