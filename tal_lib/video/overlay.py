"""Draw detections into pictures."""

import cv2
import numpy as np

COLOURS = [
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (136, 34, 85),
    (68, 170, 153),
    (153, 153, 51),
    (51, 34, 136),
]


def colour_of(label: str, classes: tuple[str, ...]) -> tuple[int, int, int]:
    """The RGB colour of a class, the same everywhere."""
    return COLOURS[list(classes).index(label) % len(COLOURS)]


def draw_action(
    picture: np.ndarray, label: str | None, score: float, classes: tuple[str, ...], least_width: int = 480
) -> np.ndarray:
    """A copy of the picture, at least `least_width` wide, with a band below it: the action and its score."""
    scale = max(1.0, least_width / picture.shape[1])
    shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    shown = shown[: shown.shape[0] // 2 * 2, : shown.shape[1] // 2 * 2]
    band = np.full((34, shown.shape[1], 3), 24, np.uint8)
    if label:
        cv2.rectangle(
            band, (0, 28), (round(shown.shape[1] * min(1.0, score)), 34), colour_of(label, classes), -1
        )
    text = f"{label}  {score:.2f}" if label else "nothing"
    cv2.putText(
        band,
        text,
        (10, 22),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.6,
        (255, 255, 255) if label else (150, 150, 150),
        1,
        cv2.LINE_AA,
    )
    return np.vstack([shown, band])


def to_jpeg(picture: np.ndarray, quality: int = 80) -> bytes:
    """RGB picture → JPEG."""
    return cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )[1].tobytes()
