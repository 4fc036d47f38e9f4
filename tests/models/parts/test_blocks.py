"""Shared layers against dense or library twins."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.models.parts.attention import LocalAttention
from tal_lib.models.parts.blocks import InstanceNorm, MaskedGroupNorm
from tal_lib.models.parts.conv import DepthwiseConv, TemporalConv, max_pool, see_padding


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("batch", [1, 3])
def test_temporal_conv_is_conv1d(kernel, batch):
    torch.manual_seed(0)
    layer = TemporalConv(4, 6, kernel).double()
    x = torch.randn(batch, 9, 4, dtype=torch.double, requires_grad=True)
    weight = layer.weight.permute(2, 1, 0)
    want = F.conv1d(x.transpose(1, 2), weight, layer.bias, padding=kernel // 2).transpose(1, 2)
    torch.testing.assert_close(layer(x), want)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), want)
    names = [x, layer.weight, layer.bias]
    for gradient, expected in zip(
        torch.autograd.grad(layer(x).square().sum(), names), torch.autograd.grad(want.square().sum(), names)
    ):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kernel", [3, 11, 17])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv_is_grouped_conv1d(kernel, stride):
    torch.manual_seed(0)
    layer = DepthwiseConv(4, kernel, stride=stride, bias=True).double()
    x = torch.randn(2, 9, 4, dtype=torch.double, requires_grad=True)
    want = F.conv1d(
        x.transpose(1, 2), layer.weight.T[:, None], layer.bias, stride, kernel // 2, groups=4
    ).transpose(1, 2)
    torch.testing.assert_close(layer(x), want)
    names = [x, layer.weight, layer.bias]
    for gradient, expected in zip(
        torch.autograd.grad(layer(x).square().sum(), names), torch.autograd.grad(want.square().sum(), names)
    ):
        torch.testing.assert_close(gradient, expected)


def dense_local_attention(q, k, v, heads, reach, mask):
    """Attention over all pairs, with the band and the mask applied to the full (T, T) table."""
    batch, steps, channels = q.shape
    split = lambda x: x.reshape(batch, steps, heads, -1).transpose(1, 2)
    scores = split(q) @ split(k).transpose(-1, -2) / (channels // heads) ** 0.5
    at = torch.arange(steps)
    allowed = ((at[:, None] - at[None]).abs() <= reach) & mask[:, None, None, :]
    scores = scores.masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1).nan_to_num(0) @ split(v)).transpose(1, 2).reshape(batch, steps, channels)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(1, 70),
    reach=st.integers(1, 9),
    heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1000),
    holes=st.booleans(),
)
def test_local_attention_equals_its_dense_twin(steps, reach, heads, seed, holes):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(2, steps, 8, dtype=torch.double, requires_grad=True) for _ in range(3))
    mask = (
        torch.rand(2, steps) > 0.4
        if holes
        else torch.arange(steps) < torch.tensor([steps, (steps + 1) // 2])[:, None]
    )
    valid = mask.unsqueeze(-1)
    got = LocalAttention(heads, reach)(q, k, v, valid.double()) * valid
    want = dense_local_attention(q, k, v, heads, reach, mask) * valid
    torch.testing.assert_close(got, want)
    for gradient, expected in zip(
        torch.autograd.grad(got.square().sum(), (q, k, v)),
        torch.autograd.grad(want.square().sum(), (q, k, v)),
    ):
        torch.testing.assert_close(gradient, expected)
    full = torch.ones(2, steps, dtype=torch.bool)
    torch.testing.assert_close(
        LocalAttention(heads, reach)(q, k, v), dense_local_attention(q, k, v, heads, reach, full)
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_max_pool_is_max_pool1d(steps):
    x = torch.randn(2, steps, 3)
    torch.testing.assert_close(
        max_pool(x), F.max_pool1d(x.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)
    )


def test_group_norm_is_group_norm_over_the_valid_steps():
    layer, x = MaskedGroupNorm(2, 6), 3 + torch.randn(2, 9, 6)
    keep = (torch.arange(9) < torch.tensor([[9], [4]])).float()[..., None]
    with torch.no_grad():
        layer.weight.normal_(), layer.bias.normal_()
    want = lambda values: F.group_norm(values.transpose(1, 2), 2, layer.weight, layer.bias).transpose(1, 2)
    torch.testing.assert_close(layer(x), want(x))
    torch.testing.assert_close(layer(x, keep)[1:, :4], want(x[1:, :4]))


def test_instance_norm_is_instance_norm_over_the_valid_steps():
    layer, x = InstanceNorm(6), 3 + torch.randn(2, 9, 6)
    keep = (torch.arange(9) < torch.tensor([[9], [4]])).float()[..., None]
    with torch.no_grad():
        layer.weight.normal_(), layer.bias.normal_()
    want = lambda values: F.instance_norm(
        values.transpose(1, 2), weight=layer.weight, bias=layer.bias
    ).transpose(1, 2)
    before = x.clone()
    for context in (
        torch.enable_grad(),
        torch.no_grad(),
    ):  # another path without gradients, which must not change its input either
        with context:
            torch.testing.assert_close(layer(x), want(x))
            torch.testing.assert_close(layer(x, keep)[1:, :4], want(x[1:, :4]))
            torch.testing.assert_close(x, before)


@given(steps=st.integers(1, 20), valid=st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_max_pool_ignores_padding(steps, valid):
    valid = min(valid, steps)
    x = torch.randn(1, steps, 3) - 5  # negative, so that a zero from padding would win
    keep = (torch.arange(steps) < valid).float()[None, :, None]
    got = max_pool(x, keep)[:, : -(-valid // 2)]
    torch.testing.assert_close(got, max_pool(x[:, :valid]))
    assert max_pool(x, keep).isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
def test_layers_that_see_padding_mask_what_they_give_out(stride):
    """As the authors' masked convolution, pooling and group norm: the input is taken as it is."""
    torch.manual_seed(0)
    x, keep = 3 + torch.randn(2, 10, 4), (torch.arange(10) < torch.tensor([[10], [5]])).float()[..., None]
    conv, depthwise = TemporalConv(4, 6), DepthwiseConv(4, 3, stride=stride, bias=True)
    norm, plain = MaskedGroupNorm(2, 4), MaskedGroupNorm(2, 4, affine=False)
    ignoring = [layer(x, keep) for layer in (conv, depthwise, norm)]
    for layer in (conv, depthwise, norm, plain):
        see_padding(layer)
    first = lambda layer: layer(x, keep)
    flat = x.transpose(1, 2)
    want = F.conv1d(flat, conv.weight.permute(2, 1, 0), conv.bias, padding=1).transpose(1, 2) * keep
    torch.testing.assert_close(first(conv), want)
    split = F.conv1d(flat[..., 6:], conv.weight.permute(2, 1, 0), conv.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(conv(x, keep, (6, 4))[:, 6:], split * keep[:, 6:])
    weight = depthwise.weight.T[:, None]
    want = F.conv1d(flat, weight, depthwise.bias, stride, 1, groups=4).transpose(1, 2) * keep[:, ::stride]
    torch.testing.assert_close(first(depthwise), want)
    for layer in (norm, plain):
        torch.testing.assert_close(first(layer), F.group_norm(flat, 2).transpose(1, 2))
    want = F.max_pool1d(flat, 3, 2, 1).transpose(1, 2) * keep[:, ::2]
    torch.testing.assert_close(max_pool(x, keep, sees_padding=True), want)
    for layer, before in zip((conv, depthwise, norm), ignoring):  # a step beside the padding tells
        assert not torch.allclose(first(layer)[1], before[1])


def test_a_traced_group_norm_repeats_by_a_number():
    """A traced shape is a tensor of the CPU; by one, features of a GPU cannot be repeated."""
    traced = torch.jit.trace(MaskedGroupNorm(4, 16), torch.randn(2, 5, 16)).inlined_graph
    repeats = [list(node.inputs())[1] for node in traced.nodes() if node.kind() == "aten::repeat_interleave"]
    assert repeats and {str(value.type()) for value in repeats} == {"int"}
