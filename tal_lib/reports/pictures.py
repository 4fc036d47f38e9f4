"""Pictures as small PNG files: the same bytes for the same picture."""

import io

import numpy as np
from PIL import Image

COLOURS = 256
SEEN = 4  # of 255: a difference that can be seen where it covers an area
FRINGE = 24  # of 255: the same on the fringes of lines and letters


def small_png(png: bytes) -> bytes:
    """The picture with a palette of its own and without metadata, about a third of the size.

    A picture that has a palette comes back as it is, so that doing it twice changes nothing. One whose
    colours no palette holds well enough is only compressed better.
    """
    with Image.open(io.BytesIO(png)) as picture:
        if picture.mode == "P":
            return png
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
        resolution = {"dpi": picture.info["dpi"]} if "dpi" in picture.info else {}
    content = io.BytesIO()
    _with_palette(flat).save(content, "PNG", optimize=True, **resolution)
    return content.getvalue()


def _with_palette(picture):
    """The picture in 256 colours, by the faster way that is good enough; itself if neither is."""
    for method, rounds in ((Image.Quantize.FASTOCTREE, 0), (Image.Quantize.MEDIANCUT, 2)):
        reduced = picture.quantize(COLOURS, method=method, kmeans=rounds, dither=Image.Dither.NONE)
        error = np.abs(np.asarray(reduced.convert("RGB"), int) - np.asarray(picture, int)).max(axis=2)
        if (error > SEEN).mean() < 0.03 and (error > FRINGE).mean() < 0.003:
            return reduced
    return picture
