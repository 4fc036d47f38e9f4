"""Widths at which six one-stage models need equally many MACs, at three sizes: the options of `size.yaml`.

    python experiments/widths.py [--steps 576] [--tolerance 0.045]

Only `width`, `head_width` (the same) and the embedding change: its number of layers, and the kernel of the
first. A model keeps its compact embedding where some width comes close enough with it. MACs are those of
`tal_lib.cost.count_macs` for a recording of HAPT's shape. They are a quadratic function of the width, so
three counts foretell the others; the chosen ones are counted. The last lines are the blocks' options.
"""

import argparse
from functools import cache

import numpy as np
import pandas as pd

from tal_lib import TalError, models
from tal_lib.cost import count_macs

MODELS = ("local_global", "actionformer", "temporalmaxer", "tridet", "afsd", "gaf")
INPUT_DIM, CLASSES = 300, 12  # of HAPT
GMACS = {"small": 0.14, "medium": 0.54, "large": 2.0}  # at STEPS
STEPS = 576
WIDTHS = range(16, 513, 4)
EMBEDDINGS = tuple((layers, kernel) for layers in (2, 1) for kernel in (3, 1))


def options(width: int, layers: int, kernel: int, model: str) -> dict:
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


@cache
def _gmacs(model, chosen, steps):
    built = models.build(model, input_dim=INPUT_DIM, num_classes=CLASSES, **dict(chosen))
    return count_macs(built, INPUT_DIM, steps)[0] / 1e9


def gmacs(model: str, chosen: dict, steps: int = STEPS) -> float:
    """GMACs of a model with these options on a recording of HAPT's shape."""
    return _gmacs(model, tuple(chosen.items()), steps)


def candidates(model: str, target: float, layers: int, kernel: int, steps: int) -> list[tuple[float, dict]]:
    """(distance from the target as a logarithm, options) of the two widths that come closest."""
    accepted = [w for w in WIDTHS if fits(model, options(w, layers, kernel, model))]
    known = [accepted[0], accepted[len(accepted) // 2], accepted[-1]]
    counted = [gmacs(model, options(w, layers, kernel, model), steps) for w in known]
    curve = np.polynomial.Polynomial.fit(known, counted, 2)
    near = sorted(accepted, key=lambda w: abs(np.log(max(curve(w), 1e-9) / target)))[:2]
    chosen = [options(w, layers, kernel, model) for w in near]
    return [(abs(float(np.log(gmacs(model, each, steps) / target))), each) for each in chosen]


def choose(model: str, target: float, tolerance: float, steps: int = STEPS) -> dict:
    """Options of the model whose MACs are closest to the target; with the compact embedding if that does.

    Raises:
        TalError: no width comes as close as the tolerance.
    """
    compact = models.config(model)
    own = (compact.embedding_layers, compact.embedding_kernel)
    for embeddings in ((own,), EMBEDDINGS):
        best = min(
            (each for embedding in embeddings for each in candidates(model, target, *embedding, steps)),
            key=lambda each: each[0],
        )
        if best[0] <= tolerance:
            return best[1]
    raise TalError(
        f"{model}: no width is within {tolerance:.1%} of {target:g} GMACs", remedy="Raise --tolerance."
    )


def main():
    """Print the search's table, the spread of each size, and the options as YAML."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--tolerance", type=float, default=0.045, help="from the target, relative")
    arguments = parser.parse_args()
    chosen = {
        model: [choose(model, target, arguments.tolerance, arguments.steps) for target in GMACS.values()]
        for model in MODELS
    }
    rows = [
        {"size": size, "model": model, "gmacs": gmacs(model, chosen[model][number], arguments.steps)}
        | chosen[model][number]
        for number, size in enumerate(GMACS)
        for model in MODELS
    ]
    table = pd.DataFrame(rows)
    print(table.round(3).fillna("").to_string(index=False))
    spread = table.groupby("size", sort=False).gmacs.agg(["min", "max"])
    print((spread["max"] / spread["min"] - 1).map("{:.1%}".format).to_string())
    for model, each in chosen.items():
        text = [", ".join(f"{name}: {value}" for name, value in options.items()) for options in each]
        print(f"{model}: [" + ", ".join(f"{{{options}}}" for options in text) + "]")


if __name__ == "__main__":
    main()
