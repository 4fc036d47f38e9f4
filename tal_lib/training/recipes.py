"""Training recipes: one dataclass, with published values for `paper` and shared values for `compact`."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from tal_lib.models import presets
from tal_lib.validation import (
    BelowOne,
    Checked,
    Count,
    Fraction,
    NotNegative,
    Positive,
    Probability,
    Whole,
    require,
    unknown_name,
)


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """Options of `fit`. Training runs for `epochs` or `min_steps`, whichever is longer."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    # which parameters decay: matrices and kernels, but no biases, norms and scales; or all
    decayed: Literal["matrices", "all"] = "matrices"
    epochs: Count = 30  # warm-up included
    min_steps: Whole = 300  # minimum number of optimizer steps, for few recordings
    warmup: Probability = 0.15  # fraction of the steps, linear
    schedule: Literal["cosine", "constant", "step"] = "cosine"  # after the warm-up
    # of schedule `step`: fractions of all steps at which the rate is multiplied by `drop_factor`
    drops: tuple[Probability, ...] = ()
    drop_factor: Positive = 0.1
    batch_size: Count = 2  # recordings (crops)
    clip_norm: NotNegative = 1.0  # of gradients; 0: none
    ema: BelowOne = 0.999  # decay of the averaged weights, which are the result; 0: none
    max_steps: Count = 2304  # training crops are at most this long
    shrink: tuple[Fraction, Fraction] = (0.9, 1.0)  # random crop of shorter recordings: fraction kept
    feature_noise: NotNegative = 0.0  # standard deviation of noise added to the features
    exchange: Probability = 0.0  # that another instance of the class replaces a segment's steps
    # standard deviation (degrees) of a random rotation of inertial sensors; no effect on other features
    rotate: NotNegative = 0.0
    # forward and backward pass: float32, or bfloat16 under torch.autocast
    precision: Literal["float32", "bfloat16"] = "float32"

    def check(self):
        low, high = self.shrink
        require(low <= high, f"shrink: {low:g} is above {high:g}", "Give the smaller share first.")
        require(
            (self.schedule == "step") == bool(self.drops),
            f"drops: {len(self.drops)} with schedule {self.schedule}",
            "Give schedule=step and the fractions of the steps at which the rate drops, or neither.",
        )


_DENSE = Recipe(
    optimizer="adam",
    learning_rate=1e-4,
    weight_decay=0.0,
    epochs=10,
    min_steps=0,
    warmup=0.0,
    schedule="constant",
    ema=0.0,
    clip_norm=0.0,
)

# compact: one recipe for all models; models that work in windows train on shorter crops. The study's own
# model also uses augmentation, tuned on held-out training people. Its effect on the other models is in
# `results/readers/accuracy/recipes_hapt.md`.
_SHARED = Recipe()
_WINDOWS = Recipe(max_steps=256)
_COMPACT = {
    "local_global": Recipe(exchange=0.3, rotate=30.0),
    "bsn": _WINDOWS,
    "bmn": _WINDOWS,
    "prn": _WINDOWS,
    "tcanet": _WINDOWS,
}  # every other model: _SHARED
_PUBLISHED_WINDOWS = Recipe(
    optimizer="adam",
    weight_decay=1e-4,
    epochs=9,
    min_steps=0,
    batch_size=16,
    max_steps=256,
    warmup=0.0,
    ema=0.0,
    clip_norm=0.0,
)
# the published codes train on whole recordings; the rate drops after 7 of 9 epochs
_BMN = replace(_PUBLISHED_WINDOWS, decayed="all", schedule="step", drops=(7 / 9,), shrink=(1.0, 1.0))
_AFSD = Recipe(
    learning_rate=1e-4,
    weight_decay=1e-3,
    epochs=16,
    min_steps=0,
    batch_size=1,
    max_steps=256,
    warmup=0.0,
    schedule="constant",
    ema=0.0,
)
_PAPER = {
    "actionformer": Recipe(learning_rate=1e-4, epochs=35, min_steps=0, warmup=5 / 35),
    "temporalmaxer": Recipe(learning_rate=1e-4, epochs=60, min_steps=0, warmup=5 / 60),
    "tridet": Recipe(
        learning_rate=1e-4, weight_decay=0.025, epochs=40, min_steps=0, warmup=20 / 40, feature_noise=5e-4
    ),
    "action_mamba": Recipe(learning_rate=1e-4, epochs=45, min_steps=0, warmup=5 / 45),
    "afsd": _AFSD,
    "gaf": _AFSD,
    "stale": Recipe(
        learning_rate=4e-5,
        weight_decay=0.02,
        epochs=5,
        min_steps=0,
        batch_size=100,
        warmup=0.0,
        schedule="constant",
        ema=0.0,
    ),
    "text_pyramid": Recipe(learning_rate=1e-4, epochs=35, min_steps=0, warmup=5 / 35),
    "tadtr": Recipe(
        learning_rate=2e-4,
        weight_decay=1e-4,
        epochs=16,
        min_steps=0,
        batch_size=16,
        clip_norm=0.1,
        warmup=0.0,
        schedule="cosine",
        ema=0.0,
    ),
    "local_global": Recipe(learning_rate=1e-4, epochs=35, min_steps=0, warmup=5 / 35),
    "bsn": replace(_BMN, epochs=20, drops=(7 / 20, 14 / 20)),
    "bmn": _BMN,
    "prn": _BMN,
    # published: a warm-up of 1,000 steps, a twentieth of the steps on HACS. Under PyTorch 1.5, for which the
    # code is, its scheduler drops the rate after 6 epochs
    "tcanet": replace(
        _BMN, optimizer="adamw", learning_rate=4e-4, weight_decay=1e-5, warmup=0.05, drops=(6 / 9,)
    ),
    "ssn": replace(_PUBLISHED_WINDOWS, max_steps=2304, batch_size=4),
    "window_cnn": _DENSE,
    "bilstm": replace(_DENSE, batch_size=15, max_steps=15),
}


def recipe_for(name: str, preset: str = "compact", **overrides) -> Recipe:
    """The recipe of a model's preset, with some fields replaced.

    Raises:
        TalError: no such model, preset or option, or a value that the option does not accept.
    """
    if preset not in presets(name):
        raise unknown_name(preset, presets(name), where=name, name="preset")
    recipe = (_COMPACT if preset == "compact" else _PAPER).get(name, _SHARED)
    options = [field.name for field in fields(Recipe)]
    for option in overrides:
        if option not in options:
            raise unknown_name(option, options, where="recipe")
    return replace(recipe, **overrides)
