"""Widths at which six one-stage models need equally many MACs, at three sizes: the options of `size.yaml`.

    python experiments/widths.py [--steps 576] [--spread 0.099]

Only `width`, `head_width` (the same) and the embedding change: its number of layers, and the kernel of the
first. MACs are those of `tal_lib.cost.count_macs` for a recording of HAPT's shape. With one embedding they
are a quadratic function of the width, so three counts foretell all widths; those that are chosen are counted.

A size is a range of MACs in which every model has a width. Of all ranges near the size's target, the one is
taken that changes the fewest embeddings, and of these the nearest one. The last lines are the grid's options.
"""

import argparse
import math

import numpy as np
import pandas as pd

from tal_lib import TalError, models
from tal_lib.cost import count_macs

MODELS = ("local_global", "actionformer", "temporalmaxer", "tridet", "afsd", "gaf")
INPUT_DIM, CLASSES = 300, 12  # of HAPT
TARGETS = {"small": 0.19, "medium": 0.54, "large": 2.0}  # GMACs at STEPS
STEPS = 576  # a crop of the equal recipe
NEAR = 0.1  # how far a size may be from its target, relative
WIDTHS = range(16, 513, 4)
EMBEDDINGS = tuple((layers, kernel) for layers in (2, 1) for kernel in (3, 1))


def options(model: str, width: int, layers: int, kernel: int) -> dict:
    """Options of a model of this width, and of its embedding where it differs from the compact one."""
    compact = models.config(model)
    embedding = {"embedding_layers": layers, "embedding_kernel": kernel}
    changed = {name: value for name, value in embedding.items() if getattr(compact, name) != value}
    return {"width": width, "head_width": width} | changed


def fits(model: str, chosen: dict) -> bool:
    """Whether the model accepts the options."""
    try:
        models.config(model, "compact", **chosen)
    except TalError:
        return False
    return True


def gmacs(model: str, chosen: dict, steps: int = STEPS) -> float:
    """GMACs of a model with these options on a recording of HAPT's shape."""
    built = models.build(model, input_dim=INPUT_DIM, num_classes=CLASSES, **chosen)
    return count_macs(built, INPUT_DIM, steps)[0] / 1e9


def interpolated(model: str, steps: int = STEPS) -> list[tuple[float, dict]]:
    """(GMACs, options) of every width and embedding that the model accepts, from three counted widths."""
    rows = []
    for layers, kernel in EMBEDDINGS:
        accepted = [w for w in WIDTHS if fits(model, options(model, w, layers, kernel))]
        known = [accepted[0], accepted[len(accepted) // 2], accepted[-1]]
        counted = [gmacs(model, options(model, w, layers, kernel), steps) for w in known]
        curve = np.polynomial.Polynomial.fit(known, counted, 2)
        rows += [(float(curve(w)), options(model, w, layers, kernel)) for w in accepted]
    return rows


def choose(known: dict[str, list[tuple[float, dict]]], target: float, spread: float) -> dict[str, dict]:
    """Options of each model, whose MACs are within `spread` of each other and near the target.

    Args:
        known: model → the result of `interpolated`.

    Raises:
        TalError: there is no such range of MACs.
    """
    best = None
    for low in sorted({macs for rows in known.values() for macs, _ in rows}):
        middle = low * math.sqrt(1 + spread)
        if abs(middle / target - 1) > NEAR:
            continue
        inside = {
            model: [
                (len(each), abs(math.log(macs / middle)), number, each)
                for number, (macs, each) in enumerate(rows)
                if low <= macs <= (1 + spread) * low
            ]
            for model, rows in known.items()
        }
        if all(inside.values()):
            picked = {model: min(rows) for model, rows in inside.items()}
            cost = sum(each[0] for each in picked.values()), abs(math.log(middle / target))
            if best is None or cost < best[0]:
                best = cost, {model: each[3] for model, each in picked.items()}
    if best is None:
        raise TalError(f"no range of MACs near {target:g} GMACs has all models", remedy="Raise --spread.")
    return best[1]


def main():
    """Print the chosen sizes, the spread of each, and the options as YAML."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="of a recording (default: 576)")
    parser.add_argument("--spread", type=float, default=0.099, help="of the models' MACs at one size")
    arguments = parser.parse_args()
    known = {model: interpolated(model, arguments.steps) for model in MODELS}
    sizes = {size: choose(known, target, arguments.spread) for size, target in TARGETS.items()}
    table = pd.DataFrame(
        {"size": size, "model": model, "GMACs": gmacs(model, chosen, arguments.steps)} | chosen
        for size, each in sizes.items()
        for model, chosen in each.items()
    )
    print(table.round(3).astype(object).fillna("").to_string(index=False))
    macs = table.groupby("size", sort=False).GMACs
    print((macs.max() / macs.min() - 1).map("{:.1%}".format).to_string())
    for model in MODELS:
        text = [
            ", ".join(f"{name}: {value}" for name, value in each[model].items()) for each in sizes.values()
        ]
        print(f"{model}: [" + ", ".join(f"{{{chosen}}}" for chosen in text) + "]")


if __name__ == "__main__":
    main()
