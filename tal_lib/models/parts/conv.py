"""Convolution and pooling over time.

Inside the networks tensors are steps-first, x_BTC: batch, time, channels. On a CPU, matrix products and the
fused layer norm then need no copies. The norm gains most; the bare product is about as fast as conv1d
(`experiments/speed.py --parts layout`). A validity mask is a float
`keep` (B, T, 1), one where a step is valid; None means that all are.
"""

from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_any_length = ContextVar("any_length", default=False)


@contextmanager
def for_any_length():
    """While a graph is recorded here, its layers take forms without a branch on the batch or the length."""
    token = _any_length.set(True)
    try:
        yield
    finally:
        _any_length.reset(token)


def exporting() -> bool:
    """Whether a graph for any length is being recorded."""
    return _any_length.get() or torch.compiler.is_exporting()


def ceil_div(a, b):
    """⌈a / b⌉ of integers, b > 0.

    Also right where division rounds towards zero, as in ONNX (then for a > −b).
    """
    return (a + b - 1) // b


def masked(x_BTC: Tensor, keep: Tensor | None) -> Tensor:
    """Zero at invalid steps."""
    return x_BTC if keep is None else x_BTC * keep


def see_padding(model: nn.Module) -> None:
    """Let invalid steps have an influence, as in the code of ActionFormer, TriDet and TemporalMaxer.

    Convolutions then mask their output instead of their input, and group norms include every step. The layers
    that know this have an attribute `sees_padding`.
    """
    for module in model.modules():
        if hasattr(module, "sees_padding"):
            module.sees_padding = True  # pyright: ignore[reportArgumentType]


def to_keep(mask_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """Boolean mask (B, T) → float (B, T, 1)."""
    return None if mask_BT is None else mask_BT.unsqueeze(-1).to(like.dtype)


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors in the precision of a surrounding torch.autocast, which does not reach custom functions."""
    kind = tensors[0].device.type  # pyright: ignore[reportOptionalMemberAccess]
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(None if tensor is None else tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


def _shifts(kernel: int, steps: int, before: int, stride: int = 1):
    """For every tap: (tap, output steps, input steps) as slices, where the input exists. `before` taps look
    back."""
    count = -(-steps // stride)
    for tap in range(kernel):
        offset = tap - before
        first = max(0, -(offset // stride))
        last = min(count, (steps - 1 - offset) // stride + 1)
        if first < last:
            start = first * stride + offset
            yield tap, slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


def _side_taps(kernel, sizes):
    """For every sequence and every tap but the middle one: (tap, output steps, input steps).

    `sizes` are the lengths of the sequences, which lie end to end.
    """
    first = 0
    for size in sizes:
        for tap, out, inp in _shifts(kernel, size, kernel // 2):
            if tap != kernel // 2:
                yield (
                    tap,
                    slice(first + out.start, first + out.stop),
                    slice(first + inp.start, first + inp.stop),
                )
        first += size


def _conv(x, weight, bias, sizes):
    """Sum over the taps of shifted steps times the tap's matrix, in place and without padding.

    x (B, T, C), weight (k, C, C'), sizes of the sequences that make up T → (B, T, C'). A tap is one product
    over all sequences. What it carries across a border between two sequences, a few steps, is subtracted
    again.
    """
    kernel, steps = len(weight), x.shape[1]
    y = F.linear(x, weight[kernel // 2].T, bias)
    borders = torch.tensor(sizes[:-1]).cumsum(0).tolist()
    for tap, out, inp in _side_taps(kernel, (steps,)):
        crossed = sorted(
            {
                step
                for border in borders
                for step in _crossing(border, tap - kernel // 2)
                if out.start <= step < out.stop
            }
        )
        for index in range(len(x)):
            y[index, out].addmm_(x[index, inp], weight[tap])
            if crossed:
                y[index, crossed] -= x[index, [step + tap - kernel // 2 for step in crossed]] @ weight[tap]
    return y


def _crossing(border, offset):
    """Output steps around a border that a tap of this offset serves with a step from beyond it."""
    return range(border, border - offset) if offset < 0 else range(border - offset, border)


class _Conv(torch.autograd.Function):
    """`_conv` with its gradient written out: autograd would allocate a zeroed table for every shift."""

    @staticmethod
    def forward(ctx, x, weight, bias, sizes):
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return _conv(x, weight, bias, sizes)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        middle = weight.shape[0] // 2
        grad_x = grad @ weight[middle].T if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight)
        torch.mm(x.flatten(0, 1).T, grad.flatten(0, 1), out=grad_weight[middle])
        for tap, out, inp in _side_taps(weight.shape[0], ctx.sizes):
            for index in range(len(x)):
                grad_weight[tap].addmm_(x[index, inp].T, grad[index, out])
                if grad_x is not None:
                    grad_x[index, inp].addmm_(grad[index, out], weight[tap].T)
        return grad_x, grad_weight, grad.sum((0, 1)) if ctx.needs_input_grad[2] else None, None


def _depthwise(x, weight, bias, before, stride):
    """Sum over taps of shifted, strided steps times a vector a tap; x (B, T, C), weight (k, C)."""
    steps = x.shape[1]
    y = x.new_zeros(1) if bias is None else bias
    taps = sorted(_shifts(weight.shape[0], steps, before, stride), key=lambda shift: shift[0] != before)
    y = torch.addcmul(y, x[:, taps[0][2]], weight[before])  # the tap of the step itself reaches every output
    for tap, out, inp in taps[1:]:
        y[:, out].addcmul_(x[:, inp], weight[tap])
    return y


class _Depthwise(torch.autograd.Function):
    """`_depthwise` with its gradient written out."""

    @staticmethod
    def forward(ctx, x, weight, bias, before, stride):
        ctx.save_for_backward(x, weight)
        ctx.before, ctx.stride = before, stride
        return _depthwise(x, weight, bias, before, stride)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(weight)
        for tap, out, inp in _shifts(weight.shape[0], x.shape[1], ctx.before, ctx.stride):
            grad_x[:, inp].addcmul_(grad[:, out], weight[tap])
            grad_weight[tap] = (grad[:, out] * x[:, inp]).sum((0, 1))
        return grad_x, grad_weight, grad.sum((0, 1)) if ctx.needs_input_grad[2] else None, None, None


class TemporalConv(nn.Module):
    """Convolution over time, stride 1, zero padding: one matrix product per tap.

    (B, T, C) → (B, T, C'). Invalid steps count as zeros, so padding never leaks into valid steps. With
    `sizes`, the T steps are several sequences end to end (the levels of a pyramid) that do not see each
    other.
    """

    sees_padding = False  # set by `see_padding`: the output is masked instead of the input

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True, groups: int = 1):
        super().__init__()
        assert kernel % 2 == 1 and inputs % groups == 0 and outputs % groups == 0
        self.kernel, self.groups = kernel, groups
        conv = nn.Conv1d(inputs, outputs, kernel, bias=bias, groups=groups)  # for its initialisation
        self.weight = nn.Parameter(
            conv.weight.detach().permute(2, 1, 0).contiguous()
        )  # (kernel, C / groups, C')
        self.bias = nn.Parameter(conv.bias.detach().clone()) if bias else None  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        if self.sees_padding and keep is not None:
            return masked(self(x, None, sizes), keep)
        x = masked(x, keep)
        if self.kernel == 1 and self.groups == 1:
            return F.linear(x, self.weight[0].T, self.bias)
        plain = (
            self.groups > 1 or exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        )  # a recorded graph has convolutions, as its readers expect
        if sizes is not None and (plain or x.shape[0] > 8):
            return torch.cat([self(sequence) for sequence in x.split(sizes, 1)], 1)
        if plain:
            weight = self.weight.permute(2, 1, 0)
            return F.conv1d(
                x.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups
            ).transpose(1, 2)
        if x.shape[0] > 8:  # many short recordings: one product a tap for all of them, over copies
            batch, steps, _ = x.shape
            windows = F.pad(x, (0, 0, self.kernel // 2, self.kernel // 2)).unfold(
                1, self.kernel, 1
            )  # (B, T, C, k)
            table = windows.permute(0, 1, 3, 2).reshape(batch * steps, -1)
            y = table @ self.weight.flatten(0, 1)
            return (y if self.bias is None else y + self.bias).unflatten(0, (batch, steps))
        conv = _Conv.apply if torch.is_grad_enabled() and self.weight.requires_grad else _conv
        return conv(*autocast(x, self.weight, self.bias), sizes or (x.shape[1],))  # pyright: ignore[reportCallIssue]


class DepthwiseConv(nn.Module):
    """Depthwise convolution over time, (B, T, C) → (B, ceil(T / stride), C); causal: no step sees a later
    one."""

    sees_padding = False  # as in TemporalConv

    def __init__(
        self, channels: int, kernel: int = 3, *, stride: int = 1, bias: bool = False, causal: bool = False
    ):
        super().__init__()
        assert kernel % 2 == 1 or causal
        self.kernel, self.stride = kernel, stride
        self.before = kernel - 1 if causal else kernel // 2  # taps that look back
        conv = nn.Conv1d(channels, channels, kernel, groups=channels, bias=bias)
        self.weight = nn.Parameter(conv.weight.detach()[:, 0].T.contiguous())  # (kernel, C)
        self.bias = nn.Parameter(conv.bias.detach().clone()) if bias else None  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.sees_padding and keep is not None:
            return masked(self(x), keep[:, :: self.stride])
        x = masked(x, keep)
        if self.kernel > 15 or exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            x = F.pad(x, (0, 0, self.before, self.kernel - 1 - self.before))
            return F.conv1d(
                x.transpose(1, 2),
                self.weight.T.unsqueeze(1),
                self.bias,
                stride=self.stride,
                groups=x.shape[-1],
            ).transpose(1, 2)
        # few taps: shifted products, without leaving the steps-first layout
        conv = _Depthwise.apply if torch.is_grad_enabled() and self.weight.requires_grad else _depthwise
        return conv(x, self.weight, self.bias, self.before, self.stride)


def max_pool(x: Tensor, keep: Tensor | None = None, sees_padding: bool = False) -> Tensor:
    """Max over three steps at stride 2, (B, T, C) → (B, ceil(T / 2), C); zero at invalid steps.

    Invalid steps never win, unless `sees_padding`.
    """
    if sees_padding:
        return masked(max_pool(x), halve(keep))
    if keep is not None:
        x = x.masked_fill(keep == 0, float("-inf"))
    x = F.pad(x, (0, 0, 1, 1), value=float("-inf"))
    pooled = torch.maximum(
        torch.maximum(x[:, :-2:2], x[:, 1:-1:2]), x[:, 2::2]
    )  # max_pool1d would transpose, and so copy
    return pooled if keep is None else pooled.masked_fill(keep[:, ::2] == 0, 0)


def halve(keep: Tensor | None) -> Tensor | None:
    """The mask of the next pyramid level."""
    return None if keep is None else keep[:, ::2]
