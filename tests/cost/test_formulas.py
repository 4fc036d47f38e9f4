"""fvcore's counts against closed forms: MACs of every model from its weights, their uses, and products.

A weight used at n positions costs its elements times n, including the zero padding of a convolution. K is the
number of classes and T of steps. P counts the points of a pyramid (or proposals), W the windows of w steps.
"""

from math import isqrt

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.models.parts.proposals import window_starts

pytestmark = pytest.mark.shallow
NO_MATRIX = ("latents", "log_a", "query", "background")  # learned tokens and decays


def used(model, **positions):
    """Sum over parameters of elements × positions.

    positions: name prefixes, with __ for the dots. Every prefix must exist; all parameters must be covered.
    """
    total, left = (
        0,
        {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and name.split(".")[-1] not in NO_MATRIX and not name.startswith("vae")
        },
    )
    for prefix, count in positions.items():
        names = [name for name in left if name.startswith(prefix.replace("__", "."))]
        assert names, prefix
        total += sum(left.pop(name) for name in names) * count
    assert not left, f"uncovered {list(left)}"
    return total


def levels(model, T):
    return [-(-T // 2**level) for level in range(len(model.config.ranges))]


def through_latents(steps, width, latents):
    """Latents read the steps, the steps read the latents: two products each."""
    return 4 * steps * latents * width


def attention(queries, keys, width):
    return 2 * queries * keys * width


def temporalmaxer(m, T, K):
    P = sum(levels(m, T))
    return used(m, embedding=T, class_=P, boundary_=P)


def tridet(m, T, K):
    sizes, P = levels(m, T), sum(levels(m, T))
    block = lambda name, n: {f"{name}__global_fc": 1, f"{name}__": n}
    each = {key: count for index in range(len(m.stem)) for key, count in block(f"stem__{index}", T).items()}
    each |= {
        key: count for index, n in enumerate(sizes[1:]) for key, count in block(f"branch__{index}", n).items()
    }
    return used(m, embedding=T, **each, class_=P, boundary_=P, start_=P, end_=P)


def local_global(m, T, K):
    c, P = m.config, sum(levels(m, T))
    at = {f"stem__{index}": T for index in range(len(m.stem))}
    each = {
        key: count
        for name, n in at.items()
        for key, count in {f"{name}__global_block__write": c.latents, f"{name}__": n}.items()
        if c.latents or key == f"{name}__"  # the global block is an option
    }
    return used(m, embedding=T, **each, class_=P, regression_=P) + sum(
        through_latents(n, c.width // 2, c.latents) for n in at.values()
    )


def action_mamba(m, T, K):
    c, sizes, P = m.config, levels(m, T), sum(levels(m, T))
    at = {f"stem__{index}": T for index in range(len(m.stem))} | {
        f"branch__{index}": n for index, n in enumerate(sizes[:-1])
    }
    each = {
        key: count
        for name, n in at.items()
        for key, count in {f"{name}__mixer__scan": 2 * n, f"{name}__": n}.items()
    }

    def states(
        n,
    ):  # both directions, `expand` of the channels each: the recurrence within pieces, and the read-out
        piece = isqrt(n)
        return int(2 * c.expand * c.width) * c.state * (-(-n // piece) * (piece - 1) + n)

    return used(m, embedding=T, **each, class_=P, boundary_=P) + sum(states(n) for n in at.values())


def actionformer(m, T, K, outputs=None):
    c, sizes = m.config, levels(m, T)
    P, C, H = sum(sizes), c.width, c.head_width
    n = c.stem_blocks * T + sum(sizes[1:])
    reach = c.window // 2
    queries = max(reach, 8)  # a block; it meets the keys up to `reach` to either side
    rows = lambda size: -(-size // queries) * queries
    banded = 2 * C * (queries + 2 * reach) * (c.stem_blocks * rows(T) + sum(map(rows, sizes[1:])))
    block = 4 * C * C + 2 * c.mlp_ratio * C * C + 3 * 3 * C  # projections, MLP, three depthwise k3
    heads = 3 * (2 * (C * H + (c.head_layers - 1) * H * H) + H * ((outputs or K) + 2))
    return 3 * T * (m.input_dim * C + (c.embedding_layers - 1) * C * C) + n * block + banded + P * heads


def text_pyramid(m, T, K):
    dim = m.text.shape[1]
    return actionformer(m, T, K, dim) + sum(levels(m, T)) * dim * K


def afsd_in_clips(m, T, **more):
    c = m.config
    W, sizes = len(window_starts(T, c.clip_steps, c.clip_overlap)), levels(m, c.clip_steps)
    P = W * sum(sizes)
    down = {f"branch__{index}": W * n for index, n in enumerate(sizes[1:])}
    n = W * c.clip_steps
    frame = n * c.frames
    return used(m, embedding=n, **down, frame=frame, **more, class_=P, boundary_=P, refinement=P)


def afsd(m, T, K, **more):
    if m.config.clip_steps:
        return afsd_in_clips(m, T, **more)
    sizes, P = levels(m, T), sum(levels(m, T))
    down = {
        f"branch__{index}": n for index, n in enumerate(sizes[:-1])
    }  # convolved, then every other step kept
    return used(
        m, embedding=T, **down, frame=T, **more, class_=P, boundary_=P, location_mix=P, offset=P, quality=P
    )


def gaf(m, T, K):
    c = m.config
    W = len(window_starts(T, c.clip_steps, c.clip_overlap)) if c.clip_steps else 1
    n = c.clip_steps or T
    P = W * sum(levels(m, n))
    positions = {
        "intra__steps": W * n,
        "intra__channels": W,
        "inter__context__write": W * c.latents,
        "inter": P,
    }
    return afsd(m, T, K, **positions) + through_latents(P, c.width, c.latents)


def window_cnn(m, T, K):
    cells = m.cells(T)
    return used(m, conv=cells * m.config.window, out=cells)


def bilstm(m, T, K):
    c = m.config
    cuts = -(-T // c.sequence)
    return used(m, lstm=cuts * (c.sequence + 2 * c.context), out=T)


def tadtr(m, T, K):
    c, (S, _) = m.config, m.slicing(T)
    L, Q = S * c.slice_steps, S * c.queries
    memory = {f"decoder__{index}__attention__values": L for index in range(c.decoder_layers)}
    steps = L if c.padding == "authors" else T  # every slice is reduced alone, or the recording once
    bins = c.roi_bins * Q * c.slice_steps * c.width if c.roi == "averages" else 0  # weights times features
    return (
        bins
        + used(
            m, reduce=steps, encoder=L, **memory, decoder=Q, reference=Q, classify=Q, refine=Q, actionness=Q
        )
        + c.decoder_layers * S * attention(c.queries, c.queries, c.width)
    )


def windows(m, T):
    return len(window_starts(T, m.config.window, m.config.overlap)), m.config.window


def bsn(m, T, K):
    W, w = windows(m, T)
    P = W * m.config.proposals
    return used(m, convs=W * w, out=W * w, hidden=P, confidence=P, classifier__convs=T, classifier=P)


def bmn(m, T, K, **more):
    c, (W, w) = m.config, windows(m, T)
    P, grid = W * c.proposals, W * w * (w if c.map_axis == "end" else c.max_duration)
    cells = sum(min(c.max_duration, w - start) for start in range(w))
    steps = 2 * c.points if c.samples == 1 else m.matching.rows.shape[1]  # two neighbours of every point
    sampled = W * cells * steps * c.sampled_width
    return (
        used(
            m,
            base=W * w,
            curves=W * w,
            proposal_conv=W * w,
            matching=W * w,
            maps=grid,
            **more,
            classifier__convs=T,
            classifier=P,
        )
        + sampled
    )


def prn(m, T, K):
    c, (W, w) = m.config, windows(m, T)
    rows, columns = (-(-size // c.relation_block) for size in (w, c.max_duration))
    related = W * (
        rows * attention(columns, columns, c.relation_width)
        + columns * attention(rows, rows, c.relation_width)
    )
    return bmn(m, T, K, encoder=W * w, relation=W * rows * columns) + W * attention(w, w, c.width) + related


def tcanet(m, T, K):
    c, (W, w) = m.config, windows(m, T)
    P, half = c.proposals, lambda size: -(-size // 2)

    def ends(
        prefix, steps
    ):  # two convolutions of stride 2, a linear layer, or a convolution of all steps too
        last = ("4", "7") if prefix.endswith("whole") and c.regressor == "published" else ("5",)
        once = {f"{prefix}__{index}": P for index in last}
        return {f"{prefix}__0": P * half(steps), f"{prefix}__2": P * half(half(steps))} | once

    regressors = {
        key: count
        for index in range(len(m.regressors))
        for name, steps in (("ends__0", c.points), ("ends__1", c.points), ("whole", 4 * c.points))
        for key, count in ends(f"regressors__{index}__{name}", steps).items()
    }
    generator, m.generator = m.generator, None  # counted by its own formula
    without_generator = used(m, base=W * w, encoders=W * w, **regressors, classifier__convs=T, classifier=P)
    m.generator = generator
    return bmn(generator, T, K) + without_generator + c.encoders * W * attention(w, w, c.width)


def ssn(m, T, K):
    P = m.config.proposals
    return used(m, convs=T, actionness=T, activity=P, completeness=P, regression=P)


def stale(m, T, K):
    c, (W, w) = m.config, windows(m, T)
    n, names, dim = W * w, W * (K + 1), m.text.shape[1]  # K classes and the background
    reads = lambda prefix, queries: {f"{prefix}__key": n, f"{prefix}__value": n, f"{prefix}__": queries}
    if c.form == "released":
        return stale_released(m, T, K, W, w, reads)
    layers = {
        key: count
        for index in range(len(m.query_layers))
        for key, count in (
            reads(f"query_layers__{index}__attention", W) | {f"query_layers__{index}": W}
        ).items()
    }
    text = {"to_text": n} if dim != c.width else {}
    pair = {"mask_pair": n} if c.relative_masks else {}
    embedding = {"embedding": T} if len(m.embedding) else {}
    products = (
        W * attention(w, w, c.width)
        + len(m.query_layers) * W * attention(1, w, c.width)
        + n * c.width
        + W * attention(K + 1, w, dim)
        + n * (K + 1) * dim
        + (W * w * w * c.mask_width if c.relative_masks else 0)
    )
    return (
        used(
            m,
            **embedding,
            **reads("snippet", n),
            **layers,
            query_out=W,
            **text,
            **reads("adapter", names),
            **pair,
            mask_conv=n,
            mask_out=n,
        )
        + products
    )


def stale_released(m, T, K, W, w, reads):
    """Each head as wide as the model; an encoder and a decoder with one query find the foreground."""
    c, n, dim, layers = m.config, W * w, m.text.shape[1], range(m.config.query_layers)
    encoder = {f"foreground__encoder__{index}__": n for index in layers}
    decoder = {
        key: count
        for index in layers
        for key, count in (
            reads(f"foreground__decoder__{index}__reading", W) | {f"foreground__decoder__{index}": W}
        ).items()
    }
    products = (
        W * attention(w, w, c.heads * c.width)
        + len(layers) * W * (attention(w, w, c.width) + attention(1, 1, c.width) + attention(1, w, c.width))
        + n * c.width
        + W * attention(K + 1, w, c.heads * dim)
        + n * (K + 1) * dim
        + W * K * dim
    )
    return products + used(
        m,
        **({"embedding": T} if len(m.embedding) else {}),
        **reads("snippet", n),
        foreground__project=n,
        **encoder,
        **decoder,
        foreground__mask_embedding=W,
        **({"to_text": n} if dim != c.width else {}),
        **reads("adapter", W * (K + 1)),
        mask_conv=n,
        mask_out=n,
    )


FORMULAS = {name: value for name, value in globals().items() if name in models.names()}


def test_every_model_has_a_formula():
    assert set(FORMULAS) == set(models.names())


@pytest.mark.parametrize(("preset", "T"), [("compact", 211), ("paper", 61)])
@pytest.mark.parametrize("name", models.names())
def test_count_equals_the_closed_form(name, preset, T):
    D, K = 16, 5
    model = models.build(name, input_dim=D, num_classes=K, preset=preset).eval().requires_grad_(False)
    total, uncounted = count_macs(model, D, T)
    assert (total, uncounted) == (FORMULAS[name](model, T, K), []) and total > 0
    if preset == "compact":  # a second counter knows fewer operators, so it bounds from below
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, D, T))
        assert total >= counter.get_total_flops() / 2


def test_the_options_of_local_global_are_counted():
    model = models.build("local_global", input_dim=16, num_classes=5, latents=16, regressions="both").eval()
    assert count_macs(model, 16, 211) == (local_global(model, 211, 5), [])
