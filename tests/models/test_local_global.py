import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data.batches import Item, collate
from tal_lib.models.parts.pyramid import At


def build(**options):
    torch.manual_seed(0)
    return models.build("local_global", input_dim=12, num_classes=3, **options).eval()


def test_what_a_recording_shares_does_not_change_its_scores():
    """A constant on the features, such as a sensor's offset, goes in the first norm."""
    model, features = build(norm="instance", embedding_kernel=1), torch.randn(1, 12, 64)
    shifted = features + 3 * torch.randn(1, 12, 1)
    with torch.no_grad():
        for output, shifted_output in zip(model(features), model(shifted)):
            torch.testing.assert_close(output, shifted_output, atol=2e-3, rtol=1e-3)
        plain = build(norm="layer")
        assert (plain(features)[0] - plain(shifted)[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    "options",
    [{"latents": 16}, {"level_blocks": True}, {"norm": "layer"}, {"kernels": (5,)}, {"embedding_kernel": 1}],
)
def test_each_part_can_be_changed(options):
    whole, without = build(), build(**options)
    count = lambda model: sum(parameter.numel() for parameter in model.parameters())
    assert count(whole) != count(without) or "norm" in options
    features = torch.randn(2, 12, 40)
    with torch.no_grad():
        assert [output.shape for output in whole(features)] == [output.shape for output in without(features)]


def test_half_of_the_channels_keep_what_a_recording_shares():
    """Instance norm forgets an offset of the whole recording, half a norm does not, and both see masks."""
    half, instance = build(), build(norm="instance", embedding_kernel=1)
    features = torch.randn(1, 12, 64)
    shifted = features + 3 * torch.randn(1, 12, 1)
    with torch.no_grad():
        changes = [float((model(features)[0] - model(shifted)[0]).abs().max()) for model in (half, instance)]
        assert changes[0] > 0.1 > changes[1]
        padded = torch.cat([features, 9 * torch.randn(1, 12, 20)], 2)
        mask = torch.arange(84)[None] < 64
        torch.testing.assert_close(
            half(padded, mask)[0][:, :64], half(features)[0][:, :64], atol=1e-4, rtol=1e-4
        )


def test_votes_are_trained_and_move_the_detections():
    model = build(vote_reach=4).train()
    item = Item(
        recording="a",
        features=torch.randn(12, 64),
        duration=64.0,
        stride_s=1.0,
        window_s=1.0,
        classes=("a", "b", "c"),
        segments=torch.tensor([[10.0, 30.0]]),
        labels=torch.tensor([1]),
    )
    batch = collate([item])
    outputs = model.run(batch)
    losses = model.loss(outputs, batch)
    assert float(losses["total"]) > float(losses["classification"] + losses["regression"])
    losses["total"].backward()
    assert model.votes.out.weight.grad.abs().sum() > 0
    at = At(torch.zeros(1, dtype=torch.long), torch.tensor([20]), torch.tensor([1]))
    points = model.points(64)
    assert not torch.equal(model.decode(outputs, points, at), model.decode_heads(outputs, points, at))


def test_the_second_regression_adds_segments_and_their_confidences():
    features, both = torch.randn(2, 12, 40), build(regressions="both", latents=16)
    with torch.no_grad():
        alone, more = build()(features), both(features)
    assert [part.shape[-1] for part in more] == [part.shape[-1] for part in alone] + [2, 2]


def test_the_pyramid_pools_unless_it_is_told_to_compute():
    assert sum(parameter.numel() for parameter in build().branch.parameters()) == 0
    assert sum(parameter.numel() for parameter in build(level_blocks=True).branch.parameters()) > 0


def test_an_unknown_norm_is_refused():
    with pytest.raises(TalError, match="layer, instance or half"):
        build(norm="batch")
