"""Rendered videos of simple actions: a training set for live detection that needs no download.

One shape on a noisy background stands still, or does one of six actions for some seconds. Shape, colours,
size, place and speed are random. Only the movement tells which action it is.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from tal_lib.errors import TalError
from tal_lib.files import write_json
from tal_lib.reading import read_json
from tal_lib.video.frames import write_video
from tal_lib.writing import claim, listed

ACTIONS = ("slide right", "slide left", "jump", "spin", "grow", "blink")
WIDTH, HEIGHT, FPS = 160, 120, 16
RENDERED = "render.json"


@dataclass(frozen=True)
class Scene:
    """The content of one video: its length in seconds, and its actions as (start, end, label), in seconds."""

    seconds: float
    actions: tuple[tuple[float, float, str], ...]


def scene(rng: np.random.Generator, seconds: float) -> Scene:
    """Actions of 2 to 5 s with 1.5 to 4 s of rest around them."""
    actions, at = [], rng.uniform(1.5, 4)
    while at + 2 < seconds - 1:
        end = min(at + rng.uniform(2, 5), seconds - 1)
        actions.append((round(at, 2), round(end, 2), str(rng.choice(ACTIONS))))
        at = end + rng.uniform(1.5, 4)
    return Scene(seconds, tuple(actions))


def draw(plan: Scene, rng: np.random.Generator):
    """Yield the pictures (120, 160, 3), RGB, uint8, of a scene, at 16 frames per second."""
    sides = int(rng.choice([3, 4, 5, 30]))  # 30 looks like a disc
    dark, light = rng.uniform(20, 90, 3), rng.uniform(150, 250, 3)
    ground, colour = (dark, light) if rng.random() < 0.5 else (light, dark)
    slope = rng.uniform(-0.2, 0.2, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    base = (ground + (slope[0] * (columns - WIDTH / 2) + slope[1] * (rows - HEIGHT / 2))[..., None]).astype(
        np.float32
    )
    radius, angle = rng.uniform(18, 28), rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0.25, 0.75) * WIDTH, rng.uniform(0.4, 0.65) * HEIGHT
    speeds = {action: rng.uniform(0.8, 1.25) for action in ACTIONS}
    for index in range(round(plan.seconds * FPS)):
        time = index / FPS
        action, since = next(
            ((name, time - start) for start, end, name in plan.actions if start <= time < end), (None, 0.0)
        )
        rate = speeds.get(action, 1.0)
        rise, size, shown = 0.0, 1.0, True
        if action in ("slide right", "slide left"):  # leaves at one side and enters at the other
            x = (x + (1 if action == "slide right" else -1) * 45 * rate / FPS) % WIDTH
        elif action == "jump":
            rise = 26 * abs(np.sin(np.pi * 1.1 * rate * since))
        elif action == "spin":
            angle += 2.6 * rate / FPS
        elif action == "grow":
            size = 1 + 0.7 * (0.5 - 0.5 * np.cos(2 * np.pi * 0.6 * rate * since))
        elif action == "blink":
            shown = (since * 2 * rate) % 1 < 0.5
        noise = 3 * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
        picture = np.clip(base + noise, 0, 255).astype(np.uint8)
        if shown:
            _shape(picture, x, y - rise, radius * size, angle, sides, colour)
        yield picture


def _shape(picture, x, y, radius, angle, sides, colour):
    turns = angle + 2 * np.pi * np.arange(sides) / sides
    corners = np.stack([radius * np.cos(turns), radius * np.sin(turns)], 1)
    # a line from the centre to the rim, so that the spin of a disc is visible
    hand = 0.9 * radius * np.array([np.cos(angle), np.sin(angle)])
    for left in (x - WIDTH, x, x + WIDTH):
        cv2.fillPoly(
            picture,
            [np.round(corners + (left, y)).astype(np.int32)],
            [float(part) for part in colour],
            cv2.LINE_AA,
        )
        ends = [
            tuple(int(round(part)) for part in point) for point in ((left, y), (left + hand[0], y + hand[1]))
        ]
        cv2.line(
            picture, *ends, [float(255 - part) for part in colour], max(3, round(radius / 4)), cv2.LINE_AA
        )


def render(
    folder: str | Path,
    train: int = 40,
    test: int = 8,
    seconds: float = 40.0,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write `videos/*.mp4` and `annotations.json` (ActivityNet format) into a folder. Returns the folder.

    Existing videos are kept. `render.json` holds the seed and length: a folder has videos of one seed and
    length.

    Raises:
        TalError: no video is asked for, one without a frame, or the folder contains videos of another seed or
            length.
    """
    if not train + test:
        raise TalError("no video to render", remedy="Ask for at least one with --train or --test.")
    if round(seconds * FPS) < 1:
        raise TalError(f"{seconds:g} s are shorter than a frame", remedy=f"Ask for at least {1 / FPS:g} s.")
    folder, database = Path(folder), {}
    drawn = {"seed": seed, "seconds": seconds}
    known = folder / RENDERED
    if listed(known) and read_json(known) != drawn:
        raise TalError(
            "contains videos of another seed or length", where=known, remedy="Choose another folder."
        )
    names = [f"train_{number:03d}" for number in range(train)] + [
        f"test_{number:03d}" for number in range(test)
    ]
    missing = [f"videos/{name}.mp4" for name in names if not listed(folder / "videos" / f"{name}.mp4")]
    claim(folder, [RENDERED, "annotations.json", *missing])
    write_json(known, drawn)
    for index, name in enumerate(tqdm(names, unit="video", disable=not progress, mininterval=1)):
        split, number = ("training", index) if index < train else ("testing", index - train)
        rng = np.random.default_rng([seed, split == "testing", number])
        plan = scene(rng, seconds)
        path = folder / "videos" / f"{name}.mp4"
        if not listed(path):
            write_video(path, draw(plan, rng), FPS)
        database[name] = {
            "subset": split,
            "duration": seconds,
            "fps": FPS,
            "annotations": [
                {"segment": [start, end], "label": action} for start, end, action in plan.actions
            ],
        }
    write_json(folder / "annotations.json", {"version": "rendered", "database": database})
    return folder
