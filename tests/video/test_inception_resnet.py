"""Inception-ResNet-v2: the published numbers of its architecture, and the way to its cost."""

import numpy as np
import pytest
import torch
from torch import nn

from tal_lib.cost.macs import count_call
from tal_lib.video import backbone
from tal_lib.video import end_to_end as whole_way
from tal_lib.video.inception_resnet import FEATURES, PIXELS, Conv, InceptionResNetV2, Residual

HEAD = FEATURES * 1000 + 1000  # the classifier of the published counts


@pytest.fixture(scope="module")
def shapes_only():
    with torch.device("meta"):
        return InceptionResNetV2().eval()


def macs_of(network, pixels):
    """MACs of the convolutions of one picture, by their formula."""
    total = []

    def count(conv, inputs, output):
        total.append(output[0].numel() * conv.weight[0].numel())

    device = next(network.parameters()).device
    hooks = [conv.register_forward_hook(count) for conv in network.modules() if isinstance(conv, nn.Conv2d)]
    with torch.inference_mode():
        network(torch.zeros(1, 3, pixels, pixels, device=device))
    for hook in hooks:
        hook.remove()
    return sum(total)


def test_the_number_of_parameters_is_the_published_one(shapes_only):
    parameters = sum(parameter.numel() for parameter in shapes_only.parameters())
    assert parameters + HEAD == 55_843_464  # timm: 55.84 M
    norms = sum(norm.num_features for norm in shapes_only.modules() if isinstance(norm, nn.BatchNorm2d))
    assert parameters + HEAD - norms + 2 * norms == 55_873_736  # Keras: no scales, but means and variances


def test_macs_are_the_published_ones(shapes_only):
    """timm counts 13.18 G: with the classifier, and two for every value of a batch norm."""
    outputs = []
    hooks = [
        norm.register_forward_hook(lambda norm, inputs, output: outputs.append(output.numel()))
        for norm in shapes_only.modules()
        if isinstance(norm, nn.BatchNorm2d)
    ]
    macs = macs_of(shapes_only, PIXELS)
    for hook in hooks:
        hook.remove()
    assert macs == 13_154_258_016
    assert round((macs + HEAD + 2 * sum(outputs)) / 1e9, 2) == 13.18


def test_positions_and_channels_of_each_stage(shapes_only):
    """The last map has 8 × 8 positions: a stride of 32 pixels after valid convolutions."""
    x, stages = torch.zeros(2, 3, PIXELS, PIXELS, device="meta"), []
    for layer in shapes_only:
        x = layer(x)
        if not stages or stages[-1] != tuple(x.shape[1:]):
            stages.append(tuple(x.shape[1:]))
    sizes = [(320, 35, 35), (1088, 17, 17), (2080, 8, 8), (1536, 8, 8), (1536, 1, 1), (1536,)]
    assert stages[:7] == [
        (32, 149, 149),
        (32, 147, 147),
        (64, 147, 147),
        (64, 73, 73),
        (80, 73, 73),
        (192, 71, 71),
        (192, 35, 35),
    ]
    assert stages[7:] == sizes and x.shape == (2, FEATURES)
    blocks = [module for module in shapes_only if isinstance(module, Residual)]
    assert [block.scale for block in blocks] == [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [1.0]
    assert [block.relu for block in blocks] == [True] * 39 + [False]
    assert sum(isinstance(module, Conv) for module in shapes_only.modules()) == 204


def test_the_way_from_a_video_takes_it_without_a_download():
    torch.manual_seed(0)
    chosen = backbone("inception_resnet_v2", trained=False)
    assert whole_way.SAMPLINGS[chosen.name].rate == 5 and chosen.name not in whole_way.TRAINED
    network = chosen.network
    assert network.pixels == PIXELS and dict(chosen.streams) == {"inception_resnet_v2": FEATURES}
    pictures = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    prepared = np.stack([chosen.prepare(picture) for picture in pictures])
    assert prepared.shape == (2, PIXELS, PIXELS, 3)
    small = torch.zeros(1, 3, 75, 75)  # counted as on 299 pixels, in less time
    macs, uncounted = count_call(network.module, network.call, small)
    assert not uncounted and macs - macs_of(network.module, 75) == FEATURES  # the last mean
    with torch.inference_mode():
        features = network.call(torch.rand(2, 3, 75, 75) * 2 - 1)
    assert features.shape == (2, FEATURES) and torch.isfinite(features).all() and features.std() > 1e-4
