"""Multiply-accumulates of a network's forward pass.

fvcore counts them on the traced graph. This file adds handles for operators that fvcore does not know. One
multiply-add is one MAC. As usual in the field, element-wise work (norms, activations, pooling, masks,
softmax) is not counted. The padding of a convolution is counted. An operator that is neither counted nor
element-wise is listed in `uncounted`. The total is exact only if this list is empty.

fvcore's own handles ignore broadcasting, round the count of an einsum to four digits, and fail on vectors.
Those for products are replaced.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import isqrt, prod

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# element-wise work, shapes and copies: no multiply-accumulates in them. `hardtanh`, `embedding` and
# `upsample_bicubic2d` are left out, because committed rows of backbones name them. For the same reason fvcore
# counts `adaptive_avg_pool2d`.
ELEMENTWISE = {
    "abs",
    "add",
    "add_",
    "all",
    "amax",
    "any",
    "arange",
    "bitwise_and",
    "bitwise_not",
    "cat",
    "ceil",
    "clamp",
    "clamp_min",
    "clone",
    "chunk",
    "contiguous",
    "expand_as",
    "linalg_vector_norm",
    "copy_",
    "cos",
    "cumsum",
    "div",
    "dropout",
    "eq",
    "exp",
    "expand",
    "fill_",
    "floor_divide",
    "full_like",
    "gather",
    "ge",
    "gelu",
    "gelu_",
    "gt",
    "index",
    "index_select",
    "le",
    "log",
    "log2",
    "logical_and",
    "lt",
    "masked_fill",
    "masked_fill_",
    "max",
    "max_pool1d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "mul_",
    "ne",
    "neg",
    "new_ones",
    "new_zeros",
    "ones_like",
    "pad",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "repeat",
    "repeat_interleave",
    "round",
    "rsqrt",
    "rsub",
    "scatter",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "sub",
    "sub_",
    "sum",
    "tanh",
    "to",
    "topk",
    "unflatten",
    "unfold",
    "numpy_T",
    "var_mean",
    "where",
    "zeros_like",
    "layer_norm",
    "group_norm",
    "batch_norm",
    "upsample_linear1d",
    "flip",
    "adaptive_avg_pool1d",
    "avg_pool2d",
    "index_add",
    "index_copy",
    "index_copy_",
    "lift_fresh",
    "linspace",
    "max_pool2d",
    "numel",
    "prod",
    "adaptive_max_pool1d",
    "avg_pool1d",
    "__and__",
    "__or__",
    "__xor__",
    "_pack_padded_sequence",
    "_pad_packed_sequence",
    "_weight_norm",
    "addr",
    "amin",
    "argmax",
    "argmin",
    "argsort",
    "bitwise_or",
    "broadcast_to",
    "celu",
    "clamp_max",
    "col2im",
    "cumprod",
    "diff",
    "div_",
    "elu",
    "elu_",
    "erf",
    "exp_",
    "expm1",
    "glu",
    "grid_sampler",
    "hardsigmoid",
    "hardswish",
    "hardswish_",
    "im2col",
    "instance_norm",
    "isfinite",
    "isinf",
    "isnan",
    "kron",
    "leaky_relu",
    "leaky_relu_",
    "lerp",
    "log10",
    "log1p",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "masked_select",
    "mish",
    "mish_",
    "movedim",
    "neg_",
    "norm",
    "one_hot",
    "outer",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "reflection_pad1d",
    "replication_pad1d",
    "reshape_as",
    "rms_norm",
    "rot90",
    "selu",
    "selu_",
    "sigmoid_",
    "sign",
    "silu_",
    "sort",
    "square",
    "std",
    "swapaxes",
    "take_along_dim",
    "tan",
    "tanh_",
    "threshold",
    "tile",
    "tril",
    "triu",
    "unsafe_chunk",
    "unsafe_split",
    "upsample_bilinear2d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "var",
    "view_as",
}


def _shape(value):
    return value.type().sizes()


def _products(inputs, outputs, operand=0):
    """MACs of a product of tensors: every output is a sum over the last axis of an operand.

    The shape of the output has the broadcasting of the leading axes.

    Args:
        operand: index among the inputs of the first factor.
    """
    return Counter({"products": prod(_shape(outputs[0])) * _shape(inputs[operand])[-1]})


def _addbmm(inputs, outputs):
    """MACs of addbmm: the products of a batch are summed."""
    return Counter({"addbmm": prod(_shape(inputs[1])) * _shape(outputs[0])[-1]})


def _tensordot(inputs, outputs):
    """MACs of tensordot. Both operands have the contracted axes, so these are a square's root."""
    out = prod(_shape(outputs[0]))
    contracted = isqrt(prod(map(prod, map(_shape, inputs[:2]))) // out) if out else 0
    return Counter({"tensordot": out * contracted})


def _listed(value):
    """Shapes of the tensors of a list."""
    return [_shape(item) for item in value.node().inputs()]


def _as_torch_counts(call, shapes):
    """MACs of `call(*tensors)` as torch's own counter has them, on tensors without data.

    For operators that choose the order of their products themselves.
    """
    with FlopCounterMode(display=False) as counter:
        call(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2


def _einsum(inputs, outputs):
    equation = inputs[0].toIValue()
    return Counter({"einsum": _as_torch_counts(partial(torch.einsum, equation), _listed(inputs[1]))})


def _multi_dot(inputs, outputs):
    call = lambda *tensors: torch.linalg.multi_dot(tensors)
    return Counter({"multi_dot": _as_torch_counts(call, _listed(inputs[0]))})


def _convolution_mode(inputs, outputs):
    """MACs of a convolution whose padding is a word (`same`, `valid`)."""
    return Counter({"conv": prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])})


def _addcmul(inputs, outputs):
    """MACs of addcmul: a step of a scan has two factors of the same shape. Any other use is an element-wise
    scale."""
    return Counter({"addcmul": prod(_shape(outputs[0])) if _shape(inputs[1]) == _shape(inputs[2]) else 0})


def _embedding_bag(inputs, outputs):
    """Weighted sums of rows: every index takes a row of the table."""
    return Counter({"embedding_bag": prod(_shape(inputs[1])) * _shape(inputs[0])[1]})


def _attention(inputs, outputs):
    """MACs of attention: all queries with all keys, also under a causal mask.

    The output has the batch and the heads after broadcasting; keys may have fewer heads than queries.
    """
    q, k, v = (_shape(value) for value in inputs[:3])
    return Counter({"attention": prod(_shape(outputs[0])[:-1]) * k[-2] * (q[-1] + v[-1])})


def _recurrent(inputs, outputs):
    """MACs of an LSTM, GRU or RNN: every step is multiplied with every weight matrix once.

    The weights are a list among its inputs. Also for several layers, both directions and projections.
    """
    lists = [value.node() for value in inputs if value.node().kind() == "prim::ListConstruct"]
    shapes = [_shape(item) for node in lists for item in node.inputs() if item.type().kind() == "TensorType"]
    steps = prod(_shape(inputs[0])[:-1])
    return Counter({"recurrent": sum(steps * prod(shape) for shape in shapes if len(shape) == 2)})


_HANDLES = (
    {f"aten::{name}": lambda inputs, outputs: Counter() for name in ELEMENTWISE}
    | {
        f"aten::{name}": partial(_products, operand=operand)
        for operand, names in enumerate(
            (
                ("bmm", "dot", "inner", "linear", "matmul", "mm", "mv", "vdot"),
                ("addmm", "addmm_", "addmv", "baddbmm"),
            )
        )
        for name in names
    }
    | {f"aten::{name}": _recurrent for name in ("gru", "lstm", "rnn_relu", "rnn_tanh")}
    | {
        "aten::_convolution_mode": _convolution_mode,
        "aten::addbmm": _addbmm,
        "aten::addcmul": _addcmul,
        "aten::einsum": _einsum,
        "aten::embedding_bag": _embedding_bag,
        "aten::linalg_multi_dot": _multi_dot,
        "aten::scaled_dot_product_attention": _attention,
        "aten::tensordot": _tensordot,
    }
)


class _Network(nn.Module):
    """A module from one tensor to tensors, as tracing requires."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, features):
        return self.call(features)


def count_macs(model: nn.Module, input_dim: int, length: int) -> tuple[int, list[str]]:
    """MACs of one recording of `length` steps, and the operators that could not be counted.

    The list of operators should be empty.
    """
    return count_call(model, model, torch.zeros(1, input_dim, length))


def count_call(
    model: nn.Module, call: Callable[[torch.Tensor], object], example: torch.Tensor
) -> tuple[int, list[str]]:
    """MACs of `call(example)`, which runs `model`, and the operators that could not be counted."""
    device = next(model.parameters(), example).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            analysis = FlopCountAnalysis(_Network(model, call), example.to(device))
            analysis.set_op_handle(**_HANDLES).unsupported_ops_warnings(False).uncalled_modules_warnings(
                False
            )
            analysis.tracer_warnings("none")
            total = int(analysis.total())
            unknown = {
                name for name in analysis.unsupported_ops() if name.removeprefix("aten::") not in ELEMENTWISE
            }
    finally:
        model.train(training)
    return total, sorted(unknown)
