"""Losses of the published pyramids: numbers read off their authors' code on fixed inputs, and twins."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.data.batches import Item, collate
from tal_lib.models.parts.assignment import centre_assignment, least_cost_segments, pyramid_points
from tal_lib.models.parts.attention import GlobalAttention
from tal_lib.models.parts.losses import diou, sigmoid_focal
from tal_lib.models.parts.position import Sinusoids
from tal_lib.models.parts.pyramid import RANGES

SMALL = {"width": 32, "head_width": 32}
OPTIONS = {
    "actionformer": {},
    "tridet": {"bins": 4, "mlp_width": 16},
    "temporalmaxer": {},
    "action_mamba": {"state": 4},
}
POINTS = 63  # of 32 steps


def wave(*shape, phase):
    """Numbers that both codes can make."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float32) * 0.37 + phase).reshape(shape)


def outputs_of(name):
    logits = 2 * wave(1, POINTS, 3, phase=0.0)
    if name != "tridet":
        return logits, 3 * wave(1, POINTS, 2, phase=1.0).abs()
    bins = wave(1, POINTS, 2, 5, phase=1.0).abs()
    return logits, bins, 2 * wave(1, POINTS, 3, phase=2.0), 2 * wave(1, POINTS, 3, phase=3.0)


def batch_of(segments, labels, steps=32, valid=30):
    item = Item(
        recording="a",
        features=torch.zeros(4, steps),
        duration=10.0,
        stride_s=0.1,
        window_s=0.1,
        classes=("a", "b", "c"),
        segments=torch.tensor(segments, dtype=torch.float32).reshape(-1, 2),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    batch = collate([item])
    batch.mask[:, valid:] = False
    return batch


def small(name, **changed):
    torch.manual_seed(0)
    options = SMALL | OPTIONS[name] | changed
    return models.build(name, input_dim=4, num_classes=3, preset="paper", **options).train()


SEGMENTS, LABELS = [[2, 6], [3, 19.5], [4, 28], [4, 8], [20, 24]], [0, 1, 2, 1, 1]
# of the authors' code: class loss, regression loss, and the norm of each output's gradient
PUBLISHED = {
    "actionformer": (0.69356227, 0.06522003, (0.06455899, 0.01160338)),
    "tridet": (0.69065320, 0.09049694, (0.06447431, 0.006297668, 0.004381611, 0.005077414)),
    "temporalmaxer": (0.69356227, 0.06088136, (0.06455899, 0.01192620)),
    # a copy of ActionFormer's code
    "action_mamba": (0.69356227, 0.06522003, (0.06455899, 0.01160338)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_and_gradients_are_those_of_the_authors_code(name):
    classification, regression, gradients = PUBLISHED[name]
    model, outputs = small(name), [output.requires_grad_() for output in outputs_of(name)]
    losses = model.loss(tuple(outputs), batch_of(SEGMENTS, LABELS))
    losses["total"].backward()
    assert float(losses["classification"]) == pytest.approx(classification, rel=1e-6)
    assert float(losses["regression"]) == pytest.approx(regression, rel=1e-6)
    assert [float(output.grad.norm()) for output in outputs] == pytest.approx(gradients, rel=1e-5)
    assert float(model.positives) == pytest.approx(91.4)  # 0.9 · 100 + 0.1 · 14 positives


OURS = [
    ("actionformer", {"closed_ranges": False}),
    ("tridet", {"iou_gradient": False}),
    ("tridet", {"closed_ranges": False}),
    ("temporalmaxer", {"assignment": "centre"}),
    ("action_mamba", {"closed_ranges": False}),
]


@pytest.mark.parametrize(("name", "option"), OURS, ids=str)
def test_each_option_moves_the_gradient_away_from_theirs(name, option):
    outputs = [output.requires_grad_() for output in outputs_of(name)]
    small(name, **option).loss(tuple(outputs), batch_of(SEGMENTS, LABELS))["total"].backward()
    got = [float(output.grad.norm()) for output in outputs]
    assert got != pytest.approx(PUBLISHED[name][2], rel=1e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recordings_without_segments_have_a_loss(name):
    outputs = [output.requires_grad_() for output in outputs_of(name)]
    losses = small(name).loss(tuple(outputs), batch_of([], []))
    losses["total"].backward()
    assert float(losses["regression"]) == 0 and torch.isfinite(losses["total"])
    assert all(output.grad is None or torch.isfinite(output.grad).all() for output in outputs)


def test_a_tiou_of_zero_has_a_finite_gradient():
    """The derivative of tIoU^0.2 is infinite there."""
    logits, bins, start, end = outputs_of("tridet")
    bins = torch.zeros_like(bins)  # all mass on the bin at the point itself, on both sides
    bins[..., 0, -1] = bins[..., 1, 0] = 1e4
    outputs = [output.requires_grad_() for output in (logits, bins, start, end)]
    small("tridet").loss(tuple(outputs), batch_of(SEGMENTS, LABELS))["total"].backward()
    assert all(torch.isfinite(output.grad).all() for output in outputs)


@pytest.mark.parametrize(("closed", "levels"), [(False, [1]), (True, [0, 1])])
def test_a_distance_at_the_end_of_a_range(closed, levels):
    points = pyramid_points(9, ((0, 4), (4, 8)))
    segments, labels = torch.tensor([[0.0, 8.0]]), torch.tensor([0])
    _, _, positive = centre_assignment(points, segments, labels, 1, closed=closed)
    at_four = positive & (points.position == 4)
    assert at_four.nonzero().flatten().tolist() == [[4, 11][level] for level in levels]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_the_segment_of_least_cost(seed, count):
    generator = torch.Generator().manual_seed(seed)
    points = pyramid_points(20, RANGES)
    start = (torch.rand(count, generator=generator) * 20).round()
    segments = torch.stack([start, start + 1 + (torch.rand(count, generator=generator) * 9).round()], 1)
    labels = torch.randint(3, (count,), generator=generator)
    logits = torch.randn(len(points.position), 3, generator=generator)
    reach = torch.rand(len(points.position), 2, generator=generator) * 6
    predicted = torch.stack([points.position - reach[:, 0], points.position + reach[:, 1]], 1)
    got = least_cost_segments(points, segments, labels, logits, predicted)
    for row, t in enumerate(points.position.tolist()):
        costs = {}
        for n, (s, e) in enumerate(segments.tolist()):
            if s <= t <= e:
                target = F.one_hot(labels[n], 3).float()
                costs[n] = float(
                    sigmoid_focal(logits[row], target).sum() + 2 * diou(predicted[row], segments[n])
                )
        if costs:
            chosen = [n for n, cost in costs.items() if cost <= min(costs.values()) + 1e-5]
            assert got[row].tolist() in [segments[n].tolist() for n in chosen]


# starts, positions, windows


@pytest.mark.parametrize("name", PUBLISHED)
def test_biases_start_at_zero_but_for_the_prior(name):
    starts = {key: value.detach() for key, value in small(name).named_parameters() if key.endswith(".bias")}
    prior = -torch.log(torch.tensor(99.0))
    for key in [key for key in starts if key.endswith("scan.step.bias")]:
        sizes = F.softplus(starts.pop(key))  # of Mamba's steps: the authors exempt them from zero
        assert 1e-3 * 0.99 <= float(sizes.min()) < float(sizes.max()) <= 0.1 * 1.01
        assert float(sizes.log().std()) == pytest.approx(4.605 / 12**0.5, rel=0.3)  # log-uniform
    for key, value in starts.items():
        expected = prior if key in ("class_out.bias", "start_out.bias", "end_out.bias") else torch.tensor(0.0)
        torch.testing.assert_close(value, expected.expand_as(value), msg=key)
    if name != "temporalmaxer":  # has linear layers in its pyramid
        uniform = dict(small(name, bias_init="uniform").named_parameters())
        assert any(float(uniform[key].abs().max()) > 0 for key in starts if "mlp" in key or "scan" in key)


def test_the_released_start_keeps_the_kernels_of_sgp_at_zero():
    """Each branch is a product of two kernels that are both zero, so neither has a gradient."""
    model = small("tridet")
    model.forward(torch.randn(2, 4, 64))[0].square().sum().backward()
    kernels = [
        getattr(block, name)
        for block in [*model.stem, *model.branch]
        for name in ("psi", "fc", "convw", "convkw", "global_fc")
    ]
    assert all(float(kernel.weight.abs().max()) == 0 for kernel in kernels)
    assert all(float(kernel.weight.grad.abs().max()) == 0 for kernel in kernels)


def test_positions_are_those_of_the_authors_code():
    table = Sinusoids(192, 256)(torch.zeros(1, 192, 256))[0]
    assert table[5, :4].tolist() == pytest.approx([-0.0599, 0.0177, -0.0624, -0.0037], abs=5e-5)
    assert float(table[191, 100]) == pytest.approx(-0.0543, abs=5e-5)


@pytest.mark.parametrize("steps", [1, 100, 192, 193, 500])
def test_positions_stretch_beyond_their_table(steps):
    layer, x = Sinusoids(192, 8), torch.randn(2, steps, 8)
    rows = layer.table.T[None]
    stretched = F.interpolate(rows, steps, mode="linear", align_corners=False) if steps > 192 else rows
    want = x + stretched[..., :steps].transpose(1, 2)
    torch.testing.assert_close(layer(x), want, atol=1e-5, rtol=0)
    keep = torch.ones(2, steps, 1)
    keep[1, steps // 2 :] = 0
    assert torch.equal(layer(x, keep)[1, steps // 2 :], x[1, steps // 2 :])


def test_global_attention_sees_every_valid_step_and_no_other():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 11, 8)
    keep = torch.ones(2, 11, 1)
    keep[1, 7:] = 0
    got = GlobalAttention(2)(q, k, v, keep)
    for row, length in ((0, 11), (1, 7)):
        for head in (slice(0, 4), slice(4, 8)):
            scores = q[row, :, head] @ k[row, :length, head].T / 2
            torch.testing.assert_close(got[row, :, head], scores.softmax(-1) @ v[row, :length, head])
    torch.testing.assert_close(GlobalAttention(2)(q, k, v), GlobalAttention(2)(q, k, v, torch.ones(2, 11, 1)))


@pytest.mark.parametrize(
    ("option", "text"), [({"global_levels": 6}, "at most 5"), ({"position_steps": -1}, "position_steps")]
)
def test_options_of_activitynet_are_checked(option, text):
    with pytest.raises(TalError, match=text):
        models.build("actionformer", input_dim=4, num_classes=1, **option)


def test_presets_of_activitynet():
    """Read off their settings `anet_tsp.yaml`."""
    actionformer, tridet = (models.config(name, "paper_activitynet") for name in ("actionformer", "tridet"))
    assert actionformer.ranges == tridet.ranges == RANGES
    assert (actionformer.position_steps, tridet.position_steps) == (192, 768)
    assert (actionformer.regression_weight, tridet.regression_weight) == (2.0, 1.0)
    model = models.build("actionformer", input_dim=8, num_classes=1, preset="paper_activitynet")
    kinds = [type(block.attention).__name__ for block in [*model.stem, *model.branch]]
    assert kinds == ["LocalAttention"] * 6 + ["GlobalAttention"]
    model = models.build("tridet", input_dim=8, num_classes=1, preset="paper_activitynet")
    assert [block.convkw.kernel for block in (model.stem[0], model.branch[0])] == [3, 21]
    assert [block.psi.kernel for block in (model.stem[0], model.branch[0])] == [1, 15]
