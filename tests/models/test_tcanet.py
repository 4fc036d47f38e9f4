"""Local-global attention and boundary regression against what the paper says, entry by entry."""

from dataclasses import replace

import pytest
import torch

from tal_lib import models
from tal_lib.data import collate, make_item
from tal_lib.models.parts.attention import LGTE
from tal_lib.models.parts.sampling import sample_linear
from tal_lib.models.tcanet import TBR, best_targets, refine, wanted_offsets


def test_half_of_the_heads_see_a_window_and_half_everything():
    allowed = LGTE(16, heads=4, window=5, feed_forward=8).allowed(9)
    for head in range(4):
        for i in range(9):
            for j in range(9):
                assert bool(allowed[head, i, j]) == (head >= 2 or abs(i - j) <= 2)


def test_encoder_is_masked_attention_written_out():
    torch.manual_seed(0)
    layer, x = LGTE(8, heads=2, window=3, feed_forward=6).eval(), torch.randn(1, 7, 8)
    keep = (torch.arange(7) < 5).float()[None, :, None]
    q, k, v = layer.qkv(x[0]).chunk(3, -1)
    mixed = torch.zeros(7, 8)
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        for i in range(5):
            seen = [j for j in range(5) if head == 1 or abs(i - j) <= 1]
            weight = torch.softmax(torch.stack([q[i, part] @ k[j, part] / 2 for j in seen]), 0)
            mixed[i, part] = sum(w * v[j, part] for w, j in zip(weight, seen))
    y = layer.norm1(x[0] + layer.mix(mixed))
    want = layer.norm2(y + layer.shrink(torch.relu(layer.grow(y))))
    got = layer(x, keep)
    torch.testing.assert_close(got[0, :5], want[:5])
    assert got[0, 5:].abs().sum() == 0


def test_refinement_is_the_mean_of_two_decodings():
    segment, offsets = torch.tensor([[10.0, 20.0]]), torch.tensor([[0.1, -0.2, 1.0, 2.0]])
    ends = (10 + 0.1 * 10, 20 - 0.2 * 10)
    centre, width = 15 + 0.1 * 1.0 * 10, 10 * torch.tensor(0.2 * 2.0).exp().item()
    want = [(ends[0] + centre - width / 2) / 2, (ends[1] + centre + width / 2) / 2]
    assert refine(segment, offsets)[0].tolist() == pytest.approx(want)


def test_wanted_offsets_lead_to_the_target():
    torch.manual_seed(0)
    start, length = torch.rand(50, 1) * 40, torch.rand(50, 1) * 20 + 2
    segments = torch.cat([start, start + length], 1)
    targets = segments + (torch.rand(50, 2) - 0.5) * 0.4 * length
    torch.testing.assert_close(
        refine(segments, wanted_offsets(segments, targets)), targets, atol=1e-4, rtol=1e-4
    )


def test_regressor_looks_half_a_length_around_the_ends():
    """What is neither inside nor within a quarter of the length of an end changes nothing."""
    torch.manual_seed(0)
    light = TBR(8, points=4, groups=2, light=True, beyond=False)
    for head in (*light.ends, light.whole):
        torch.nn.init.normal_(head[-1].weight)
    x, segments, lengths = torch.randn(1, 40, 8), torch.tensor([[[12.0, 20.0]]]), torch.tensor([40])
    layer = lambda x, segments: light(x, segments, lengths)
    answer = layer(x, segments)
    far, near = x.clone(), x.clone()
    far[:, :9], far[:, 24:] = 7, 7
    near[:, 22] = 7
    torch.testing.assert_close(layer(far, segments), answer)
    assert not torch.allclose(layer(near, segments)[..., 1], answer[..., 1])
    assert torch.allclose(layer(near, segments)[..., 0], answer[..., 0])  # the start does not see the end


def test_published_regressor_samples_beyond_the_ends_and_inside_the_recording():
    """32 + 64 + 32 middles of equal parts: of the half length before, the segment, the half length behind."""
    layer = TBR(8, points=32, groups=2)
    x, segments = torch.randn(1, 60, 8), torch.tensor([[[12.0, 20.0], [1.0, 5.0], [50.0, 58.0]]])
    want = {
        0: [(8, 12), (-0.5, 1), (46, 50)],
        1: [(12, 20), (1, 5), (50, 54.5)],
        2: [(20, 24), (5, 7), (54.5, 54.5)],
    }
    for part, region in enumerate(layer.regions(segments)):
        points = 64 if part == 1 else 32
        got = layer.sample(x, region, points, torch.tensor([55]))
        for index, (low, high) in enumerate(want[part]):
            at = torch.tensor([low + (high - low) * (k + 0.5) / points for k in range(points)])
            torch.testing.assert_close(got[index], sample_linear(x[0], at).T, atol=1e-4, rtol=1e-4)


def test_published_offsets_are_followed_in_part():
    """At inference a fifth of the start and end offsets; targets of centre and width are not divided."""
    segment, target = torch.tensor([[10.0, 20.0]]), torch.tensor([[12.0, 26.0]])
    offsets = wanted_offsets(segment, target, scaled=False)
    assert offsets[0].tolist() == pytest.approx([0.2, 0.6, 0.4, torch.tensor(1.4).log().item()])
    ends = (10 + 0.2 * 0.2 * 10, 20 + 0.2 * 0.6 * 10)
    centre, width = 15 + 0.1 * 0.4 * 10, 10 * 1.4**0.2
    want = [(ends[0] + centre - width / 2) / 2, (ends[1] + centre + width / 2) / 2]
    assert refine(segment, offsets, 0.2)[0].tolist() == pytest.approx(want)


def small_tcanet(**options):
    """A narrow model with the published options."""
    published = {"regressor": "published", "end_regions": "beyond", "boundary_scale": 0.2}
    published |= {"scaled_targets": False, "match": "once", "through": True, "overlap_sampling": "random"}
    published |= {"confidence_beta": 1.0, "final_confidence": "last"}
    return models.build("tcanet", input_dim=6, num_classes=2, width=16, **(published | options)).eval()


def test_final_confidence_is_the_last_or_the_product():
    torch.manual_seed(0)
    segments, scores = torch.tensor([[[3.0, 9.0]]]), torch.tensor([[0.5]])
    x, lengths = torch.randn(1, 30, 16), torch.tensor([30])
    model = small_tcanet()
    stages, _, last = model.refined(x, segments, scores, lengths)
    confidences = [stage[..., 6].sigmoid() for stage in stages.split(7, -1)]
    torch.testing.assert_close(last, scores * confidences[2])
    model.config = replace(model.config, final_confidence="product")
    product = model.refined(x, segments, scores, lengths)[2]
    torch.testing.assert_close(product, scores * confidences[0] * confidences[1] * confidences[2])


@pytest.mark.parametrize("through", [False, True])
def test_gradients_pass_from_a_refinement_to_the_one_before(through):
    torch.manual_seed(0)
    model = small_tcanet(through=through)
    stages, _, _ = model.refined(
        torch.randn(1, 30, 16), torch.tensor([[[3.0, 9.0]]]), torch.ones(1, 1), torch.tensor([30])
    )
    first = model.regressors[0].whole[-1].weight
    (gradient,) = torch.autograd.grad(stages[..., -1].sum(), first, allow_unused=True)
    assert (gradient is not None and float(gradient.abs().sum()) > 0) == through


def test_proposals_keep_their_first_targets_or_choose_again():
    truth = (torch.tensor([[0.0, 10.0], [20.0, 40.0]]), torch.zeros(0, 2))
    segments = torch.tensor([[[1.0, 9.0], [15.0, 30.0]], [[1.0, 9.0], [2.0, 3.0]]])
    assert best_targets(segments, truth).tolist() == [[[0, 10], [20, 40]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("generator", ["actionformer", "bsn"])
def test_any_model_may_propose(generator, small):
    batch = collate([make_item(small, recording) for recording in small.recordings("train")[:2]])
    model = models.build(
        "tcanet", input_dim=small.feature_spec.dim, num_classes=len(small.classes), generator=generator
    )
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert list(model.detect(batch)[0].columns) == ["recording", "start", "end", "label", "score"]


def test_attention_drops_weights_in_training_only():
    torch.manual_seed(0)
    x, keep = torch.randn(1, 20, 8), torch.ones(1, 20, 1)
    for rate in (0.0, 0.5):
        layer = LGTE(8, heads=2, window=5, feed_forward=8, attention_dropout=rate)
        layer.drop.p = 0.0
        assert torch.equal(layer(x, keep), layer(x, keep)) == (rate == 0)
        assert torch.equal(layer.eval()(x, keep), layer(x, keep))
