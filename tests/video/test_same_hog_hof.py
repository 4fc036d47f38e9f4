"""The batched `hog-hof` gives the same features, to the last bit, as a version that takes single pictures.

Features of benchmarks are cached by their hash, so they must not change.
"""

import sys

import cv2
import numpy as np
import pytest

from tal_lib.video import backbone
from tal_lib.video.hog_hof import (
    CELL,
    FLOW_BINS,
    FLOW_CELLS,
    GRADIENT_BINS,
    HEIGHT,
    HOG,
    STILL,
    WIDTH,
    gray,
)


def _histograms(cells, bins, weights, cell_count, bin_count):
    index = cells * bin_count + bins
    return np.bincount(index.ravel(), weights.ravel(), minlength=cell_count * bin_count).reshape(
        cell_count, bin_count
    )


def _cells(width):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return rows // width * (WIDTH // width) + columns // width


_FINE, _COARSE = _cells(CELL), _cells(16)


def slow_hog(image: np.ndarray) -> np.ndarray:
    """Gray (48, 64) → unsigned gradient histograms of 8 × 6 cells; (432,), in [0, 1].

    Each histogram is normalised by the gradient energy of its neighbourhood.
    """
    x, y = (cv2.Sobel(image, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    size, angle = cv2.cartToPolar(x, y)
    bins = np.minimum((angle % np.pi) / np.pi * GRADIENT_BINS, GRADIENT_BINS - 1).astype(int)
    cells = _histograms(_FINE, bins, size, HOG // GRADIENT_BINS, GRADIENT_BINS)
    energy = np.square(cells).sum(1).reshape(HEIGHT // CELL, WIDTH // CELL)
    around = cv2.boxFilter(energy, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return (cells / np.sqrt(around.reshape(-1, 1) + 1e4)).astype(np.float32).ravel()


def slow_hof(before: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Two gray pictures → optical flow histograms of 4 × 3 cells and of the whole picture; (117,).

    A histogram holds speed by direction, and the fraction of pixels that do not move.
    """
    flow = cv2.calcOpticalFlowFarneback(before, image, None, 0.5, 3, 9, 3, 5, 1.1, 0)
    speed, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    bins = np.minimum(angle / (2 * np.pi) * FLOW_BINS, FLOW_BINS - 1).astype(int)
    still = speed < STILL
    bins, weights = np.where(still, FLOW_BINS, bins), np.where(still, 1.0, speed) / (WIDTH * HEIGHT)
    cells = FLOW_CELLS[0] * FLOW_CELLS[1]
    local = _histograms(_COARSE, bins, weights, cells, FLOW_BINS + 1)
    every = np.concatenate([local * cells, local.sum(0, keepdims=True)])
    return np.log1p(10 * every).astype(np.float32).ravel()


def slow(pictures, before):
    images = [gray(picture) for picture in pictures]
    earlier = [images[0] if before is None else gray(before), *images]
    return np.stack(
        [np.concatenate([slow_hog(image), slow_hof(last, image)]) for last, image in zip(earlier, images)]
    )


def scene(count):
    """Pictures with motion, flat areas, noise, and a cut to black."""
    rng = np.random.default_rng(3)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (260, 400, 3), dtype=np.uint8), (0, 0), 4)
    for index in range(count):
        picture = ground[index : index + 192, 2 * index : 2 * index + 256].copy()
        picture[60:90, 40 + 3 * index : 70 + 3 * index] = 230
        if index % 3 == 0:
            picture = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        yield np.zeros_like(picture) if index == count // 2 else picture


@pytest.mark.parametrize("chunk", [1, 5, 8, 64])
def test_batches_and_threads_change_no_bit(monkeypatch, chunk):
    monkeypatch.setattr(sys.modules["tal_lib.video.backbones"], "CHUNK", chunk)
    pictures = np.stack(list(scene(37)))
    model = backbone("hog-hof")
    expected = slow(pictures, None)
    assert expected.dtype == np.float32 and len(np.unique(expected)) > 1000
    assert np.array_equal(model.describe(pictures, None), expected)
    prepared = np.stack([model.prepare(picture) for picture in pictures])
    ours = [model.describe(prepared[:20], None), model.describe(prepared[20:], prepared[19])]
    assert np.array_equal(np.concatenate(ours), expected)
