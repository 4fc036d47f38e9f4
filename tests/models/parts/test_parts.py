"""Assignment, losses and grouping on hand-worked cases and brute-force twins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.models.parts.assignment import centre_assignment, pyramid_points
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.models.parts.dense import cell_targets, group_runs
from tal_lib.models.parts.losses import diou, sigmoid_focal
from tal_lib.models.parts.pyramid import RANGES, join_levels
from tal_lib.segments import interval_iou


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 80), count=st.integers(0, 6))
def test_assignment_equals_the_definition(seed, steps, count):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, generator=generator) * steps
    segments = torch.stack([start, start + 0.5 + torch.rand(count, generator=generator) * 30], 1)
    labels = torch.randint(3, (count,), generator=generator)
    points = pyramid_points(steps, RANGES)
    classes, target, positive = centre_assignment(points, segments, labels, 3)
    for i in range(len(points.position)):
        t, stride, low, high = (
            float(part[i]) for part in (points.position, points.stride, points.low, points.high)
        )
        fitting = []
        for (s, e), label in zip(segments.tolist(), labels.tolist()):
            centre = (s + e) / 2
            inside = max(s, centre - 1.5 * stride) < t < min(e, centre + 1.5 * stride)
            if inside and low <= max(t - s, e - t) < high:
                fitting.append((e - s, (s, e), label))
        assert bool(positive[i]) == bool(fitting)
        if fitting:
            length, segment, label = min(fitting)
            assert target[i].tolist() == pytest.approx(segment) and classes[i, label] == 1
            assert classes[i].sum() == len(
                {class_label for size, _, class_label in fitting if size <= length + 1e-3}
            )
        else:
            assert classes[i].sum() == 0


def test_levels_have_half_the_points_of_the_one_below():
    points = pyramid_points(101, RANGES)
    assert points.level_sizes == (101, 51, 26, 13, 7, 4)
    assert points.position[101:104].tolist() == [0, 2, 4] and points.stride[-1] == 32


@pytest.mark.parametrize("batch", [2, 9])
@pytest.mark.parametrize(("groups", "kernel"), [(1, 3), (1, 5), (3, 3)])
def test_joined_levels_do_not_see_each_other(batch, groups, kernel):
    levels = [torch.randn(batch, size, 3, requires_grad=True) for size in (5, 3, 2, 1, 1)]
    layer = TemporalConv(3, 6, kernel, groups=groups)
    joined, keep, sizes = join_levels(levels, [None] * 5)
    assert keep is None and sizes == (5, 3, 2, 1, 1)
    got, want = layer(joined, sizes=sizes), torch.cat([layer(level) for level in levels], 1)
    torch.testing.assert_close(got, want)
    for gradient, expected in zip(
        torch.autograd.grad(got.square().sum(), (*levels, layer.weight)),
        torch.autograd.grad(want.square().sum(), (*levels, layer.weight)),
    ):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_focal_loss_by_hand():
    logit, target = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    p = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    want = [0.25 * 0.5**2 * 0.6931472, float(0.75 * p**2 * -torch.log(1 - p))]
    assert sigmoid_focal(logit, target).tolist() == pytest.approx(want, rel=1e-5)


def test_diou_by_hand():
    a, b = (
        torch.tensor([[0.0, 4.0], [0.0, 2.0], [1.0, 3.0]]),
        torch.tensor([[2.0, 6.0], [4.0, 6.0], [1.0, 3.0]]),
    )
    assert interval_iou(a, b).tolist() == pytest.approx([1 / 3, 0, 1])
    assert diou(a, b).tolist() == pytest.approx([2 / 3 + (2 / 6) ** 2, 1 + (4 / 6) ** 2, 0])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), cells=st.integers(1, 40))
def test_runs_equal_a_walk_along_the_cells(seed, cells):
    p = torch.rand(cells, 2, generator=torch.Generator().manual_seed(seed))
    got = {(int(a), int(b), int(k), round(float(m), 4)) for a, b, m, k in zip(*group_runs(p, (0.3, 0.6)))}
    want = set()
    for threshold in (0.3, 0.6):
        for k in range(2):
            i = 0
            while i < cells:
                j = i
                while j < cells and p[j, k] >= threshold:
                    j += 1
                if j > i:
                    want.add((i, j - 1, k, round(float(p[i:j, k].double().mean()), 4)))
                i = max(j, i + 1)
    assert {row[:3] for row in got} == {row[:3] for row in want}
    assert all(any(a[:3] == b[:3] and abs(a[3] - b[3]) < 2e-4 for b in want) for a in got)


def test_cell_targets_prefer_the_shorter_segment():
    segments, labels = torch.tensor([[0.0, 10.0], [4.0, 6.0]]), torch.tensor([0, 1])
    assert cell_targets(torch.tensor([1.0, 5.0, 12.0]), segments, labels, 2).tolist() == [0, 1, 2]
    assert cell_targets(torch.tensor([1.0]), segments[:0], labels[:0], 2).tolist() == [2]


def test_a_distance_at_the_end_of_a_range_belongs_to_the_next_level():
    """Ranges are closed below and open above (`centre_assignment` decides it): a distance has one level."""
    points = pyramid_points(9, ((0, 4), (4, 8)))
    _, _, positive = centre_assignment(points, torch.tensor([[0.0, 8.0]]), torch.tensor([0]), 1)
    level = torch.tensor([0] * 9 + [1] * 5)
    at = points.position == 4  # 4 from both ends
    assert positive[at].tolist() == [False, True] and level[at].tolist() == [0, 1]
    far = torch.maximum(points.position, 8 - points.position)
    assert not positive[(level == 1) & (far >= 8)].any() and not positive[level == 0].any()
