"""Local-global attention and boundary regression against what the paper says, entry by entry."""

import pytest
import torch

from tal_lib import models
from tal_lib.data import collate, make_item
from tal_lib.models.parts.attention import LGTE
from tal_lib.models.tcanet import TBR, refine, wanted_offsets


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
    layer, x, segments = TBR(8, points=4, groups=2), torch.randn(1, 40, 8), torch.tensor([[[12.0, 20.0]]])
    for head in (*layer.ends, layer.whole):
        torch.nn.init.normal_(head[-1].weight)
    answer = layer(x, segments)
    far, near = x.clone(), x.clone()
    far[:, :9], far[:, 24:] = 7, 7
    near[:, 22] = 7
    torch.testing.assert_close(layer(far, segments), answer)
    assert not torch.allclose(layer(near, segments)[..., 1], answer[..., 1])
    assert torch.allclose(layer(near, segments)[..., 0], answer[..., 0])  # the start does not see the end


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
