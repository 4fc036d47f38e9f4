"""The linear recurrence h_t = a_t · h_(t−1) + b_t, element by element, without a Python step for each t.

Time is cut into pieces that advance side by side; then the pieces' ends are chained. That takes about 2·√T vectorised steps and
three passes over the data, forward and backward alike.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.models.parts.conv import exporting


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
    if exporting():
        return _scan_without_branches(a, b)
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


PIECE, DOUBLINGS = 64, 11  # of an exported scan: up to 64 · 2^11 steps


def _scan_without_branches(a, b):
    """The same for a graph of any length: pieces of a fixed size, their ends chained by doubling."""
    steps, rest = a.shape[1], [0] * (2 * (a.ndim - 2))
    room = (steps // PIECE + 1) * PIECE - steps
    a, b = (F.pad(x, (*rest, 0, room)).unflatten(1, (-1, PIECE)).unbind(2) for x in (a, b))
    states, decays = [b[0]], [a[0]]
    for t in range(1, PIECE):
        states.append(torch.addcmul(b[t], a[t], states[-1]))
        decays.append(decays[-1] * a[t])
    end, decay = states[-1], decays[-1]  # (B, pieces, …), as if every piece began at zero
    for k in range(DOUBLINGS):
        earlier = lambda x, fill, k=k: F.pad(x, (*rest, 2**k, 0), value=fill)[:, : x.shape[1]]
        end = torch.addcmul(end, decay, earlier(end, 0.0))
        decay = decay * earlier(decay, 1.0)
    before = F.pad(end, (*rest, 1, 0))[:, : end.shape[1]].unsqueeze(2)
    return torch.addcmul(torch.stack(states, 2), torch.stack(decays, 2), before).flatten(1, 2)[:, :steps]
