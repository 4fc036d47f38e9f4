"""One theme for every figure: sizes, palette, and a fixed colour and marker per model."""

import io
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns

from tal_lib.reports.pictures import dark_png, small_png
from tal_lib.reports.tables.files import keep

WIDTH = 4.2  # inches of every figure: a column of a page, or a telephone of 390 pixels
SMALL = 7  # points, the least size of letters: 9 pixels where `WIDTH` is 390 pixels

# Okabe–Ito, then Tol's muted set: colour-blind readers can distinguish them; markers are a second cue
_COLOURS = [
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#44AA99",
    "#999933",
    "#332288",
    "#DDCC77",
    "#AA4499",
    "#117733",
    "#88CCEE",
    "#661100",
    "#6699CC",
    "#606060",
]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8", (4, 1, 0), "1", "2"]
_MODELS = [
    "local_global",
    "actionformer",
    "bilstm",
    "window_cnn",
    "tridet",
    "temporalmaxer",
    "action_mamba",
    "tadtr",
    "afsd",
    "bmn",
    "bsn",
    "prn",
    "tcanet",
    "ssn",
    "stale",
    "gaf",
    "text_pyramid",
    "timeline_prior",
]
_STYLE = {name: (_COLOURS[i], _MARKERS[i]) for i, name in enumerate(_MODELS)}


def style(model: str, place: int = 0) -> tuple[str, str]:
    """(colour, marker) of a model, the same in every figure. Other names get theirs by their position."""
    return _STYLE.get(
        model.split(" + ")[0], (_COLOURS[(place + 1) % len(_COLOURS)], _MARKERS[(place + 1) % len(_MARKERS)])
    )


def apply() -> None:
    """Set the theme. Every figure function calls it."""
    sns.set_theme(
        context="paper",
        style="ticks",
        rc={
            "figure.figsize": (WIDTH, 2.6),
            "figure.dpi": 150,
            "savefig.dpi": 150,  # a small file; 1.6 pixels for each of a telephone's
            "font.size": 8,
            "axes.labelsize": 8,
            "axes.titlesize": 8,
            "xtick.labelsize": 7.5,
            "ytick.labelsize": 7.5,
            "legend.fontsize": 7.5,
            "legend.title_fontsize": 7.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "text.parse_math": False,  # a `$` in a class name stays a `$`
        },
    )


def new_axes(ax=None, **figure):
    """`ax`, or the axes of a new figure."""
    apply()
    return ax if ax is not None else plt.subplots(**figure)[1]


def save(figure: mpl.figure.Figure, path: str | Path, caption: str = "", dark: Path | None = None) -> Path:
    """Write a figure as PNG, without date and versions. A file with the same picture stays unchanged.

    Args:
        caption: what the figure shows; the file keeps it as its description.
        dark: where to write the dark form; nowhere by default.
    """
    content = io.BytesIO()
    figure.savefig(
        content, format="png", bbox_inches="tight", metadata={"Software": None}
    )  # long labels are not cut
    small = small_png(content.getvalue(), caption)
    if dark:
        keep(dark, dark_png(small))
    return keep(path, small)


def show(axes) -> None:
    """Show a figure once, at this place of a notebook."""
    from IPython.display import display

    display(axes.figure)
    plt.close(axes.figure)
