"""Deformable sampling against a loop, matching against all permutations, slices against their definition."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.data import Batch, collate, make_item
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.deformable import DeformableAttention, roi_align
from tal_lib.models.parts.sampling import sample_linear
from tal_lib.models.parts.set_matching import match, merge_overlaps, to_segments
from tal_lib.models.tadtr import TadTRConfig
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

    rows, columns = match(logits, boxes, labels, targets, c.costs)
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


# the published code


def wave(*shape, rate=1.0):
    """Numbers in [−1, 1] that need no random generator."""
    return torch.arange(math.prod(shape)).double().mul(rate).sin().float().reshape(shape)


def aligned(x, start, end, bins):
    """The authors' RoIAlign of one segment, sample by sample: (L, C) → (bins, C)."""
    length, size, result = len(x), max(end - start, 1.0), []
    grid = math.ceil(size / bins)
    for index in range(bins):
        total = torch.zeros(x.shape[1])
        for sample in range(grid):
            t = start + index * size / bins + (sample + 0.5) * size / bins / grid
            if t > length:
                continue
            low = int(t)
            if low >= length - 1:
                total += x[-1]
            else:
                total += (low + 1 - t) * x[low] + (t - low) * x[low + 1]
        result.append(total / grid)
    return torch.stack(result)


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 40), bins=st.integers(1, 6), seed=st.integers(0, 1000))
def test_roi_align_equals_the_loop(steps, bins, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, steps, 3)
    segments = (torch.rand(1, 5, 2) * (steps + 4) - 2).clamp(0, steps).sort(-1).values
    got = roi_align(x, segments, bins)
    for q in range(5):
        want = aligned(x[0], *segments[0, q].tolist(), bins)
        torch.testing.assert_close(got[0, q], want, rtol=1e-4, atol=1e-4)


def test_the_heads_begin_where_the_published_ones_do():
    bias = DeformableAttention(64, 8, 4, "cosine").offsets.bias.detach().reshape(8, 4)
    side = torch.tensor([1.0, 0, -1, 0, 1, 0, -1, 0])
    torch.testing.assert_close(bias, side[:, None] * torch.arange(1.0, 5), atol=1e-5, rtol=0)


def test_the_paper_preset_has_the_published_size():
    model = models.build("tadtr", input_dim=2048, num_classes=20, preset="paper")
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_661_594
    # heads of all layers start equal, as copies of one; only the first box starts narrow
    first, last = model.refine[0], model.refine[-1]
    assert torch.equal(first[0].weight, last[0].weight) and torch.equal(
        model.classify[0].weight, model.classify[3].weight
    )
    assert first[-1].bias.tolist() == [0, -2] and last[-1].bias.tolist() == [0, 0]


def test_the_first_layer_refers_to_a_centre_alone():
    """Its width comes from the layer only: with zero heads a box is (sigmoid of the reference, 1/2)."""
    model = models.build("tadtr", input_dim=4, num_classes=2, preset="paper").eval()
    for refine in model.refine:
        torch.nn.init.zeros_(refine[-1].bias)
    boxes = model(torch.zeros(1, 4, 128))[1][0, 0, 0]
    reference = model.reference(model.query[:, 256:]).sigmoid()
    torch.testing.assert_close(boxes, torch.cat([reference, torch.full_like(reference, 0.5)], 1))


def test_losses_are_those_of_the_published_criterion():
    """Values read off their SetCriterion on the same outputs; two slices share the actionness targets."""
    model = models.build("tadtr", input_dim=4, num_classes=20, preset="paper").eval()
    layer = lambda k: (
        3 * wave(2, 40, 20, rate=0.37 + k) - 3,
        torch.stack([0.5 + 0.4 * wave(2, 40, rate=0.9 + k), 0.3 + 0.25 * wave(2, 40, rate=1.7 + k)], -1),
    )
    logits, boxes = (torch.stack(part, 1)[:, None] for part in zip(*map(layer, (1, 2, 3, 0))))
    to_steps = lambda *pairs: to_segments(torch.tensor(pairs)) * 128 - 0.5
    batch = Batch(
        recordings=("a", "b"),
        features=torch.zeros(2, 4, 128),
        mask=torch.ones(2, 128, dtype=torch.bool),
        durations=torch.ones(2),
        stride_s=torch.ones(2),
        window_s=torch.ones(2),
        classes=tuple(map(str, range(20))),
        segments=(to_steps([0.2, 0.1], [0.6, 0.3]), to_steps([0.5, 0.9])),
        labels=(torch.tensor([3, 7]), torch.tensor([0])),
    )
    losses = model.loss((logits, boxes, wave(2, 1, 40, rate=0.6)), batch)
    want = {"classification": 46.66986, "l1": 1.11292, "iou": 2.13717, "actionness": 0.24878}
    assert {name: float(losses[name]) for name in want} == pytest.approx(want, rel=1e-4)
    total = 2 * 46.66986 + 5 * 1.11292 + 2 * 2.13717 + 4 * 0.24878
    assert float(losses["total"]) == pytest.approx(total, rel=1e-4)
    own_slice = models.build(
        "tadtr", input_dim=4, num_classes=20, preset="paper", actionness_target="slice"
    ).eval()
    apart = own_slice.loss((logits, boxes, wave(2, 1, 40, rate=0.6)), batch)["actionness"]
    assert abs(float(apart) - want["actionness"]) > 1e-3


def test_only_what_reaches_into_an_overlap_is_suppressed():
    segments = torch.tensor([[0.0, 10], [1, 11], [90, 100], [92, 102], [91, 101], [95, 99]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), torch.tensor([0, 0, 0, 0, 1, 0])
    merged = merge_overlaps(Candidates(segments, scores, labels), [(96.0, 128.0)], 0.4)
    # 90–100 suppresses 92–102 (2/3), not 95–99 (0.4 exactly), nor the other class, nor what lies elsewhere
    kept = sorted(zip(merged.scores.tolist(), merged.labels.tolist()), reverse=True)
    assert [label for _, label in kept] == [0, 0, 0, 1, 0]
    assert [score for score, _ in kept] == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.4])
    assert len(merge_overlaps(Candidates(segments, scores, labels), [], 0.4).scores) == 6
    # in two overlaps: listed once
    twice = merge_overlaps(Candidates(segments, scores, labels), [(96.0, 128.0), (88.0, 93.0)], 0.4)
    assert len(twice.scores) == len(set(map(tuple, twice.segments.tolist())))


def test_the_best_of_each_slice_are_kept():
    model = models.build("tadtr", input_dim=4, num_classes=20, preset="paper").eval()
    outputs = model(torch.randn(1, 4, 128))
    assert len(model.candidates(outputs, torch.ones(1, 128, dtype=torch.bool))[0].scores) == 100
    every = outputs[0][0, 0, -1].sigmoid() * outputs[2][0, 0].sigmoid()[:, None]
    best = model.candidates(outputs, torch.ones(1, 128, dtype=torch.bool))[0].scores.min()
    assert int((every > best).sum()) == 99


def test_padding_of_the_published_form_changes_nothing_in_a_batch(small):
    """Steps behind the end take part, as zeros: each recording still gets what it gets alone."""
    torch.manual_seed(0)
    model = models.build(
        "tadtr", input_dim=small.feature_spec.dim, num_classes=len(small.classes), preset="paper"
    ).eval()
    items = [make_item(small, recording) for recording in small.recordings("test")]
    for item, table in zip(items, model.detect(collate(items))):
        alone = model.detect(collate([item]))[0]
        assert len(alone) == len(table)
        assert alone.score.to_numpy() == pytest.approx(table.score.to_numpy(), abs=1e-4)
