"""The linear recurrence h_t = a_t · h_(t−1) + b_t, element by element, without a Python step for each t.

Time is cut into pieces that advance side by side; then the pieces' ends are chained. That takes about 2·√T vectorised steps and
three passes over the data, forward and backward alike.
"""

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, initial: Tensor | None = None) -> Tensor:
    """All states (B, T, …) of the recurrence, from decays a and inputs b (B, T, …) and the state before the first step (B, …).

    Differentiable in all three; float32 and float64.
    """
    if initial is not None:
        b = torch.cat([torch.addcmul(b[:, :1], a[:, :1], initial.unsqueeze(1)), b[:, 1:]], 1)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Scan.apply(a, b)
    return _scan(a, b)


class _Scan(torch.autograd.Function):
    """The gradient of a scan is a scan backwards in time: only states and decays are kept."""

    @staticmethod
    def forward(ctx, a, b):
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        a, h = ctx.saved_tensors
        following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1)
        grad_b = _scan(following.flip(1), grad.flip(1)).flip(1)
        grad_a = torch.zeros_like(a)
        torch.mul(grad_b[:, 1:], h[:, :-1], out=grad_a[:, 1:])
        return grad_a, grad_b


def _scan(a, b):
    batch, steps = a.shape[:2]
    piece = max(1, int(int(steps) ** 0.5))
    pieces = -(-steps // piece)
    spare = pieces * piece - steps
    if spare:  # decays of zero and inputs of zero at the end change no earlier state
        pad = a.new_zeros(batch, spare, *a.shape[2:])
        a, b = torch.cat([a, pad], 1), torch.cat([b, pad], 1)
    a, h = (x.reshape(batch, pieces, piece, *x.shape[2:]) for x in (a, b.clone()))
    decay = a.clone()  # product of the decays from the piece's beginning
    for t in range(1, piece):
        h[:, :, t] = torch.addcmul(h[:, :, t], a[:, :, t], h[:, :, t - 1])
        decay[:, :, t] *= decay[:, :, t - 1]
    carry = h[:, 0, -1]
    before = [torch.zeros_like(carry), carry]  # the state with which each piece begins
    for n in range(1, pieces - 1):
        carry = h[:, n, -1] + decay[:, n, -1] * carry
        before.append(carry)
    h = h + decay * torch.stack(before[:pieces], 1).unsqueeze(2)
    return h.reshape(batch, pieces * piece, *h.shape[3:])[:, :steps]
