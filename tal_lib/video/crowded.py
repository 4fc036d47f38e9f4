"""Crowded scenes: what the videos of the benchmark `rendered` show.

Two or three actors act independently, so several actions happen at once, in random order. Only the movement
tells the action. What makes it hard: the camera shakes, the light changes, actors wander between their
actions, and unlabelled things pass through the picture. All of it follows from one random generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from tal_lib.video.rendered import Scene

ACTIONS = (
    "slide right",
    "slide left",
    "jump",
    "sway",
    "circle",
    "pulse",
    "wave",
    "blink",
)
WIDTH, HEIGHT, FPS = 192, 144, 10
MARGIN = 8  # pixels by which the camera moves
STAGE = (WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN)
DURATION_S = (120.0, 180.0)
ACTION_S = (2.0, 12.0)  # log-uniform: short actions are more frequent
PAUSE_S = (1.0, 14.0)  # log-uniform
RADIUS = (16.0, 26.0)  # pixels, of an actor
SHAKE = (0.05, 0.35)  # pixels by which the camera moves from frame to frame, standard deviation
PASSING_S = 15.0  # mean seconds between unlabelled things
_TURN = 2 * np.pi


@dataclass(frozen=True)
class Act:
    """One action of one actor, in seconds; `rate` is its speed, 1 on average."""

    start: float
    end: float
    label: str
    rate: float


@dataclass(frozen=True)
class Play:
    """The timeline of a video: its seconds, and the acts of each actor."""

    seconds: float
    actors: tuple[tuple[Act, ...], ...]

    @property
    def scene(self) -> Scene:
        """The annotation: every act as (start, end, label), by start."""
        acts = sorted((act for acts in self.actors for act in acts), key=lambda act: (act.start, act.end))
        return Scene(self.seconds, tuple((act.start, act.end, act.label) for act in acts))


def play(rng: np.random.Generator) -> Play:
    """A random timeline."""
    seconds = round(float(rng.uniform(*DURATION_S)))
    return Play(seconds, tuple(_acts(rng, seconds) for _ in range(rng.integers(2, 4))))


def _acts(rng, seconds):
    acts, at = [], _log_uniform(rng, PAUSE_S)
    while (end := at + _log_uniform(rng, ACTION_S)) < seconds - 1:
        label = str(rng.choice(ACTIONS))
        acts.append(Act(round(at, 2), round(end, 2), label, float(rng.uniform(0.7, 1.4))))
        at = end + _log_uniform(rng, PAUSE_S)
    return tuple(acts)


def _log_uniform(rng, bounds):
    return float(np.exp(rng.uniform(*np.log(bounds))))


class Actor:
    """A shape with an arm. It acts as its timeline says, and wanders between some of its acts."""

    def __init__(self, rng: np.random.Generator, acts: tuple[Act, ...]):
        self.rng, self.acts = rng, acts
        self.place = rng.uniform((0.15, 0.25), (0.85, 0.8)) * STAGE
        self.radius, self.sides = rng.uniform(*RADIUS), int(rng.choice([3, 4, 5, 6, 30]))
        self.colour = rng.uniform(20, 250, 3)
        self.angle = rng.uniform(0, _TURN)
        self.wander = np.zeros(2)

    def draw(self, picture: np.ndarray, time: float) -> None:
        """Move by one frame and draw into a picture (H, W, 3), float32."""
        act = next((act for act in self.acts if act.start <= time < act.end), None)
        shift, size, arm, solid = np.zeros(2), 1.0, 0.0, True
        if act is None:
            if self.rng.random() < 0.5 / FPS:  # a new direction, or none, every two seconds
                self.wander = self.rng.normal(0, 7, 2) * (self.rng.random() < 0.25)
            self.place = self.place + self.wander / FPS
        else:
            turn = act.rate * (time - act.start)
            match act.label:
                case "slide right" | "slide left":
                    sign = 1 if act.label == "slide right" else -1
                    self.place[0] += sign * 30 * act.rate / FPS
                case "jump":
                    shift[1] = -20 * abs(np.sin(np.pi * 1.1 * turn))
                case "sway":
                    shift[0] = 16 * np.sin(_TURN * 0.7 * turn)
                case "circle":
                    shift = 14 * np.array([np.cos(_TURN * 0.6 * turn) - 1, np.sin(_TURN * 0.6 * turn)])
                case "pulse":
                    size = 1 + 0.8 * (0.5 - 0.5 * np.cos(_TURN * 0.7 * turn))
                case "wave":
                    arm = 1.2 * np.sin(_TURN * 1.1 * turn)
                case "blink":
                    solid = (2 * turn) % 1 < 0.5
        self.place = self.place % STAGE
        if solid:
            self._paint(picture, self.place + shift, size, arm)

    def _paint(self, picture, place, size, arm):
        for left in (-STAGE[0], 0, STAGE[0]):  # an actor that leaves at one side enters at the other
            _polygon(
                picture,
                place + (left, 0),
                self.radius * size,
                self.angle,
                self.sides,
                self.colour,
                self.angle + arm,
            )


def _polygon(picture, place, radius, angle, sides, colour, arm):
    turns = angle + _TURN * np.arange(sides) / sides
    corners = place + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
    cv2.fillPoly(picture, [np.round(corners).astype(np.int32)], [float(part) for part in colour], cv2.LINE_AA)
    hand = place + 1.7 * radius * np.array([np.cos(arm), np.sin(arm)])
    ends = [tuple(int(round(part)) for part in point) for point in (place, hand)]
    cv2.line(picture, *ends, [float(255 - part) for part in colour], max(2, round(radius / 3)), cv2.LINE_AA)


@dataclass
class _Passing:
    """An unlabelled thing that crosses the picture."""

    place: np.ndarray
    speed: np.ndarray
    radius: float
    colour: np.ndarray

    def draw(self, picture):
        self.place = self.place + self.speed / FPS
        centre = tuple(int(round(part)) for part in self.place)
        cv2.circle(
            picture, centre, round(self.radius), [float(part) for part in self.colour], -1, cv2.LINE_AA
        )

    @property
    def gone(self):
        return not (-20 < self.place[0] < STAGE[0] + 20)


def _passing(rng):
    right = rng.random() < 0.5
    return _Passing(
        place=np.array([-15.0 if right else STAGE[0] + 15.0, rng.uniform(0.1, 0.9) * STAGE[1]]),
        speed=np.array([(1 if right else -1) * rng.uniform(15, 50), rng.normal(0, 5)]),
        radius=rng.uniform(4, 11),
        colour=rng.uniform(20, 250, 3),
    )


def draw(timeline: Play, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the pictures (144, 192, 3), RGB, uint8, of a timeline, at 10 frames per second."""
    coarse = (rng.uniform(70, 180, 3) + rng.uniform(-45, 45, (7, 9, 3))).astype(np.float32)
    ground = cv2.resize(coarse, STAGE, interpolation=cv2.INTER_CUBIC)
    ground += 12 * rng.standard_normal((*ground.shape[:2], 1), dtype=np.float32)
    actors = [Actor(rng, acts) for acts in timeline.actors]
    passing: list[_Passing] = []
    camera, light = np.zeros(2), 0.0
    shake, flicker = rng.uniform(*SHAKE), rng.uniform(0.002, 0.01)
    for index in range(round(timeline.seconds * FPS)):
        camera = np.clip(0.95 * camera + rng.normal(0, shake, 2), -MARGIN, MARGIN)
        light = 0.99 * light + rng.normal(0, flicker)
        stage = ground.copy()
        if rng.random() < 1 / (PASSING_S * FPS):
            passing.append(_passing(rng))
        for thing in passing:
            thing.draw(stage)
        passing = [thing for thing in passing if not thing.gone]
        for actor in actors:
            actor.draw(stage, index / FPS)
        left, top = (int(round(MARGIN + part)) for part in camera)
        seen = stage[top : top + HEIGHT, left : left + WIDTH] * np.exp(light)
        seen += 4 * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
        yield np.clip(seen, 0, 255).astype(np.uint8)
