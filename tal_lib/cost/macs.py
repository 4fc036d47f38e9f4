"""Multiply-accumulates of a network's forward pass.

fvcore counts them on the traced graph. This file adds handles for operators that fvcore does not know. One
multiply-add is one MAC. As usual in the field, element-wise work (norms, activations, pooling, masks,
softmax) is not counted. The padding of a convolution is counted. An operator that is neither counted nor
element-wise is listed in `uncounted`. The total is exact only if this list is empty.
"""

from collections import Counter
from collections.abc import Callable
from math import prod

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

# element-wise work, shapes and copies: no multiply-accumulates in them
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
}


def _shape(value):
    return value.type().sizes()


def _product(first, second):
    """MACs of (…, m, k) @ (…, k, n)."""
    return Counter({"matmul": prod(first) * second[-1]})


def _addcmul(inputs, outputs):
    """MACs of addcmul: a step of a scan has two factors of the same shape. Any other use is an element-wise
    scale."""
    return Counter({"addcmul": prod(_shape(outputs[0])) if _shape(inputs[1]) == _shape(inputs[2]) else 0})


def _embedding_bag(inputs, outputs):
    """Weighted sums of rows: every index takes a row of the table."""
    return Counter({"embedding_bag": prod(_shape(inputs[1])) * _shape(inputs[0])[1]})


def _attention(inputs, outputs):
    q, k, v = (_shape(value) for value in inputs[:3])
    return Counter({"attention": prod(q) * k[-2] + prod(q[:-1]) * k[-2] * v[-1]})


def _lstm(inputs, outputs):
    """MACs of an LSTM: every step is multiplied with every weight matrix once.

    `lstm` has its weights as a list among its inputs.
    """
    lists = [value.node() for value in inputs if value.node().kind() == "prim::ListConstruct"]
    shapes = [_shape(item) for node in lists for item in node.inputs() if item.type().kind() == "TensorType"]
    steps = prod(_shape(inputs[0])[:-1])
    return Counter({"lstm": sum(steps * prod(shape) for shape in shapes if len(shape) == 2)})


_HANDLES = {
    "aten::addmm_": lambda inputs, outputs: _product(_shape(inputs[1]), _shape(inputs[2])),
    "aten::mm": lambda inputs, outputs: _product(_shape(inputs[0]), _shape(inputs[1])),
    "aten::addcmul": _addcmul,
    "aten::scaled_dot_product_attention": _attention,
    "aten::embedding_bag": _embedding_bag,
    "aten::lstm": _lstm,
} | {f"aten::{name}": lambda inputs, outputs: Counter() for name in ELEMENTWISE}


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
    device = next(model.parameters()).device
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
