"""Layers that several models share.

Inside the networks tensors are steps-first, x_BTC: batch, time, channels. On CPU the matrix products and the fused
layer norm run on it without copies (measured: 3.4 times the speed of conv1d at 512 → 512 channels, 5.7 times that of a
channel norm written out). A validity mask is a float `keep` (B, T, 1), one where a step is valid; None means all.
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
    """⌈a / b⌉ of whole numbers, b > 0; written so that it is right where division rounds towards zero too, as in ONNX (then for a > −b)."""
    return (a + b - 1) // b


def masked(x_BTC: Tensor, keep: Tensor | None) -> Tensor:
    """Zero at invalid steps."""
    return x_BTC if keep is None else x_BTC * keep


def to_keep(mask_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """Boolean mask (B, T) → float (B, T, 1)."""
    return None if mask_BT is None else mask_BT.unsqueeze(-1).to(like.dtype)


def mlp(x: Tensor, grow: nn.Linear, shrink: nn.Linear) -> Tensor:
    """Linear → GELU → linear over (B, T, C). Without a gradient it goes through the steps in parts: the wide middle is never whole."""
    if torch.is_grad_enabled() or exporting() or x.shape[1] <= 1536:
        return shrink(gelu(grow(x)))
    return torch.cat([shrink(gelu(grow(part))) for part in x.split(1152, 1)], 1)


def gelu(x: Tensor) -> Tensor:
    """GELU of a tensor that nobody else needs: in place where no gradient is, which spares the widest tensor of a block a copy."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """In the precision of a surrounding torch.autocast, which does not see into custom functions; else as they are."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(None if one is None else one.to(torch.get_autocast_dtype(kind)) for one in tensors)


def _shifts(kernel: int, steps: int, before: int, stride: int = 1):
    """For every tap: (tap, output steps, input steps) as slices, where the input exists; `before` taps look back."""
    count = -(-steps // stride)
    for tap in range(kernel):
        offset = tap - before
        first = max(0, -(offset // stride))
        last = min(count, (steps - 1 - offset) // stride + 1)
        if first < last:
            start = first * stride + offset
            yield tap, slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


def _side_taps(kernel, sizes):
    """For every tap but the middle one and every sequence: (tap, output steps, input steps); `sizes` are their lengths, end to end."""
    first = 0
    for size in sizes:
        for tap, out, inp in _shifts(kernel, size, kernel // 2):
            if tap != kernel // 2:
                yield tap, slice(first + out.start, first + out.stop), slice(first + inp.start, first + inp.stop)
        first += size


def _conv(x, weight, bias, sizes):
    """Sum over taps of shifted steps times a matrix a tap, in place and without padding.

    x (B, T, C), weight (k, C, C'), sizes of the sequences that make up T → (B, T, C'). A tap is one product over all sequences; what
    it carried from one into the next, a few steps at each border, is taken back.
    """
    kernel, steps = len(weight), x.shape[1]
    y = F.linear(x, weight[kernel // 2].T, bias)
    borders = torch.tensor(sizes[:-1]).cumsum(0).tolist()
    for tap, out, inp in _side_taps(kernel, (steps,)):
        crossed = sorted({step for border in borders for step in _crossing(border, tap - kernel // 2) if out.start <= step < out.stop})
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
    taps = sorted(_shifts(weight.shape[0], steps, before, stride), key=lambda one: one[0] != before)
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
    """Convolution over time, stride 1, zero padding: one matrix product a tap.

    (B, T, C) → (B, T, C'). Steps that are not kept count as zeros, so padding never leaks into valid steps. With `sizes`, the T
    steps are several sequences end to end (the levels of a pyramid), none of which sees its neighbours.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True, groups: int = 1):
        super().__init__()
        assert kernel % 2 == 1 and inputs % groups == 0 and outputs % groups == 0
        self.kernel, self.groups = kernel, groups
        conv = nn.Conv1d(inputs, outputs, kernel, bias=bias, groups=groups)  # for its initialisation
        self.weight = nn.Parameter(conv.weight.detach().permute(2, 1, 0).contiguous())  # (kernel, C / groups, C')
        self.bias = nn.Parameter(conv.bias.detach().clone()) if bias else None

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        x = masked(x, keep)
        if self.kernel == 1 and self.groups == 1:
            return F.linear(x, self.weight[0].T, self.bias)
        plain = self.groups > 1 or exporting() or torch.jit.is_tracing()  # a recorded graph has convolutions, as its readers expect
        if sizes is not None and (plain or x.shape[0] > 8):
            return torch.cat([self(one) for one in x.split(sizes, 1)], 1)
        if plain:
            weight = self.weight.permute(2, 1, 0)
            return F.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.kernel // 2,
                            groups=self.groups).transpose(1, 2)
        if x.shape[0] > 8:  # many short recordings: one product a tap for all of them, over copies
            batch, steps, _ = x.shape
            windows = F.pad(x, (0, 0, self.kernel // 2, self.kernel // 2)).unfold(1, self.kernel, 1)  # (B, T, C, k)
            table = windows.permute(0, 1, 3, 2).reshape(batch * steps, -1)
            y = table @ self.weight.flatten(0, 1)
            return (y if self.bias is None else y + self.bias).unflatten(0, (batch, steps))
        conv = _Conv.apply if torch.is_grad_enabled() and self.weight.requires_grad else _conv
        return conv(*autocast(x, self.weight, self.bias), sizes or (x.shape[1],))


class DepthwiseConv(nn.Module):
    """Depthwise convolution over time, (B, T, C) → (B, ceil(T / stride), C); a causal one sees no later step."""

    def __init__(self, channels: int, kernel: int = 3, *, stride: int = 1, bias: bool = False, causal: bool = False):
        super().__init__()
        assert kernel % 2 == 1 or causal
        self.kernel, self.stride = kernel, stride
        self.before = kernel - 1 if causal else kernel // 2  # taps that look back
        conv = nn.Conv1d(channels, channels, kernel, groups=channels, bias=bias)
        self.weight = nn.Parameter(conv.weight.detach()[:, 0].T.contiguous())  # (kernel, C)
        self.bias = nn.Parameter(conv.bias.detach().clone()) if bias else None

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = masked(x, keep)
        if self.kernel > 15 or exporting() or torch.jit.is_tracing():
            x = F.pad(x, (0, 0, self.before, self.kernel - 1 - self.before))
            return F.conv1d(x.transpose(1, 2), self.weight.T.unsqueeze(1), self.bias, stride=self.stride,
                            groups=x.shape[-1]).transpose(1, 2)
        # few taps: shifted products, without leaving the steps-first layout
        conv = _Depthwise.apply if torch.is_grad_enabled() and self.weight.requires_grad else _depthwise
        return conv(x, self.weight, self.bias, self.before, self.stride)


class MaskedGroupNorm(nn.Module):
    """Group norm over the valid steps and the channels of a group; (B, T, C) → same."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        groups = lambda t: t.unflatten(-1, (self.groups, -1)).mean(-1).repeat_interleave(x.shape[-1] // self.groups, -1)  # noqa: E731
        if keep is None:
            x = x - groups(x.mean(1, keepdim=True))
            variance = groups((x * x).mean(1, keepdim=True))
        else:
            count = keep.sum(1, keepdim=True).clamp(min=1)
            x = x - groups((x * keep).sum(1, keepdim=True) / count)
            variance = groups((x * x * keep).sum(1, keepdim=True) / count)
        return torch.addcmul(self.bias, x, torch.rsqrt(variance + self.eps) * self.weight)


class InstanceNorm(nn.Module):
    """Each channel of each recording to mean 0 and variance 1 over its valid steps, then a learned scale and shift; (B, T, C) → same.

    What all steps of a recording share, such as how a sensor is worn, goes. Source: Ulyanov et al., Instance Normalization (2016).
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            x = x - x.mean(1, keepdim=True)
            variance = (x * x).mean(1, keepdim=True)
        else:
            count = keep.sum(1, keepdim=True).clamp(min=1)
            x = x - (x * keep).sum(1, keepdim=True) / count
            variance = (x * x * keep).sum(1, keepdim=True) / count
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return torch.addcmul(self.bias, x, scale) if torch.is_grad_enabled() else x.mul_(scale).add_(self.bias)  # x is its own by now


class ConvNormReLU(nn.Module):
    """Convolution without bias → norm → ReLU. norm: `layer`, over the channels of a step, or `instance`, over the steps of a recording."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = False, norm: str = "layer"):
        super().__init__()
        self.conv = TemporalConv(inputs, outputs, kernel, bias=bias)
        self.norm = nn.LayerNorm(outputs) if norm == "layer" else InstanceNorm(outputs)

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        x = self.conv(x, keep, sizes)
        return (self.norm(x, keep) if isinstance(self.norm, InstanceNorm) else self.norm(x)).relu_()


def max_pool(x: Tensor, keep: Tensor | None = None) -> Tensor:
    """Max over three steps at stride 2, (B, T, C) → (B, ceil(T / 2), C); invalid steps never win."""
    if keep is not None:
        x = x.masked_fill(keep == 0, float("-inf"))
    x = F.pad(x, (0, 0, 1, 1), value=float("-inf"))
    pooled = torch.maximum(torch.maximum(x[:, :-2:2], x[:, 1:-1:2]), x[:, 2::2])  # max_pool1d would transpose, and so copy
    return pooled if keep is None else pooled.masked_fill(keep[:, ::2] == 0, 0)


def halve(keep: Tensor | None) -> Tensor | None:
    """The mask of the next pyramid level."""
    return None if keep is None else keep[:, ::2]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over (B, heads, ·, d)."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


class DropPath(nn.Module):
    """A residual branch with a learnable scale a channel and stochastic depth a recording ("affine drop path").

    Source: ActionFormer (ECCV 2022); scale from Touvron et al., CaiT (ICCV 2021).
    """

    def __init__(self, channels: int, rate: float = 0.0, scale: float = 1e-4):
        super().__init__()
        self.rate = rate
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + scale · branch."""
        scale = self.scale
        if self.training and self.rate > 0:
            keep = 1 - self.rate
            scale = scale * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep
        return torch.addcmul(x, scale, branch)


class LocalAttention(nn.Module):
    """Multi-head attention in which step i sees steps j with |i − j| ≤ `reach`, in time linear in the length.

    Queries are taken in blocks, keys in the overlapping windows around them: views of one padded table, not copies.
    Input: projected q, k, v (B, T, C). Source: ActionFormer (ECCV 2022), section 3.2; Beltagy et al., Longformer (2020).
    """

    def __init__(self, heads: int, reach: int):
        super().__init__()
        self.heads, self.reach, self.block = heads, reach, max(reach, 8)
        distance = torch.arange(self.block)[:, None] + reach - torch.arange(self.block + 2 * reach)[None]
        self.register_buffer("band", distance.abs() <= reach, persistent=False)  # (block, block + 2 reach)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
        if exporting():
            return self._each_alone(q, k, v, keep)
        batch, steps, channels = q.shape
        block, reach = self.block, self.reach
        span = block + 2 * reach
        # recordings end to end, each with room for the windows at its ends; a window that runs into the next one is masked
        rows = (-(-steps // block) + -(-2 * reach // block)) * block
        valid = q.new_ones(batch, steps, 1) if keep is None else keep

        def windows(x):  # (B, T, C) -> (blocks of all recordings, C, span)
            return F.pad(x, (0, 0, reach, rows - steps - reach)).flatten(0, 1).unfold(0, span, block)

        split = lambda x: windows(x).unflatten(1, (self.heads, -1)).transpose(2, 3)  # noqa: E731  (blocks, heads, span, d)
        allowed = self.band & (windows(valid) > 0.5)  # (blocks, block, span)
        blocks = allowed.shape[0]  # those without a whole window, behind the last step, are left out
        bias = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, -1e4)  # finite: a masked row stays finite
        room = (blocks * block if batch == 1 else rows) - steps
        q = F.pad(q, (0, 0, 0, room)) if room else q
        q = q.reshape(-1, block, self.heads, channels // self.heads)[:blocks].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, split(k), split(v), attn_mask=bias.unsqueeze(1))
        mixed = mixed.transpose(1, 2).reshape(blocks * block, channels)
        if batch > 1:
            mixed = F.pad(mixed, (0, 0, 0, batch * rows - blocks * block))
        return mixed.reshape(batch, -1, channels)[:, :steps]

    def _each_alone(self, q, k, v, keep):
        """The same, every recording in blocks of its own: no branch on the batch or the length."""
        batch, steps, channels = q.shape
        block, reach = self.block, self.reach
        span = block + 2 * reach
        room = ceil_div(steps, block) * block - steps
        valid = torch.ones_like(q[..., :1]) if keep is None else keep
        windows = lambda x: F.pad(x, (0, 0, reach, reach + room)).unfold(1, span, block).flatten(0, 1)  # noqa: E731  (blocks, C, span)
        split = lambda x: windows(x).unflatten(1, (self.heads, -1)).transpose(2, 3)  # noqa: E731  (blocks, heads, span, d)
        bias = torch.where(self.band & (windows(valid) > 0.5), 0.0, -1e4).to(q.dtype)
        q = F.pad(q, (0, 0, 0, room)).reshape(-1, block, self.heads, channels // self.heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, split(k), split(v), attn_mask=bias.unsqueeze(1))
        return mixed.transpose(1, 2).reshape(batch, -1, channels)[:, :steps]
