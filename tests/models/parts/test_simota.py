"""SimOTA against the procedure, a segment and a point at a time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.models.parts.assignment import pyramid_points, simota_assignment
from tal_lib.models.parts.pyramid import RANGES
from tal_lib.segments import interval_iou


def focal(logit, target):
    p = 1 / (1 + 2.718281828459045**-logit)
    pt, alpha = (p, 0.25) if target else (1 - p, 0.75)
    return -alpha * (1 - pt) ** 2 * torch.tensor(pt).log().item()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), steps=st.integers(2, 40), count=st.integers(0, 5))
def test_simota_equals_the_procedure(seed, steps, count):
    generator = torch.Generator().manual_seed(seed)
    points = pyramid_points(steps, RANGES)
    P, K = len(points.position), 3
    start = torch.rand(count, generator=generator) * steps
    segments = torch.stack([start, start + 1 + torch.rand(count, generator=generator) * 10], 1)
    labels = torch.randint(K, (count,), generator=generator)
    logits = torch.randn(P, K, generator=generator)
    reach = torch.rand(P, 2, generator=generator) * 6
    predicted = torch.stack([points.position - reach[:, 0], points.position + reach[:, 1]], 1)
    valid = torch.rand(P, generator=generator) > 0.2
    classes, target, positive = simota_assignment(points, segments, labels, logits, predicted, valid)

    wishes = {}
    for n in range(count):
        (s, e), centre, ranked, overlaps = segments[n].tolist(), float(segments[n].mean()), [], []
        for i in range(P):
            t, stride = float(points.position[i]), float(points.stride[i])
            if valid[i] and max(s, centre - 1.5 * stride) < t < min(e, centre + 1.5 * stride):
                overlap = float(interval_iou(predicted[i], segments[n]))
                cost = sum(focal(float(logits[i, k]), k == int(labels[n])) for k in range(K))
                ranked.append((cost - 2 * torch.tensor(max(overlap, 1e-8)).log().item(), i))
                overlaps.append(overlap)
        k = max(1, int(sum(sorted(overlaps, reverse=True)[:10])))
        for cost, i in sorted(ranked)[:k]:
            wishes.setdefault(i, []).append((cost, n))
    assert set(positive.nonzero().flatten().tolist()) == set(wishes)
    for i, candidates in wishes.items():
        n = min(candidates)[1]
        assert (
            target[i].tolist() == segments[n].tolist()
            and classes[i].argmax() == labels[n]
            and classes[i].sum() == 1
        )
    assert classes[~positive].sum() == 0
