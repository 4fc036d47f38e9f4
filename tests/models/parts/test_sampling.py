"""Boundary matching against the published form: dense sampling matrix, then convolution over the points."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.files import REPOSITORY
from tal_lib.models.parts.sampling import (
    BoundaryMatching,
    Sampling,
    positions_in,
    proposal_grid,
    sample_segments,
)
from tal_lib.process.environment import child_environment


def dense_matrix(steps, max_duration, how):
    """The published sampling matrix (T, T, D, points): each step's weight in each sample, entry by entry."""
    points = how.points
    matrix = torch.zeros(steps, steps, max_duration, points, dtype=torch.double)
    for start in range(steps):
        for duration in range(1, max_duration + 1):
            if start + duration > steps:
                continue
            reach = how.context * (duration + how.context_steps)
            count = points * how.samples
            for sample in range(count):
                at = start - reach + (duration + 2 * reach) * sample / max(1, count - 1)
                weights = [max(0.0, 1 - abs(at - step)) for step in range(steps)]
                if how.hold_start and -1 < at < 0:
                    weights[0] = 1.0
                matrix[:, start, duration - 1, sample // how.samples] += torch.tensor(weights).double()
    return matrix / how.samples


@settings(deadline=None, max_examples=15)
@given(
    steps=st.integers(2, 12),
    max_duration=st.integers(1, 9),
    points=st.integers(2, 6),
    context=st.sampled_from([0.0, 0.25, 0.5]),
    published=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_boundary_matching_is_the_dense_matrix_and_a_convolution(
    steps, max_duration, points, context, published, seed
):
    torch.manual_seed(seed)
    max_duration = min(max_duration, steps)
    more = {"context_steps": 1.0, "samples": 3, "hold_start": True} if published else {}
    how = Sampling(points=points, context=context, **more)
    sizes = {"steps": steps, "max_duration": max_duration}
    layer = BoundaryMatching(3, 4, **sizes, how=how, empty_bias=published)
    x = torch.randn(2, steps, 3, requires_grad=True)
    matrix = dense_matrix(steps, max_duration, how).float()
    samples = torch.einsum("btc,tsdn->bsdnc", x, matrix)
    valid = (proposal_grid(steps, max_duration)[..., 1] <= steps)[None, ..., None]
    want = torch.einsum("bsdnc,cnh->bsdh", samples, layer.weight.unflatten(1, (points, 4))) + layer.bias
    want = want if published else want * valid
    got = layer(x)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
    names = [x, layer.weight, layer.bias]
    ours, theirs = (torch.autograd.grad(y.square().sum(), names, allow_unused=True) for y in (got, want))
    for gradient, expected in zip(ours, theirs):
        torch.testing.assert_close(gradient, expected, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), want, atol=2e-5, rtol=1e-4)
        by_end = BoundaryMatching(3, 4, **sizes, how=how, by_end=True, empty_bias=published)
        by_end.load_state_dict(layer.state_dict())
        ends = by_end(x)
        for start in range(steps):
            for duration in range(1, max_duration + 1):
                if start + duration <= steps:
                    here = got[:, start, duration - 1]
                    torch.testing.assert_close(ends[:, start, start + duration - 1], here)


def test_a_proposal_that_ends_at_the_edge_is_sampled():
    """[T − d, T] has features like any other: none but the zeros behind the window separate it."""
    torch.manual_seed(0)
    layer = BoundaryMatching(3, 4, steps=8, max_duration=8, how=Sampling(points=4, context=0.0))
    x = torch.randn(1, 8, 3)
    shifted = torch.nn.functional.pad(x, (0, 0, 0, 1))[:, 1:]
    maps, one_later = layer(x), layer(shifted)
    for duration in range(2, 7):
        start = 8 - duration
        assert maps[0, start, duration - 1].abs().sum() > 0
        torch.testing.assert_close(maps[0, start, duration - 1], one_later[0, start - 1, duration - 1])


@pytest.mark.slow
def test_boundary_matching_needs_a_third_of_the_memory_at_most():
    peaks = {}
    for form in ("published", "here"):
        job = json.dumps([form, 64, 48, False, 1])
        done = subprocess.run(
            [sys.executable, REPOSITORY / "experiments" / "boundary_matching.py", job],
            check=True,
            capture_output=True,
            text=True,
            env=child_environment(1, keep_freed=False),
        )
        peaks[form] = json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"]
    assert peaks["here"] < peaks["published"] / 3, peaks


def test_positions_run_from_end_to_end():
    segments = torch.tensor([[2.0, 6.0]])
    assert positions_in(segments, 5).tolist() == [[2, 3, 4, 5, 6]]
    assert positions_in(segments, 3, context=0.5).tolist() == [[0, 4, 8]]


def test_segments_are_sampled_between_steps():
    x = torch.arange(10.0)[None, :, None]
    assert sample_segments(x, torch.tensor([[[2.0, 3.0]]]), 3)[0, 0, :, 0].tolist() == pytest.approx(
        [2, 2.5, 3]
    )
    assert sample_segments(x, torch.tensor([[[-2.0, -1.0]]]), 2).abs().sum() == 0
