"""The published codes' own numbers, read off from runs of them: parameters, losses, sampling, soft-NMS."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.models.bmn import by_duration
from tal_lib.models.parts.proposals import (
    boundary_candidates,
    curve_targets,
    inside,
    pair_boundaries,
    sampled_by_overlap,
)
from tal_lib.models.parts.sampling import Sampling, proposal_grid, sampling_weights
from tal_lib.models.tcanet import TCANet
from tal_lib.segments import soft_nms, tiou

STEPS = 100
ROW, COLUMN = torch.arange(STEPS)[:, None], torch.arange(STEPS)[None]
SEGMENTS = torch.tensor([[10.0, 45.5], [60.2, 66.0], [71.0, 99.0], [88.0, 100.0]])
START, END = ((torch.arange(STEPS) * 3) % 11 + 1) / 12, ((torch.arange(STEPS) * 5) % 13 + 1) / 14
REGRESSION, CLASSIFICATION = ((ROW + 2 * COLUMN) % 7 + 1) / 8, ((3 * ROW + COLUMN) % 5 + 1) / 6
DRAWS = [((7 * ROW + 3 * COLUMN) % 10) / 10, ((3 * ROW + 7 * COLUMN) % 10) / 10]


def without_classifier(model) -> int:
    return sum(
        weight.numel() for name, weight in model.named_parameters() if not name.startswith("classifier")
    )


@pytest.mark.parametrize("preset", ["paper", "paper_activitynet"])
def test_parameters_are_the_published(preset):
    bmn, bsn, tcanet = (
        models.build(name, input_dim=400, num_classes=200, preset=preset) for name in ("bmn", "bsn", "tcanet")
    )
    assert without_classifier(bmn) == 4_978_564
    assert without_classifier(bsn) == 1_412_100
    assert sum(weight.numel() for weight in tcanet.regressors[0].parameters()) == 2_618_885
    assert without_classifier(tcanet) - sum(w.numel() for w in tcanet.generator.parameters()) == 10_839_055


def narrow(name, **options):
    """A published preset, narrow where the width does not matter."""
    return models.build(name, input_dim=4, num_classes=2, preset="paper_activitynet", **options)


def test_bmn_losses_are_the_published():
    """Start, end and both maps given by formulas; the draws of the overlap sampling too."""
    model = narrow("bmn", base_width=4, width=4, sampled_width=4, map_width=4, classifier_width=4)
    maps = torch.stack([CLASSIFICATION, REGRESSION], -1).double().logit()[None]
    outputs = torch.stack([START, END], -1).double().logit()[None], by_duration(maps, STEPS)
    draws = [by_duration(draw[None, ..., None], STEPS)[..., 0] for draw in DRAWS]
    with mock.patch.object(torch, "rand", side_effect=draws):
        losses = model.proposal_loss(outputs, [SEGMENTS], torch.ones(1, STEPS, dtype=torch.bool))
    assert float(losses["curves"]) == pytest.approx(2.0039167, abs=1e-5)
    assert float(losses["map_classification"]) == pytest.approx(0.8533896, abs=1e-5)
    assert float(losses["map_regression"]) == pytest.approx(10 * 0.0677768, abs=1e-5)


def test_bmn_positive_steps_are_the_published():
    targets = curve_targets(SEGMENTS, STEPS, 0.0, 1.5) > 0.5
    assert targets[:, :2].sum(0).tolist() == [12, 7]


def test_bmn_samples_are_the_published():
    """Sum of the published sampling matrix over (step + 1) · (point + 1), in a window of 12 steps."""
    how = Sampling(points=32, samples=3, context=0.5, context_steps=1.0, hold_start=True)
    want = {(0, 1): 1072.379, (0, 12): 1802.833, (3, 7): 3943.327, (8, 12): 2472.298}
    rows, share = sampling_weights(torch.tensor(list(want), dtype=torch.float), 12, how)
    got = (share * (rows // 32 + 1) * (rows % 32 + 1)).sum(1)
    assert got.tolist() == pytest.approx(list(want.values()), abs=2e-3)


def test_bsn_loss_is_the_published():
    model = narrow("bsn", width=4, confidence_width=4, classifier_width=4)
    curves = torch.stack([START, END, CLASSIFICATION[0]], -1)[None].logit()
    nothing = torch.zeros(1, 1, 2), torch.zeros(1, 1), torch.zeros(1, 1)
    losses = model.proposal_loss((curves, *nothing), [SEGMENTS - 0.5], torch.ones(1, STEPS, dtype=torch.bool))
    assert float(losses["curves"]) == pytest.approx(3.5628943, abs=1e-3)  # they add 1e-5 in the logarithm


def test_tcanet_losses_are_the_published():
    segments = torch.tensor([[1.0, 5.0], [2.0, 9.0], [10.0, 12.0], [0.0, 20.0], [30.0, 34.0], [31.0, 33.0]])
    truth = torch.tensor([[1.5, 5.0], [1.5, 5.0], [10.0, 13.0], [9.0, 13.0], [30.0, 34.0], [10.0, 13.0]])
    answers = torch.tensor(
        [
            [0.1, -0.2, 0.3, 0.4, 0.5],
            [0.2, 0.1, -0.1, 0.0, -1.0],
            [0.0, 0.3, 0.1, 0.2, 2.0],
            [-0.3, 0.0, 0.1, 0.1, 0.0],
            [0.05, 0.02, -0.02, 0.1, 1.5],
            [0.1, 0.1, 0.1, 0.1, -0.5],
        ]
    )
    draws = torch.tensor([[0.1, 0.9, 0.8, 0.7, 0.2, 0.3], [0.9, 0.4, 0.5, 0.95, 0.6, 0.7]])
    stage, exists = torch.cat([segments, answers], 1)[None], torch.ones(1, 6, dtype=torch.bool)
    model = SimpleNamespace(config=models.config("tcanet", "paper"))
    with mock.patch.object(torch, "rand", side_effect=draws[:, None].unbind(0)):
        loss = TCANet.stage_loss(model, stage, exists, truth[None], 0.5)
    assert float(loss) == pytest.approx(0.0139208 + 0.0693630 + 0.0327183, abs=1e-5)


PROPOSALS = np.array(
    [
        [0.0, 0.5, 0.9],
        [0.05, 0.5, 0.8],
        [0.1, 0.45, 0.7],
        [0.6, 0.7, 0.6],
        [0.61, 0.71, 0.5],
        [0.0, 0.9, 0.4],
        [0.2, 0.3, 0.3],
    ]
)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (
            {"sigma": 0.4, "low": 0.5, "high": 0.9},  # BMN
            [
                [0.9, 0.0, 0.5],
                [0.7, 0.1, 0.45],
                [0.6, 0.6, 0.7],
                [0.4, 0.0, 0.9],
                [0.3, 0.2, 0.3],
                [0.09379, 0.61, 0.71],
            ],
        ),
        (
            {"sigma": 0.4, "power": 2.5},  # TCANet
            [
                [0.9, 0.0, 0.5],
                [0.6, 0.6, 0.7],
                [0.286879, 0.2, 0.3],
                [0.225222, 0.1, 0.45],
                [0.174163, 0.0, 0.9],
                [0.108911, 0.61, 0.71],
            ],
        ),
        (
            {"sigma": 0.75, "low": 0.65, "high": 0.9},  # BSN
            [
                [0.9, 0.0, 0.5],
                [0.7, 0.1, 0.45],
                [0.6, 0.6, 0.7],
                [0.4, 0.0, 0.9],
                [0.3, 0.2, 0.3],
                [0.204803, 0.61, 0.71],
                [0.121271, 0.05, 0.5],
            ],
        ),
    ],
)
def test_soft_nms_is_the_published(options, want):
    segments, scores, _ = soft_nms(PROPOSALS[:, :2], PROPOSALS[:, 2], min_score=0.0, span=1.0, **options)
    got = np.concatenate([scores[:, None], segments], 1)
    np.testing.assert_allclose(got[: len(want)], want, atol=2e-6)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    low=st.sampled_from([0.0, 0.3, 0.5]),
    power=st.sampled_from([2.0, 2.5]),
    classes=st.integers(1, 3),
)
def test_soft_nms_from_a_tiou_on_is_the_loop(seed, count, low, power, classes):
    """A score decays only above a tIoU that grows with the kept segment's length."""
    rng = np.random.default_rng(seed)
    start, scores = rng.uniform(0, 8, count), rng.uniform(0.1, 1, count).astype(np.float32)
    segments = np.stack([start, start + rng.uniform(0.5, 4, count)], 1).astype(np.float32)
    labels, want = rng.integers(0, classes, count), []
    for label in range(classes):
        boxes, left = segments[labels == label], scores[labels == label].astype(float)
        while len(left):
            best = int(left.argmax())
            want.append((left[best], *boxes[best], label))
            overlap = tiou(boxes, boxes[best])
            length = boxes[best, 1] - boxes[best, 0]
            decayed = np.exp(-(overlap**power) / 0.4) * left
            left = np.where(overlap > low + (0.9 - low) * length / 10, decayed, left)
            boxes, left = np.delete(boxes, best, 0), np.delete(left, best)
    kept, values, kept_labels = soft_nms(
        segments, scores, labels, sigma=0.4, min_score=0.0, power=power, low=low, high=0.9, span=10.0
    )
    want = np.array(sorted(want, reverse=True))
    np.testing.assert_allclose(values, want[:, 0], atol=1e-5)
    np.testing.assert_allclose(
        np.sort(np.concatenate([kept, kept_labels[:, None]], 1), 0), np.sort(want[:, 1:], 0), atol=1e-5
    )


# up to the edge


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    steps=st.integers(1, 9),
    valid=st.integers(1, 9),
    duration=st.integers(1, 9),
    edge=st.booleans(),
    every=st.booleans(),
    ends=st.booleans(),
)
def test_pairs_reach_the_edge(seed, steps, valid, duration, edge, every, ends):
    """Every pair against the rule, written out: a pair may end one step behind the last valid step."""
    generator, valid, duration = torch.Generator().manual_seed(seed), min(valid, steps), min(duration, steps)
    start, end = torch.rand(2, 1, steps, generator=generator)
    keep = (torch.arange(steps) < valid).float()[None, :, None]
    scores, allowed = pair_boundaries(
        start, end, keep, duration, edge=edge, every=every, ends_are_candidates=ends
    )
    masked = (start * keep[..., 0], end * keep[..., 0])
    starts, stops = ((boundary_candidates(curve)[0] | every).tolist() for curve in masked)
    if ends:
        for candidates in (starts, stops):
            candidates[0] = candidates[valid - 1] = True
    for t in range(steps):
        for d in range(1, duration + 1):
            last = min(t + d, valid - 1)
            want = t < valid and starts[t] and t + d <= (valid if edge else valid - 1) and stops[last]
            assert bool(allowed[0, t, d - 1]) == want, (t, d)
            if want:
                assert float(scores[0, t, d - 1]) == pytest.approx(float(start[0, t] * end[0, last]))


def test_what_covers_valid_steps_is_inside():
    keep = (torch.arange(6) < torch.tensor([[6], [4]])).float()
    grid = proposal_grid(6, 4)
    for index, valid in enumerate((6, 4)):
        assert torch.equal(inside(keep, 4)[index], grid[..., 1] <= valid)


@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_a_segment_up_to_the_end_of_the_window_can_be_learned(preset):
    """Its place of the map has features, counts in the loss, and is proposed."""
    torch.manual_seed(0)
    options = {"window": 12, "overlap": 4, "max_duration": 8, "classifier_width": 8}
    model = models.build("bmn", input_dim=4, num_classes=2, preset=preset, **options).eval()
    x, keep = torch.randn(1, 12, 4), torch.ones(1, 12, 1)
    maps = model.confidence(model.encode(x, keep), keep).detach()[0]  # (T, D, 2)
    for duration in range(2, 8):
        changed = x.clone()
        changed[0, 12 - duration] += 1
        other = model.confidence(model.encode(changed, keep), keep).detach()[0]
        assert not torch.equal(maps[12 - duration, duration - 1], other[12 - duration, duration - 1])
    curves = torch.full((1, 12, 2), -4.0)
    curves[0, 6, 0], curves[0, 11, 1] = 4.0, 4.0
    maps = torch.full((1, 12, 8, 2), -4.0)
    maps[0, 6, 5] = 4.0  # [6, 12]
    wrong = maps.clone()
    wrong[0, 6, 5] = -4.0
    segments, valid = [torch.tensor([[6.0, 12.0]])], keep[..., 0] > 0
    right, missed = (
        sum(map(float, model.proposal_loss((curves, each), segments, valid).values()))
        for each in (maps, wrong)
    )
    assert right < missed


def test_published_inference_leaves_out_what_ends_at_the_edge():
    """`edge_proposals`: at their inference an end needs a step of its own."""
    torch.manual_seed(0)
    x, keep = torch.randn(1, STEPS, 4), torch.ones(1, STEPS, 1)
    small = {"base_width": 4, "width": 4, "sampled_width": 4, "map_width": 4, "classifier_width": 4}
    for edge, count in ((False, 99 * 100 // 2), (True, 100 * 101 // 2)):
        model = narrow("bmn", proposals=STEPS * STEPS, edge_proposals=edge, **small).eval()
        _, segments, scores = model.windows(x, keep)
        assert int((scores > 0).sum()) == count
        assert (float(segments[scores > 0][:, 1].max()) == STEPS) == edge


# sampling of overlaps


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 200))
def test_sampled_overlaps_by_hand(seed, count):
    generator = torch.Generator().manual_seed(seed)
    loss, overlap = torch.rand(2, count, generator=generator)
    valid = torch.rand(count, generator=generator) > 0.2
    draws = list(torch.rand(2, count, generator=generator))
    with mock.patch.object(torch, "rand", side_effect=list(draws)):
        got = float(sampled_by_overlap(loss, overlap, valid))
    groups = [[], [], []]  # high, middle, low
    for index in range(count):
        if valid[index]:
            value = float(overlap[index])
            groups[0 if value > 0.7 else 1 if value > 0.3 else 2].append(index)
    chosen = list(groups[0])
    for group, draw in zip(groups[1:], draws):
        chance = min(1.0, len(groups[0]) / max(1, len(group)))
        chosen += [index for index in group if float(draw[index]) > 1 - chance + 1e-7]
    want = float(loss[chosen].mean()) if chosen and groups[0] else 0.0
    assert got == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("bmn", {"least_share": 0.5}, "least_share: 0.5 is not below 0.5"),
        ("bsn", {"least_share": 0.7}, "least_share: 0.7 is not below 0.5"),
        ("bmn", {"map_axis": "width"}, "map_axis"),
        ("prn", {"map_axis": "end"}, "map_axis: end has no duration axis"),
        ("bmn", {"nms_span": 0}, "nms_span"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, problem):
    with pytest.raises(TalError, match=problem):
        models.build(name, input_dim=4, num_classes=2, **options)
