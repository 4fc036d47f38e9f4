"""Deformable sampling against a loop, matching against all permutations, slices against their definition."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.models.parts.sampling import sample_linear
from tal_lib.models.tadtr import DeformableAttention, TadTRConfig, match, to_segments
from tal_lib.segments import interval_iou


def value_at(values, at):
    low = int(torch.tensor(at).floor())
    take = lambda i: values[i] if 0 <= i < len(values) else torch.zeros_like(values[0])
    return (1 - (at - low)) * take(low) + (at - low) * take(low + 1)


@settings(deadline=None, max_examples=40)
@given(length=st.integers(1, 12), seed=st.integers(0, 1000))
def test_sampling_equals_the_loop(length, seed):
    torch.manual_seed(seed)
    values, at = torch.randn(2, length, 3), torch.rand(2, 7) * (length + 4) - 2
    got = sample_linear(values, at)
    for s in range(2):
        for m in range(7):
            torch.testing.assert_close(got[s, m], value_at(values[s], float(at[s, m])), rtol=1e-4, atol=1e-5)


def test_deformable_attention_equals_the_loop():
    torch.manual_seed(0)
    layer = DeformableAttention(8, 2, 3)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    query, memory = torch.randn(1, 4, 8), torch.randn(1, 9, 8)
    centre, width = torch.rand(1, 4) * 9, torch.rand(1, 4) * 5
    got = layer(query, memory, centre, width, None)
    values = layer.values(memory)[0].reshape(9, 2, 4)
    for q in range(4):
        offsets = layer.offsets(query[0, q]).reshape(2, 3) / 3 * float(width[0, q]) / 2
        weights = layer.weights(query[0, q]).reshape(2, 3).softmax(-1)
        heads = [
            sum(
                float(weights[h, m]) * value_at(values[:, h], float(centre[0, q] + offsets[h, m]))
                for m in range(3)
            )
            for h in range(2)
        ]
        torch.testing.assert_close(got[0, q], layer.out(torch.cat(heads)), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(queries=st.integers(1, 5), count=st.integers(1, 4), seed=st.integers(0, 1000))
def test_matching_is_the_cheapest_of_all(queries, count, seed):
    torch.manual_seed(seed)
    c = TadTRConfig()
    logits, boxes = torch.randn(queries, 3), torch.rand(queries, 2) * 0.5 + 0.1
    labels, targets = torch.randint(3, (count,)), torch.rand(count, 2) * 0.5 + 0.1
    p = logits.sigmoid()
    focal = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()

    def cost(q, n):
        overlap = float(interval_iou(to_segments(boxes[q]), to_segments(targets[n])))
        return 6 * float(focal[q, labels[n]]) + 5 * float((boxes[q] - targets[n]).abs().sum()) - 2 * overlap

    rows, columns = match(logits, boxes, labels, targets, c)
    assert len(rows) == min(queries, count) and len(set(rows.tolist())) == len(set(columns.tolist())) == len(
        rows
    )
    got = sum(cost(q, n) for q, n in zip(rows.tolist(), columns.tolist()))
    if queries >= count:
        best = min(
            sum(cost(q, n) for n, q in enumerate(order))
            for order in itertools.permutations(range(queries), count)
        )
    else:
        best = min(
            sum(cost(q, n) for q, n in enumerate(order))
            for order in itertools.permutations(range(count), queries)
        )
    assert got == pytest.approx(best, abs=1e-4)


def test_slices_cover_every_step_with_their_overlap():
    model = models.build("tadtr", input_dim=4, num_classes=2, preset="paper").eval()
    assert model.slices(100) == [0] and model.slices(128) == [0]
    starts = model.slices(1000)
    assert starts[1] - starts[0] == 96 and starts[-1] + 128 >= 1000 > starts[-2] + 128
    assert model.train().slices(1000)[1] == 32


def test_slice_targets_by_hand():
    model = models.build("tadtr", input_dim=4, num_classes=5)
    segments = torch.tensor(
        [[9.5, 41.5], [-30.5, 1.5], [100.0, 180.0]]
    )  # whole; nearly all cut off; cut by a third
    boxes, labels = model.slice_targets(0, 500, segments, torch.tensor([1, 2, 3]))
    assert labels.tolist() == [1] and boxes[0].tolist() == pytest.approx([26 / 128, 32 / 128])


def test_a_perfect_prediction_costs_no_regression():
    from tal_lib.data import Batch

    model = models.build("tadtr", input_dim=4, num_classes=2).eval()
    batch = Batch(
        recordings=("r",),
        features=torch.zeros(1, 4, 100),
        mask=torch.ones(1, 100, dtype=torch.bool),
        durations=torch.ones(1),
        stride_s=torch.ones(1),
        window_s=torch.ones(1),
        classes=("a", "b"),
        segments=(torch.tensor([[9.5, 41.5]]),),
        labels=(torch.tensor([1]),),
    )
    logits, boxes, quality = model(batch.features)
    boxes = boxes.clone()
    boxes[..., 0, :] = torch.tensor([26 / 128, 32 / 128])
    logits = torch.full_like(logits, -20.0)
    logits[..., 0, 1] = 20.0
    losses = model.loss((logits, boxes, quality), batch)
    assert (
        float(losses["l1"]) < 1e-5 and float(losses["iou"]) < 1e-5 and float(losses["classification"]) < 1e-5
    )
