"""Appearance and motion of a picture without learned weights: histograms of gradients and of optical flow.

Sources: HOG: Dalal, Triggs, Histograms of Oriented Gradients for Human Detection (CVPR 2005). HOF: Laptev et
al., Learning Realistic Human Actions from Movies (CVPR 2008). Optical flow: Farnebäck (SCIA 2003).
"""

import cv2
import numpy as np

WIDTH, HEIGHT, CELL = 64, 48, 8  # pixels
GRADIENT_BINS, FLOW_BINS = 9, 8
HOG = WIDTH // CELL * (HEIGHT // CELL) * GRADIENT_BINS
FLOW_CELLS = (WIDTH // 16, HEIGHT // 16)
HOF = (FLOW_CELLS[0] * FLOW_CELLS[1] + 1) * (FLOW_BINS + 1)
STILL = 0.25  # pixels per frame; slower pixels count as still


def gray(picture: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) → gray (48, 64), uint8. A gray picture stays as it is."""
    if picture.ndim == 2:
        return picture
    return cv2.resize(
        cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
    )


def _histograms(cells, bins, weights, cell_count, bin_count):
    """Weighted histograms (n, cell_count, bin_count) of n pictures; cells (H, W), bins and weights
    (n, H, W)."""
    count = len(bins)
    index = (np.arange(count)[:, None, None] * cell_count + cells) * bin_count + bins
    total = np.bincount(index.ravel(), weights.ravel(), minlength=count * cell_count * bin_count)
    return total.reshape(count, cell_count, bin_count)


def _cells(width):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return rows // width * (WIDTH // width) + columns // width


_FINE, _COARSE = _cells(CELL), _cells(16)


def _polar(x, y):
    """Length and angle (n, H, W) of vectors."""
    parts = cv2.cartToPolar(*(part.reshape(-1, WIDTH) for part in (x, y)))
    return (part.reshape(x.shape) for part in parts)


def hog(images: np.ndarray) -> np.ndarray:
    """Gray (n, 48, 64) → unsigned gradient histograms of 8 × 6 cells; (n, 432), in [0, 1].

    Each histogram is normalised by the gradient energy of its neighbourhood.
    """
    x, y = np.empty((2, *images.shape), np.float32)
    for image, right, down in zip(images, x, y):
        cv2.Sobel(image, cv2.CV_32F, 1, 0, dst=right)
        cv2.Sobel(image, cv2.CV_32F, 0, 1, dst=down)
    size, angle = _polar(x, y)
    bins = np.minimum((angle % np.pi) / np.pi * GRADIENT_BINS, GRADIENT_BINS - 1).astype(int)
    cells = _histograms(_FINE, bins, size, HOG // GRADIENT_BINS, GRADIENT_BINS)
    energy = np.square(cells).sum(2).reshape(-1, HEIGHT // CELL, WIDTH // CELL)
    around = np.stack(
        [
            cv2.boxFilter(picture, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
            for picture in energy
        ]
    )
    scale = np.sqrt(around.reshape(len(images), -1, 1) + 1e4)
    return (cells / scale).astype(np.float32).reshape(len(images), -1)


def hof(before: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Gray pictures (n, 48, 64) and the picture before each → optical flow histograms of 4 × 3 cells and of
    the whole picture; (n, 117).

    A histogram holds speed by direction, and the fraction of pixels that do not move.
    """
    flow = np.stack(
        [
            cv2.calcOpticalFlowFarneback(last, image, None, 0.5, 3, 9, 3, 5, 1.1, 0)
            for last, image in zip(before, images)
        ]
    )
    speed, angle = _polar(flow[..., 0], flow[..., 1])
    bins = np.minimum(angle / (2 * np.pi) * FLOW_BINS, FLOW_BINS - 1).astype(int)
    still = speed < STILL
    bins, weights = np.where(still, FLOW_BINS, bins), np.where(still, 1.0, speed) / (WIDTH * HEIGHT)
    cells = FLOW_CELLS[0] * FLOW_CELLS[1]
    local = _histograms(_COARSE, bins, weights, cells, FLOW_BINS + 1)
    every = np.concatenate([local * cells, local.sum(1, keepdims=True)], 1)
    return np.log1p(10 * every).astype(np.float32).reshape(len(images), -1)
