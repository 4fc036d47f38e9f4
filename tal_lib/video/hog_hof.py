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
    """RGB (H, W, 3) → gray (48, 64), uint8."""
    return cv2.resize(
        cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
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


def hog(image: np.ndarray) -> np.ndarray:
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


def hof(before: np.ndarray, image: np.ndarray) -> np.ndarray:
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
