"""Layers and functions that a user's model may have: MACs by formulas, and by torch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from tal_lib.cost import count_macs
from tal_lib.cost.macs import ELEMENTWISE

D, T = 12, 40  # columns and steps


class Network(nn.Module):
    """A model that runs a function of its features (1, D, T), with one layer or none."""

    def __init__(self, call, layer=None):
        super().__init__()
        self.call, self.layer = call, layer

    def forward(self, features):
        return self.call(features) if self.layer is None else self.call(self.layer, features)


def counted(call, layer=None):
    return count_macs(Network(call, layer), D, T)


def by_torch(call, layer=None):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Network(call, layer).eval()(torch.zeros(1, D, T))
    return counter.get_total_flops() // 2


def apply(layer, x):
    return layer(x)


CONVOLUTIONS = {  # layer: weights used at an output (input, if transposed) step, and number of these steps
    "same": (nn.Conv1d(D, 8, 5, padding="same"), D * 8 * 5, T),
    "valid": (nn.Conv1d(D, 8, 5, padding="valid"), D * 8 * 5, T - 4),
    "same, even kernel": (nn.Conv1d(D, 8, 4, padding="same"), D * 8 * 4, T),
    "same, dilated, in groups": (
        nn.Conv1d(D, 8, 5, padding="same", dilation=3, groups=4),
        D * 8 * 5 // 4,
        T,
    ),
    "same, of copied edges": (nn.Conv1d(D, 8, 5, padding="same", padding_mode="replicate"), D * 8 * 5, T),
    "reflected": (nn.Conv1d(D, 8, 5, padding=2, padding_mode="reflect"), D * 8 * 5, T),
    "circular": (nn.Conv1d(D, 8, 5, padding=2, padding_mode="circular"), D * 8 * 5, T),
    "strided, dilated": (
        nn.Conv1d(D, 8, 3, stride=2, padding=2, dilation=2, groups=2),
        D * 8 * 3 // 2,
        T // 2,
    ),
    "transposed": (nn.ConvTranspose1d(D, 8, 5, stride=2, output_padding=1), D * 8 * 5, T),
    "transposed, in groups": (
        nn.ConvTranspose1d(D, 8, 5, stride=3, padding=2, output_padding=1, dilation=2, groups=4),
        D * 8 * 5 // 4,
        T,
    ),
}


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, batched):
    layer, weights, steps = CONVOLUTIONS[name]
    call = apply if batched else lambda layer, x: layer(x[0])
    assert counted(call, layer) == (weights * steps, []) and by_torch(call, layer) == weights * steps


def test_convolutions_of_pictures_and_functions():
    conv = nn.Conv2d(1, 8, (3, 5), padding="same")
    assert counted(lambda conv, x: conv(x[None]), conv) == (8 * 15 * D * T, [])
    kernel = torch.zeros(8, D, 3)
    assert counted(lambda x: F.conv1d(x, kernel, padding="same")) == (D * 8 * 3 * T, [])
    assert counted(lambda x: F.conv1d(x, kernel, padding="valid")) == (D * 8 * 3 * (T - 2), [])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("kind", "gates", "options"),
    [
        (kind, gates, options)
        for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1))
        for options in ({}, {"bidirectional": True, "num_layers": 3}, {"bias": False})
    ]
    + [
        (nn.LSTM, 4, {"bidirectional": True, "num_layers": 2, "proj_size": 3}),
        (nn.RNN, 1, {"nonlinearity": "relu"}),
    ],
)
def test_recurrent_layers(kind, gates, options, packed):
    H, directions = 6, 1 + options.get("bidirectional", False)
    state = options.get("proj_size", H)  # that the next step and the next layer see
    total, inputs = 0, D
    for _ in range(options.get("num_layers", 1)):
        projected = H * state if "proj_size" in options else 0
        total += directions * T * (gates * H * (inputs + state) + projected)
        inputs = directions * state

    def call(layer, x):
        steps = x.transpose(1, 2)
        return (
            layer(pack_padded_sequence(steps, [T], batch_first=True))[0].data if packed else layer(steps)[0]
        )

    assert counted(call, kind(D, H, batch_first=True, **options)) == (total, [])


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells_of_recurrent_layers(kind, gates):
    call = lambda layer, x: layer(x[0].T)
    assert counted(call, kind(D, 6)) == (T * gates * 6 * (D + 6), [])


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"kdim": 5, "vdim": 7}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}]
)
def test_attention_layers(options, weights):
    keys, k, v = T // 2, options.get("kdim", D), options.get("vdim", D)
    layer = nn.MultiheadAttention(D, 3, batch_first=True, **options)

    def call(layer, x):
        steps = x.transpose(1, 2)
        return layer(steps, steps[:, :keys, :k], steps[:, :keys, :v], need_weights=weights)[0]

    seen = keys + sum(name.startswith("add_") for name in options)
    total = 2 * T * D * D + keys * (k + v) * D + 2 * T * seen * D
    assert counted(call, layer) == (total, [])


def test_a_transformer_layer():
    layer = nn.TransformerEncoderLayer(D, 3, 20, batch_first=True)
    call = lambda layer, x: layer(x.transpose(1, 2))
    assert counted(call, layer) == (T * (4 * D * D + 2 * D * 20) + 2 * T * T * D, [])


def attention(q, k, v, **options):
    return lambda x: F.scaled_dot_product_attention(*map(torch.zeros, (q, k, v)), **options) + x.sum()


@pytest.mark.parametrize(
    ("call", "total"),
    [
        (attention((1, 2, 7, T), (1, 2, 9, T), (1, 2, 9, 3)), 2 * 7 * 9 * (T + 3)),
        (attention((1, 2, 7, T), (5, 2, 9, T), (5, 2, 9, T)), 5 * 2 * 7 * 9 * 2 * T),  # one batch of queries
        (attention((1, 4, 7, T), (1, 2, 9, T), (1, 2, 9, T), enable_gqa=True), 4 * 7 * 9 * 2 * T),
        (attention((1, 2, 9, T), (1, 2, 9, T), (1, 2, 9, T), is_causal=True), 2 * 9 * 9 * 2 * T),
    ],
    ids=["cross", "broadcast", "grouped", "causal"],
)
def test_attention_functions(call, total):
    assert counted(call) == (total, [])


Z = torch.zeros
PRODUCTS = {
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), D * T * D),
    "baddbmm": (lambda x: torch.baddbmm(Z(1, D, D), x, x.transpose(1, 2)), D * T * D),
    "addbmm": (lambda x: torch.addbmm(Z(D, 3), x.expand(4, -1, -1), Z(4, T, 3)), 4 * D * T * 3),
    "mm": (lambda x: torch.mm(x[0], Z(T, 3)), D * T * 3),
    "addmm": (lambda x: torch.addmm(Z(3), x[0], Z(T, 3)), D * T * 3),
    "addmv": (lambda x: torch.addmv(Z(D), x[0], Z(T)), D * T),
    "mv": (lambda x: torch.mv(x[0], Z(T)), D * T),
    "dot": (lambda x: torch.dot(x[0, 0], Z(T)), T),
    "vdot": (lambda x: torch.vdot(x[0, 0], Z(T)), T),
    "inner": (lambda x: torch.inner(x, Z(3, T)), D * T * 3),
    "tensordot": (lambda x: torch.tensordot(x, Z(T, 3), dims=1), D * T * 3),
    "tensordot of two axes": (lambda x: torch.tensordot(x, Z(3, T, D), dims=([2, 1], [1, 2])), D * T * 3),
    "tensordot of nothing": (lambda x: torch.tensordot(x, Z(0, T, D), dims=([2, 1], [1, 2])), 0),
    "multi_dot": (lambda x: torch.linalg.multi_dot([x[0], Z(T, 3), Z(3, 70)]), D * T * 3 + D * 3 * 70),
    "matrices": (lambda x: x @ Z(T, 3), D * T * 3),
    "broadcast matrix": (lambda x: x[0] @ Z(4, T, 5), 4 * D * T * 5),
    "broadcast batch": (lambda x: x @ Z(4, 2, T, 5), 8 * D * T * 5),
    "matrix, vector": (lambda x: x @ Z(T), D * T),
    "vector, matrix": (lambda x: Z(D) @ x, D * T),
    "vector, batch": (lambda x: Z(D) @ x.expand(5, -1, -1), 5 * D * T),
    "vectors": (lambda x: x[0, 0] @ Z(T), T),
    "linear": (lambda x: F.linear(x, Z(3, T)), D * T * 3),
    "linear, vector": (lambda x: F.linear(x[0, 0], Z(3, T)), T * 3),
    "linear, vector as weight": (lambda x: F.linear(x, Z(T)), D * T),
    "linear, two vectors": (lambda x: F.linear(x[0, 0], Z(T)), T),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    call, total = PRODUCTS[name]
    assert counted(call) == (total, [])
    assert by_torch(call) in (total, 0)  # which knows no products with vectors


EINSUMS = {
    "bct,dc->bdt": (((1237, D),), 1237 * D * T),  # fvcore rounds it to four digits
    "bct,bcs->bts": (((1, D, 3),), D * T * 3),
    "...ct,cd->...dt": (((D, 9),), D * T * 9),
    "bct,cd": (((D, 9),), D * T * 9),
    "bct,cd,de->bet": (((D, 9), (9, 3)), D * T * 9 + T * 9 * 3),  # from left to right
    "bct,t->bc": (((T,),), D * T),
    "bct,bct->bct": (((1, D, T),), 0),  # element-wise
    "bct,d->bctd": (((9,),), 0),
    "bct->bt": ((), 0),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsums(equation, monkeypatch):
    monkeypatch.setattr(torch.backends.opt_einsum, "enabled", False)  # it may choose another order
    shapes, total = EINSUMS[equation]
    call = lambda x: torch.einsum(equation, x, *map(Z, shapes))
    assert counted(call) == (total, []) and by_torch(call) == total


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm1d(D, affine=True),
        nn.RMSNorm(T),
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.GLU(),
        nn.LogSoftmax(1),
        nn.Upsample(scale_factor=2),
        nn.AvgPool1d(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_element_wise_layers_have_none(layer):
    assert counted(apply, layer) == (0, [])


def test_resampling_has_none():
    grid = torch.zeros(1, 4, 4, 2)
    call = lambda x: F.grid_sample(F.interpolate(x[None], scale_factor=2, mode="bilinear"), grid)
    assert counted(call) == (0, [])


def test_what_is_not_known_is_named():
    assert counted(lambda x: torch.cdist(x, x)) == (0, ["aten::cdist"])
    assert counted(lambda layer, x: layer(x, x), nn.Bilinear(T, T, 3)) == (0, ["aten::bilinear"])


def test_element_wise_operators_exist():
    assert [name for name in ELEMENTWISE if not hasattr(torch.ops.aten, name)] == []
