"""Recordings altered for AFSD's boundary contrast: an action is cut open by a piece of background.

Source: Lin et al., AFSD (CVPR 2021), section 3.4; the authors' code (thumos_dataset.py).
"""

import math

import torch
from torch import Tensor


def choose_cut(segments: Tensor, steps: int, action: int = 8, background: int = 4):
    """A random action of at least `action` steps, and random background of at least `background` steps.

    No segment touches the background, and it is no longer than the action.

    Returns:
        ((start, end), (first, last)) in whole steps with exclusive ends; None if either is missing.
    """
    ends = segments.round().clamp(0, steps).long()
    long = ends[ends[:, 1] - ends[:, 0] >= action]
    free = torch.ones(steps + 2, dtype=torch.long)
    free[[0, -1]] = 0
    for start, end in ends.tolist():
        free[start + 1 : end + 1] = 0
    change = free.diff()
    gaps = torch.stack([(change == 1).nonzero()[:, 0], (change == -1).nonzero()[:, 0]], 1)
    gaps = gaps[gaps[:, 1] - gaps[:, 0] >= background]
    if not len(long) or not len(gaps):
        return None
    (start, end), (first, last) = (some[torch.randint(len(some), ())].tolist() for some in (long, gaps))
    return (start, end), (first, min(last, first + end - start))


def spliced(x: Tensor, segments: Tensor) -> tuple[Tensor, Tensor] | None:
    """A copy of a recording in which a piece of background cuts an action open, as the authors make it.

    The piece is as long as the shortest segment, rounded up. It leaves its place in a gap between segments
    and enters a segment of more than twice its length; what lies between the two places moves up, so that
    the length stays the same. Action, place in it and piece are drawn at random.

    Args:
        x: (T, C); segments: (N, 2) in steps from the left edge of the first step.

    Returns:
        the copy (T, C), and (3, 2) in steps: the action's first part, its second part, the piece. None if no
        segment is long enough or no gap has room.
    """
    if not len(segments):
        return None
    steps, length = len(x), max(1, math.ceil(float((segments[:, 1] - segments[:, 0]).min())))
    spans = segments.tolist()
    long = [span for span in spans if span[1] - span[0] > 2 * length]
    times = sorted([0.0, steps - 1.0, *(time for span in spans for time in span)])
    gaps = [
        (math.ceil(before), math.floor(after))
        for before, after in zip(times, times[1:])
        if not any(start <= before and after <= end for start, end in spans)
        and math.floor(after) - math.ceil(before) > length
    ]
    if not long or not gaps:
        return None
    draw = lambda count: int(torch.randint(count, ()))
    start, end = long[draw(len(long))]
    low, high = gaps[draw(len(gaps))]
    middle = math.ceil(start) + length + draw(math.ceil(end - start - length) - length)
    first = low + draw(high - low - length)
    piece, altered = x[first : first + length], x.clone()
    if end <= first:  # the piece comes from behind
        altered[middle : middle + length] = piece
        altered[middle + length : first + length] = x[middle:first]
        parts = [[start, middle], [middle + length, end + length], [middle, middle + length]]
    else:
        altered[first : middle - length] = x[first + length : middle]
        altered[middle - length : middle] = piece
        parts = [[start - length, middle - length], [middle, end], [middle - length, middle]]
    return altered, segments.new_tensor(parts)
