import pytest
import torch

from tal_lib import TalError, models


def build(**options):
    torch.manual_seed(0)
    return models.build("local_global", input_dim=12, num_classes=3, **options).eval()


def test_what_a_recording_shares_does_not_change_its_scores():
    """A constant on the features, such as a sensor's offset, goes in the first norm."""
    model, features = build(), torch.randn(1, 12, 64)
    shifted = features + 3 * torch.randn(1, 12, 1)
    with torch.no_grad():
        for one, other in zip(model(features), model(shifted)):
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
        plain = build(norm="layer")
        assert (plain(features)[0] - plain(shifted)[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    "options",
    [{"latents": 0}, {"level_blocks": True}, {"norm": "layer"}, {"kernels": (5,)}, {"embedding_kernel": 3}],
)
def test_each_part_can_be_left_out(options):
    whole, without = build(), build(**options)
    count = lambda model: sum(one.numel() for one in model.parameters())
    assert count(whole) != count(without) or "norm" in options
    features = torch.randn(2, 12, 40)
    with torch.no_grad():
        assert [one.shape for one in whole(features)] == [one.shape for one in without(features)]


def test_the_pyramid_pools_unless_it_is_told_to_compute():
    assert sum(one.numel() for one in build().branch.parameters()) == 0
    assert sum(one.numel() for one in build(level_blocks=True).branch.parameters()) > 0


def test_an_unknown_norm_is_refused():
    with pytest.raises(TalError, match="layer or instance"):
        build(norm="batch")
