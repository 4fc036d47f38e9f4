"""SGP, Trident decoding and the released layout against twins written from the definition."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.models.parts.pyramid import At


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return models.build(
        "tridet", input_dim=6, num_classes=3, width=32, head_width=32, mlp_width=16, bins=4
    ).eval()


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 60), seed=st.integers(0, 1000))
def test_trident_decoding_is_the_expectation_over_bins(model, steps, seed):
    torch.manual_seed(seed)
    points, bins, K = model.points(steps), 4, 3
    P = len(points.position)
    outputs = (
        torch.randn(1, P, K),
        torch.rand(1, P, 2, bins + 1),
        torch.randn(1, P, K),
        torch.randn(1, P, K),
    )
    rows, labels = torch.arange(P).repeat_interleave(K), torch.arange(K).repeat(P)
    got = model.decode(outputs, points, At(torch.zeros_like(rows), rows, labels))
    first = 0
    for size in points.level_sizes:
        for t in range(size):
            for k in range(K):
                stride, position = float(points.stride[first + t]), float(points.position[first + t])
                distances = []
                for side, scores, direction in ((0, outputs[2], -1), (1, outputs[3], 1)):
                    values = []
                    for b in range(bins + 1):  # b bins away from the point
                        at = t + direction * b
                        score = float(scores[0, first + at, k]) if 0 <= at < size else 0.0
                        column = bins - b if direction < 0 else b  # start bins are listed from the farthest
                        values.append((b, score + float(outputs[1][0, first + t, side, column])))
                    p = torch.tensor([value for _, value in values]).softmax(0)
                    distances.append(sum(float(w) * b for w, (b, _) in zip(p, values)))
                want = (position - distances[0] * stride, position + distances[1] * stride)
                assert got[(first + t) * K + k].tolist() == pytest.approx(want, abs=1e-3)
        first += size


def test_sgp_equals_its_formula(model):
    torch.manual_seed(1)
    block = model.stem[0].double()
    x = torch.randn(1, 23, 32, dtype=torch.double)
    u = F.layer_norm(x, (32,), block.norm.weight, block.norm.bias)
    conv = lambda layer, v: F.conv1d(
        v.transpose(1, 2), layer.weight.T[:, None], layer.bias, padding=layer.kernel // 2, groups=32
    ).transpose(1, 2)
    gate = F.relu(conv(block.global_fc, u.mean(1, keepdim=True)))
    out = (
        x + conv(block.fc, u) * gate + (conv(block.convw, u) + conv(block.convkw, u)) * conv(block.psi, u) + u
    )
    normed = F.group_norm(out.transpose(1, 2), 16, block.group_norm.weight, block.group_norm.bias).transpose(
        1, 2
    )
    want = out + block.mlp_out(F.gelu(block.mlp_in(normed)))
    torch.testing.assert_close(block(x, None)[0], want)
    assert block.convkw.kernel == 11
    model.stem[0].float()
