"""Pictures as small PNG files: equal pictures give equal bytes.

A file describes itself. Pages show the description to readers who do not see the picture.
"""

import html
import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

COLOURS = 256
SEEN = 4  # of 255: a difference that is visible on an area
FRINGE = 24  # of 255: a difference that is visible on the edges of lines and letters
DESCRIPTION = "Description"  # the standard keyword of PNG
NIGHT = (13, 17, 23)  # background of the dark form, as on GitHub
BRIGHTEST = 240  # of 255: the letters of the dark form


def small_png(png: bytes, description: str = "") -> bytes:
    """The picture with a palette, without metadata but its description; about a third of the size.

    A picture that already has a palette stays unchanged, so a second call changes nothing. If no palette is
    close enough to its colours, the picture is only compressed better.
    """
    with Image.open(io.BytesIO(png)) as picture:
        if picture.mode == "P":
            return png
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
        resolution = picture.info.get("dpi")
    return _png(_with_palette(flat), description, resolution)


def _png(picture, description, resolution):
    about, content = PngImagePlugin.PngInfo(), io.BytesIO()
    if description:
        text = description.encode("utf-8", "backslashreplace").decode()  # file names may contain any bytes
        about.add_itxt(DESCRIPTION, text)
    options = {"dpi": resolution} if resolution else {}
    picture.save(content, "PNG", optimize=True, pnginfo=about, **options)
    return content.getvalue()


def dark_png(png: bytes) -> bytes:
    """The dark form of a picture: lightness is inverted, hue and saturation stay.

    Only the palette changes, where there is one, so both forms are equally large.
    """
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        about, resolution = picture.info.get(DESCRIPTION, ""), picture.info.get("dpi")
        if palette := picture.getpalette("RGB"):
            colours = dark_colours(np.array(palette, np.uint8).reshape(-1, 3))
            picture.putpalette(colours.ravel().tolist())
            dark = picture.copy()
        else:
            dark = Image.fromarray(dark_colours(np.asarray(picture.convert("RGB"))))
    return _png(dark, about, resolution)


def dark_colours(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3), uint8 RGB, with inverted lightness: white becomes `NIGHT`, black nearly white."""
    whole = colours.astype(float)
    inverted = whole + 255 - whole.max(-1, keepdims=True) - whole.min(-1, keepdims=True)
    night = np.array(NIGHT, float)
    return np.round(night + inverted * (BRIGHTEST - night) / 255).astype(np.uint8)


def description_of(path: str | Path) -> str:
    """What a picture says of itself; empty if it does not, or if it is no picture."""
    try:
        with Image.open(path) as picture:
            return " ".join(str(picture.info.get(DESCRIPTION, "")).split())
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return ""


def embedded(light: Path, dark: Path, folder: Path) -> str:
    """A picture as HTML for a Markdown page on GitHub: the dark form, if there is one, for dark screens.

    The text for those who do not see it is the picture's description. folder: that of the page.
    """
    address = lambda path: html.escape(path.relative_to(folder).as_posix())
    image = f'<img alt="{html.escape(description_of(light))}" src="{address(light)}">'
    if not dark.is_file():
        return image
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{address(dark)}">'
    return f"<picture>{source}{image}</picture>"


def _with_palette(picture):
    """The picture in 256 colours, by the faster method that is good enough; the original if neither is."""
    for method, rounds in ((Image.Quantize.FASTOCTREE, 0), (Image.Quantize.MEDIANCUT, 2)):
        reduced = picture.quantize(COLOURS, method=method, kmeans=rounds, dither=Image.Dither.NONE)
        error = np.abs(np.asarray(reduced.convert("RGB"), int) - np.asarray(picture, int)).max(axis=2)
        if (error > SEEN).mean() < 0.03 and (error > FRINGE).mean() < 0.003:
            return reduced
    return picture
