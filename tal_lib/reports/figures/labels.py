"""Names of lines and points, where they hide little: right of a panel, or each beside its point."""

from collections.abc import Mapping
from operator import itemgetter

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from tal_lib.reports.theme import SMALL

GREY, DIM, INK = "#cccccc", "#777777", "#222222"
LINE = 0.125  # inches between two names
FAR = 0.9  # beside lines, a name's line that begins further left is grey, so that nobody reads it as data
DISTANCES = (3, 7, 12, 18, 25, 33, 42)  # points from a point to its name, the nearest first
DIRECTIONS = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315, 20, 160, 200, 340])
PAD = 4  # pixels around a name that stay free, if possible
STEP = 2.0  # pixels between two places of a drawn line where a name may hide it


def name_at_right(
    ax, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], bold=(), far: float = FAR
) -> None:
    """Write names right of the panel, as near to the heights of their points as they fit, each with a thin
    line from its point. They stay within the height of the panel, whose title and neighbours are near.

    points: name → x, y in the units of the axes; bold: names that stand out; far: part of the width up to
    which a name's line begins grey instead of in the name's colour."""
    ax.autoscale_view()
    to_share = (ax.transData + ax.transAxes.inverted()).transform
    places = sorted(((*map(float, to_share(point)), name) for name, point in points.items()), key=_height)
    gap = LINE / (0.72 * ax.figure.get_figheight() / ax.get_gridspec().nrows)  # the rest is around panels
    heights = spread_out([y for _, y, _ in places], gap)
    for height, (x, y, name) in zip(heights, places, strict=True):
        ax.annotate(
            name,
            (x, y),
            (1.06, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=SMALL,
            color=INK if colours[name] != GREY else DIM,
            fontweight="bold" if name in bold else "normal",
            va="center",
            annotation_clip=False,
            arrowprops=_leader(colours[name] if x >= far else GREY) | {"relpos": (0, 0.5)},
        )


def _height(place):
    return place[1], place[2]


def spread_out(values: list[float], gap: float) -> np.ndarray:
    """Sorted values, moved as little as possible (least squares) so that neighbours are `gap` apart.

    All are between 0 and 1, if so many fit there.
    """
    apart = gap * np.arange(len(values))
    moved = isotonic_regression(np.asarray(values) - apart).x
    if apart[-1] <= 1:  # with constant bounds, the cut solution is the best one
        moved = moved.clip(0, 1 - apart[-1])
    return moved + apart


def name_at_points(
    ax, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], bold=()
) -> None:
    """Write each name beside its point, where it hides the fewest points, lines and other names; a name that
    is not next to its point has a thin line from it. The arguments are those of `name_at_right`.

    The panel must be finished: names are placed by pixels."""
    ax.autoscale_view()
    ax.figure.draw_without_rendering()
    panel, drawn, taken = ax.get_window_extent(), _drawn(ax), []
    places = {name: ax.transData.transform(point) for name, point in points.items()}
    for name, point in sorted(points.items(), key=lambda item: (-item[1][1], item[0])):
        look = {"fontsize": SMALL, "fontweight": "bold" if name in bold else "normal", "color": INK}
        size = ax.annotate(name, point, **look)
        width, height = size.get_window_extent().size
        size.remove()
        at, choices = places[name], []
        others = [place for other, place in places.items() if other != name]
        for distance in DISTANCES:
            for direction in DIRECTIONS:
                away = distance * ax.figure.dpi / 72
                shift = np.cos(direction) * (away + width / 2), np.sin(direction) * (away + height / 2)
                box = Bbox.from_bounds(*(at + shift - (width / 2, height / 2)), width, height)
                near = box.padded(PAD)
                hidden = sum(near.count_overlaps([other]) for other in taken)
                outside = not (panel.contains(*box.min) and panel.contains(*box.max))
                end = np.clip(at, box.min, box.max)
                crossed = sum(_inside(other, _along(at, end)) > 0 for other in taken)
                nearer = any(_apart(box, place) < 1.5 * _apart(box, at) for place in others)
                cost = (
                    1000 * outside
                    + 100 * hidden
                    + 30 * crossed
                    + 15 * nearer
                    + 3 * _inside(near, drawn)
                    + distance / 2
                )
                choices.append((cost, nearer or distance > DISTANCES[1], shift, box, end))
        _, joined, shift, box, end = min(choices, key=itemgetter(0))
        taken.append(box)
        leader = None
        if joined:
            drawn = np.concatenate([drawn, _along(at, end)])
            relpos = tuple((end - box.min) / box.size)
            leader = _leader(colours[name]) | {"shrinkB": 2, "relpos": relpos}
        ax.annotate(
            name,
            point,
            np.multiply(shift, 72 / ax.figure.dpi),
            textcoords="offset points",
            ha="center",
            va="center",
            arrowprops=leader,
            **look,
        )


def _drawn(ax):
    """Places (N, 2), in pixels, of all that is drawn in a panel: `STEP` apart on lines."""
    parts, joined = [], []
    for line in ax.lines:
        (parts if line.get_linestyle() == "None" else joined).append(
            line.get_transform().transform(line.get_xydata())
        )
    for collection in ax.collections:
        if isinstance(collection, LineCollection):
            joined += [collection.get_transform().transform(part) for part in collection.get_segments()]
    parts, joined = ([part[np.isfinite(part).all(axis=1)] for part in each] for each in (parts, joined))
    lines = [_along(*ends) for part in joined for ends in zip(part, part[1:])]
    markers = [part + (x, y) for part in parts for x in (-PAD, 0, PAD) for y in (-PAD, 0, PAD)]
    return np.concatenate([np.empty((0, 2)), *markers, *joined, *lines])


def _along(start, end):
    """Places (N, 2) between two, `STEP` apart."""
    count = int(np.hypot(*(end - start)) / STEP)
    return start + np.linspace(0, 1, count + 2)[1:-1, None] * (end - start)


def _apart(box, place):
    """Pixels between a box and a place."""
    return float(np.hypot(*(np.clip(place, box.min, box.max) - place)))


def _inside(box, places):
    return int(((places > box.min) & (places < box.max)).all(axis=1).sum())


def _leader(colour):
    return {
        "arrowstyle": "-",
        "color": colour,
        "linewidth": 0.8,
        "linestyle": (0, (1, 1.5)),  # unlike lines and intervals
        "shrinkA": 0,
        "shrinkB": 0,
    }
