import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.data import Batch, collate, make_item
from tal_lib.models.parts.assignment import inside_assignment, pyramid_points
from tal_lib.models.parts.boundary_contrast import choose_cut, spliced
from tal_lib.models.parts.boundary_pooling import (
    boundary_pooling,
    end_features,
    pool_regions,
    pooling_regions,
    range_max,
)
from tal_lib.models.parts.losses import giou
from tal_lib.models.parts.saliency import Downsampling
from tal_lib.models.parts.saliency_loss import boundary_contrast, boundary_targets
from tal_lib.training.distillation import Distillation, Distilled


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 50), seed=st.integers(0, 1000))
def test_range_max_equals_a_slice(steps, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, steps, 3)
    ends = torch.randint(steps, (2, 9, 2)).sort(-1).values
    got = range_max(x, ends[..., 0], ends[..., 1])
    for b in range(2):
        for p, (first, last) in enumerate(ends[b].tolist()):
            assert torch.equal(got[b, p], x[b, first : last + 1].amax(0))


def test_boundary_pooling_by_hand():
    x = torch.arange(20.0)[None, :, None].repeat(1, 1, 2)
    x[..., 1] = 19 - x[..., 1]  # the end half falls
    pooled = boundary_pooling(x, torch.tensor([[[4.0, 12.0]]]), torch.tensor([[20]]))
    # length 8: start region floor(3.2) … ceil(6), its maximum at the right;
    # end region floor(10) … ceil(12.8), its maximum at the left
    assert pooled[0, 0].tolist() == [6.0, 9.0]


def test_giou_by_hand():
    a, b = torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.tensor([[4.0, 6.0], [2.0, 6.0]])
    torch.testing.assert_close(giou(a, b), torch.tensor([1 + 2 / 6, 2 / 3]))


def test_cuts_are_actions_and_free_stretches():
    segments = torch.tensor([[2.0, 12.0], [12.0, 15.0], [22.0, 40.0]])
    for seed in range(20):
        torch.manual_seed(seed)
        (start, end), (first, last) = choose_cut(segments, 50)
        assert (start, end) in {(2, 12), (22, 40)}
        assert (first, last) in {(15, 22), (40, 50)} and last - first <= end - start
    assert choose_cut(segments[1:2], 50) is None  # too short an action
    assert choose_cut(torch.tensor([[0.0, 48.0]]), 50) is None  # too little background


def test_end_features_by_hand():
    x = torch.arange(40.0)[None, :, None]
    starts, ends = end_features(x, torch.tensor([[10.0, 20.0]]))
    assert starts.item() == 13 and ends.item() == 21  # [9, 12.5] and [17.5, 21], rounded outwards


def test_contrast_prefers_halves_that_are_alike(small):
    torch.manual_seed(0)
    batch = collate([make_item(small, recording) for recording in small.recordings("train")[:2]])
    model = models.build(
        "afsd", input_dim=small.feature_spec.dim, num_classes=len(small.classes), contrast_weight=0.1
    ).train()
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert 0 < float(losses["contrast"]) <= 10 and model.frame[0].conv.weight.grad.abs().sum() > 0
    # where all steps look alike every distance is zero, and each of the two terms is its margin
    batch.features.fill_(1.0)
    model.frame_features = lambda x, keep: torch.ones_like(x)
    assert float(model.contrast_loss(batch).detach()) == 2


# the published code


def wave(*shape, rate=1.0):
    """Numbers in [−1, 1] that need no random generator."""
    return torch.arange(math.prod(shape)).double().mul(rate).sin().float().reshape(shape)


def published(classes=2, inputs=4, **options):
    torch.manual_seed(0)
    return models.build("afsd", input_dim=inputs, num_classes=classes, preset="paper", **options)


def clip(segments, labels, steps=64, inputs=4):
    """One clip with segments in frames, four a step."""
    return Batch(
        recordings=("r",),
        features=torch.zeros(1, inputs, steps),
        mask=torch.ones(1, steps, dtype=torch.bool),
        durations=torch.ones(1),
        stride_s=torch.ones(1),
        window_s=torch.ones(1),
        classes=("a", "b"),
        segments=(torch.tensor(segments) / 4 - 0.5,),
        labels=(torch.tensor(labels),),
    )


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 30), seed=st.integers(0, 1000))
def test_pooling_equals_the_loop_of_the_kernel(steps, seed):
    """Regions beyond the ends, empty ones and reversed ones too; each recording has a length of its own."""
    torch.manual_seed(seed)
    x, valid = torch.randn(2, steps, 6), torch.tensor([[steps], [max(1, steps - 3)]])
    regions = (torch.rand(2, 12, 4) * 2 - 0.5) * steps
    got = pool_regions(x, regions, valid)
    for n in range(2):
        for k in range(12):
            for c in range(6):
                low, high = (
                    min(max(0, int(bound)), int(valid[n]) - 1)
                    for bound in regions[n, k, 2 * (c // 3) : 2 * (c // 3) + 2]
                )
                largest = x[n, low, c]
                for i in range(low + 1, high + 1):
                    largest = max(largest, x[n, i, c])
                assert got[n, k, c] == largest


def test_regions_are_rounded_and_never_too_small():
    regions = pooling_regions(torch.tensor([[10.0, 30.0], [5.0, 6.0]]))
    # length 20: a quarter inwards, a tenth outwards; length 1: at least 1 to either side
    assert regions.tolist() == [[8, 15, 25, 32], [4, 6, 5, 7]]
    assert pooling_regions(torch.tensor([10.0, 30.0]), extra=4.0).tolist() == [8, 16, 24, 32]


def test_an_output_of_a_downsampling_sees_three_steps_from_its_own():
    layer = Downsampling(2, 1)
    torch.nn.init.ones_(layer.conv.weight)
    layer.norm.forward = lambda x, keep: x  # the convolution alone
    seen = {}
    for steps in (7, 8):
        for step in range(steps):
            x = torch.zeros(1, steps, 2)
            x[0, step] = 1
            y, _ = layer(x)
            assert y.shape == (1, -(-steps // 2), 2)
            seen[steps, step] = y[0, :, 0].nonzero()[:, 0].tolist()
    assert seen[8, 4] == [1, 2] and seen[8, 5] == [2] and seen[8, 0] == [0] and seen[7, 6] == [2, 3]


def test_the_paper_preset_has_the_published_size():
    """12,403,765 parameters behind the layers that read I3D's maps, of 32,458,805 with those."""
    model = models.build("afsd", input_dim=2048, num_classes=20, preset="paper")
    inputs = sum(layer.conv.weight.numel() + 512 for layer in (model.embedding[0], model.branch[0]))
    assert sum(parameter.numel() for parameter in model.parameters()) - inputs == 12_403_765


def test_points_are_the_middles_of_their_strides_in_every_clip():
    model = published()
    points = model.points(128)  # clips begin at 0, 32 and 64
    each = 64 + 32 + 16 + 8 + 4 + 2
    assert len(points.position) == 3 * each and points.level_sizes == (64, 32, 16, 8, 4, 2) * 3
    assert points.position[[0, 1, 64, each, each + 64]].tolist() == [0, 1, 0.5, 32, 32.5]
    assert points.first[[0, 70, each, each + 70]].tolist() == [0, 64, each, each + 64]
    mask = torch.arange(128) < 70
    valid = model.level_mask(mask[None])[0]
    assert valid[:each].all() and int(valid[each : each + 64].sum()) == 38
    assert int(valid[2 * each : 2 * each + 64].sum()) == 6


def test_the_shortest_segment_around_a_point_is_its_target():
    points = pyramid_points(16, ((0, 5), (5, 10_000)))
    segments, labels = torch.tensor([[0.0, 12.0], [4.0, 8.0]]), torch.tensor([2, 1])
    classes, targets, positive = inside_assignment(points, segments, labels, 3)
    # level 0 up to a distance of 5: in 4 … 8 the short one; in the long one alone its distance is above 5
    assert positive[:16].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]
    assert classes[4:9].argmax(1).tolist() == [1] * 5 and targets[6].tolist() == [4, 8]
    # level 1 above 5: all points in the long segment, those in both have it, too
    assert (positive[16:].nonzero()[:, 0] * 2).tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert classes[16:23].argmax(1).tolist() == [2] * 7


def test_losses_are_those_of_the_published_criterion():
    """Values read off their MultiSegmentLoss on the same outputs."""
    model = published(contrast_weight=0.0).eval()
    points = model.points(64)
    distances = (30 + 20 * wave(1, 126, 2)) / 4 / points.stride[:, None]
    outputs = (
        3 * wave(1, 126, 3, rate=0.7),
        distances,
        2 * wave(1, 126, 3, rate=0.9),
        0.3 * wave(1, 126, 2, rate=1.3),
        wave(1, 126, 1, rate=0.5),
        torch.full((1, 256, 2), 0.5),
        torch.full((1, 64, 4), 0.5),
    )
    batch = clip([[20.0, 90.0], [60.0, 75.5], [150.0, 250.0]], [0, 1, 0])
    losses = model.loss(outputs, batch)
    want = {
        "regression": 0.54386,
        "classification": 0.99725,
        "offsets": 1.02732,
        "refined": 1.49948,
        "quality": 0.74909,
        "boundary": 2.4 * math.log(2),
    }
    assert {name: float(losses[name]) for name in want} == pytest.approx(want, abs=2e-5)
    total = 10 * (0.54386 + 1.02732) + 0.99725 + 1.49948 + 0.74909 + 2.4 * math.log(2)
    assert float(losses["total"]) == pytest.approx(total, abs=1e-3)


def test_boundaries_are_a_tenth_of_the_segment_and_at_least_two_frames():
    near = boundary_targets(torch.tensor([[40.0, 100.0], [10.4, 14.0]]), torch.arange(128))
    assert near[:, 0].nonzero()[:, 0].tolist() == [9, 10, 11, *range(37, 44)]
    assert near[:, 1].nonzero()[:, 0].tolist() == [13, 14, 15, *range(97, 104)]


def test_a_spliced_recording_has_the_same_steps_in_another_order():
    x, segments = torch.arange(60.0)[:, None], torch.tensor([[8.0, 20.0], [40.0, 43.5]])
    sides = set()
    for seed in range(20):
        torch.manual_seed(seed)
        altered, pieces = spliced(x, segments)
        assert sorted(altered[:, 0].tolist()) == x[:, 0].tolist()  # nothing is lost
        (a, b), (c, d), (first, last) = pieces.round().int().tolist()
        assert last - first == 4 and b == first and c == last  # the piece lies between the two parts
        assert (b - a) + (d - c) == 12  # which are the whole action
        inside = altered[first:last, 0]
        assert (inside.diff() == 1).all() and not ((inside >= 8) & (inside < 20)).any()
        assert altered[a, 0] == 8 and altered[d - 1, 0] == 19
        sides.add(bool(inside[0] > 20))
    assert sides == {True, False}  # from before and from behind
    assert spliced(x, segments[1:]) is None  # no action of more than twice the shortest
    assert spliced(x, torch.tensor([[0.0, 59.0], [58.0, 59.0]])) is None  # no room for a piece


def test_contrast_is_the_margin_where_all_looks_alike():
    pieces = torch.tensor([[3.0, 9.0], [13.0, 20.0], [9.0, 13.0]])
    assert float(boundary_contrast(torch.ones(1, 256, 8), pieces, 4, 1)) == pytest.approx(1, abs=1e-4)
    x = torch.zeros(1, 256, 8)
    x[0, 37:44, :4] = 5.0  # only the piece has a start: it is far from the action's inner ends
    assert float(boundary_contrast(x, pieces, 4, 1)) == 0


def test_the_published_form_trains_on_a_clip():
    model = published().train()
    batch = clip([[8.0, 120.0], [200.0, 216.0]], [0, 1])
    batch.features.copy_(torch.randn(1, 4, 64))
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert losses["contrast"] > 0 and all(
        torch.isfinite(parameter.grad).all() for parameter in model.parameters()
    )


@pytest.mark.parametrize("name", ["afsd", "gaf"])
def test_padding_changes_nothing_in_clips(name, small):
    torch.manual_seed(0)
    model = models.build(
        name, input_dim=small.feature_spec.dim, num_classes=len(small.classes), preset="paper"
    ).eval()
    items = [make_item(small, recording) for recording in small.recordings("test")]
    batch = collate(items)
    with torch.no_grad():
        batched = model.run(batch)
        for index, item in enumerate(items):
            alone = model.run(collate([item]))
            valid = model.level_mask(torch.ones(1, item.features.shape[1], dtype=torch.bool))[0]
            rows = len(valid)
            for part in range(5):
                torch.testing.assert_close(
                    batched[part][index, :rows][valid], alone[part][0, :rows][valid], atol=2e-4, rtol=1e-4
                )


def test_a_student_learns_over_several_clips():
    """Teacher and student see the same clips; their levels lie end to end, as the points do."""
    small = {"width": 64, "head_width": 64, "groups": 16}
    pair = Distilled(published(**small), published(**small), Distillation()).train()
    batch = clip([[8.0, 120.0], [200.0, 500.0]], [0, 1], steps=150)
    batch.features.copy_(torch.randn(1, 4, 150))
    losses = pair.loss(pair(batch.features, batch.mask), batch)
    losses["total"].backward()
    assert torch.isfinite(losses["total"]) and pair.adapter.weight.grad.abs().sum() > 0
