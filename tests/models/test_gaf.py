import math

import pytest
import torch

from tal_lib import models
from tal_lib.data import collate, make_item
from tal_lib.models.gaf import AttentionVAE, IntraAttention, normal_divergence


def test_divergence_by_hand():
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    wanted = (0.5 * (1 + 0.25 - 1) + 0.5 * (4 + 0.25 - 1 - math.log(4))) / 2
    assert float(normal_divergence(mean, log_variance, torch.tensor([[0.5]]))) == pytest.approx(wanted)
    a, b = (
        torch.distributions.Normal(m, s)
        for m, s in ((torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])), (0.5, 1.0))
    )
    assert float(torch.distributions.kl_divergence(a, b).mean()) == pytest.approx(wanted)


def test_the_two_steps_teach_one_side_each():
    vae, x = AttentionVAE(6, 4, 8, 1.0), torch.randn(20, 6)
    attention = torch.rand(20, 1, requires_grad=True)
    vae.generative_loss(x, attention.detach(), 0.1).backward()
    assert attention.grad is None and all(p.grad is not None for p in vae.parameters())
    vae.zero_grad(set_to_none=True)
    vae.attention_loss(x, attention).backward()
    assert attention.grad.abs().sum() > 0 and all(p.grad is None for p in vae.parameters())


def test_the_generative_model_finds_which_steps_differ():
    """Steps of two kinds: λ, taught by the reconstruction alone, comes to part them."""
    torch.manual_seed(0)
    kind = torch.rand(400) < 0.5
    x = torch.where(
        kind[:, None], torch.tensor([2.0, 0, 0, 0]), torch.tensor([0, 0, 0, 2.0])
    ) + 0.1 * torch.randn(400, 4)
    vae, logits = (
        AttentionVAE(4, 2, 16, 1.0),
        (0.5 * kind + 0.1 * torch.randn(400)).unsqueeze(1).requires_grad_(),
    )  # a first guess
    optimizer = torch.optim.Adam([*vae.parameters(), logits], lr=0.03)
    for _ in range(300):
        attention = logits.sigmoid()
        loss = vae.generative_loss(x, attention.detach(), 0.1) + vae.attention_loss(x, attention)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = logits.sigmoid().detach()[:, 0]
    assert abs(float(learned[kind].mean() - learned[~kind].mean())) > 0.5


def test_attention_weighs_steps_and_channels():
    torch.manual_seed(0)
    layer, x = IntraAttention(8), torch.rand(2, 10, 8)
    y, logits = layer(x, None)
    factor = y / x
    assert logits.shape == (2, 10, 1) and ((factor > 1) & (factor < 2)).all()
    gate = (factor - 1) / logits.sigmoid()
    assert torch.allclose(
        gate, gate[:, :1].expand_as(gate), atol=1e-4
    )  # a channel has one gate for all steps


@pytest.mark.parametrize(
    "options, removed",
    [
        ({"intra": False}, ("intra", "vae")),
        ({"inter": False}, ("inter",)),
        ({"generative_weight": 0.0}, ("vae",)),
        ({"intra": False, "inter": False}, ("intra", "inter")),
    ],
)
def test_parts_can_be_left_out(options, removed, small):
    whole = models.build("gaf", input_dim=small.feature_spec.dim, num_classes=len(small.classes))
    model = models.build(
        "gaf", input_dim=small.feature_spec.dim, num_classes=len(small.classes), **options
    ).train()
    assert all(hasattr(whole, name) and not hasattr(model, name) for name in removed)
    batch = collate([make_item(small, small.recordings("train")[0])])
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert all(p.grad is not None for p in model.parameters()) and ("generative" in losses) == hasattr(
        model, "vae"
    )
