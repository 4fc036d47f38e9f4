"""Training recipes: one dataclass, with published values for `paper` and shared values for `compact`."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from tal_lib.data.batches import CropReach
from tal_lib.models import presets
from tal_lib.validation import (
    LARGEST,
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

    # AdamW decays weights apart from the gradient, Adam with it
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1e-3  # the largest of the schedule
    weight_decay: NotNegative = 0.05  # of the optimizer
    # which parameters decay: matrices and kernels, but no biases, norms and scales; or all
    decayed: Literal["matrices", "all"] = "matrices"
    # parts of the model that learn at `slow_factor` times the rate: names of modules, at any depth
    slow: tuple[str, ...] = ()
    slow_factor: Positive = 0.1  # of the learning rate of the `slow` parts
    epochs: Count = 30  # warm-up included
    min_steps: Whole = 300  # minimum number of optimizer steps, for few recordings
    warmup: Probability = 0.15  # fraction of the steps, linear
    warmup_from_zero: bool = False  # begin the warm-up at zero, so that its last step has the full rate
    schedule: Literal["cosine", "constant", "step"] = "cosine"  # after the warm-up
    # of schedule `step`: fractions of all steps at which the rate is multiplied by `drop_factor`
    drops: tuple[Probability, ...] = ()
    drop_factor: Positive = 0.1  # of the learning rate at each drop
    min_learning_rate: NotNegative = 0.0  # where the cosine ends
    batch_size: Count = 2  # recordings (crops)
    drop_last: bool = False  # leave out the recordings of an epoch that do not fill a batch
    clip_norm: NotNegative = 1.0  # of gradients; 0: none
    ema: BelowOne = 0.999  # decay of the averaged weights, which are the result; 0: none
    ema_ramp: bool = True  # follow the weights closely in the first steps, instead of the full decay at once
    max_steps: Count = 2304  # training crops are at most this long
    crops: Count = 1  # of each recording in an epoch
    crop_keep: Probability = 0.5  # a segment that a crop cuts is learned if this fraction of it remains
    shrink: tuple[Fraction, Fraction] = (0.9, 1.0)  # random crop of shorter recordings: fraction kept
    # fraction: a random fraction of every recording, at most max_steps; steps: longer recordings are cut to
    # max_steps, shorter ones to a whole number of steps, each equally likely
    crop_length: Literal["fraction", "steps"] = "fraction"
    # how far a segment may reach beyond a crop. step: half a step on both sides. window: half a step's window
    # before the first step and behind the step after the last. edge: from the first step to that one
    crop_reach: CropReach = "step"
    crop_tries: Count = 20  # crops that are drawn until one holds a segment
    # clip segments at the end of the features, and drop those of which less than half remains
    within_features: bool = False
    feature_noise: NotNegative = 0.0  # standard deviation of noise added to the features
    # probability that a feature column of a crop is zero; the others are scaled up (OpenTAD's dropout)
    feature_dropout: BelowOne = 0.0
    exchange: Probability = (
        0.0  # instance mixing: that another instance of the class replaces a segment's steps
    )
    # random rotation: its standard deviation (degrees), of inertial sensors; no effect on other features
    rotate: NotNegative = 0.0
    # forward and backward pass: float32, or automatic mixed precision (torch.autocast) in bfloat16 or
    # float16. float16 needs a CUDA GPU and scales the loss, so that small gradients do not vanish. auto:
    # bfloat16 where the device has instructions for it, so results depend on the machine
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"

    def check(self):
        low, high = self.shrink
        require(low <= high, f"shrink: {low:g} is above {high:g}", "Give the smaller factor first.")
        lowest = self.min_learning_rate
        require(
            lowest <= self.learning_rate,
            f"min_learning_rate: {lowest:g} is above learning_rate {self.learning_rate:g}",
            "Give a smaller one.",
        )
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

# compact: one recipe for all models, without augmentation; models that work in windows, whose cost grows with
# the crop, train on shorter ones. The study tunes every model alike (docs/protocol.md).
_SHARED = Recipe()
_WINDOWS = Recipe(max_steps=576)
_REMEMBER = Recipe(  # timeline_prior: each whole recording once
    epochs=1, min_steps=0, batch_size=1, warmup=0.0, ema=0.0, max_steps=LARGEST, shrink=(1.0, 1.0)
)
_WHOLE = ("max_steps", "shrink", "drop_last", "ema")  # what would cut, leave out or blur its timelines
_COMPACT = {
    "timeline_prior": _REMEMBER,
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
# 64 steps are a clip of 256 frames. An epoch of the authors visits every clip that holds a whole instance, at
# a stride of 30 frames: 7,842 clips of THUMOS14's 200 training videos, 39 a video. Adam decays all weights.
_AFSD = Recipe(
    optimizer="adam",
    learning_rate=1e-5,
    weight_decay=1e-3,
    decayed="all",
    epochs=16,
    min_steps=0,
    batch_size=1,
    max_steps=64,
    shrink=(1.0, 1.0),
    crops=39,
    warmup=0.0,
    schedule="constant",
    clip_norm=0.0,
    ema=0.0,
)
# ActionFormer's code, as its descendants have it. 5 warm-up epochs are part of `epochs`.
_ACTIONFORMER = Recipe(
    learning_rate=1e-4,
    epochs=35,
    min_steps=0,
    warmup=5 / 35,
    warmup_from_zero=True,
    min_learning_rate=1e-8,
    drop_last=True,
    ema_ramp=False,
    crop_length="steps",
    crop_reach="window",
    crop_tries=200,
)
_TRIDET = replace(
    _ACTIONFORMER, weight_decay=0.025, epochs=40, warmup=20 / 40, crop_reach="edge", feature_noise=5e-4
)
_PAPER = {
    "timeline_prior": _REMEMBER,
    "actionformer": _ACTIONFORMER,
    "temporalmaxer": replace(_ACTIONFORMER, epochs=65, warmup=5 / 65),
    "tridet": _TRIDET,
    "action_mamba": replace(_ACTIONFORMER, epochs=50, warmup=5 / 50),
    "afsd": _AFSD,
    "gaf": _AFSD,
    "stale": Recipe(
        optimizer="adam",
        learning_rate=4e-5,
        weight_decay=0.02,
        decayed="all",
        epochs=5,
        min_steps=0,
        batch_size=100,
        warmup=0.0,
        schedule="constant",
        clip_norm=0.0,
        ema=0.0,
        shrink=(1.0, 1.0),
    ),
    "text_pyramid": _ACTIONFORMER,
    # An epoch of the authors visits every slice of 128 steps that holds an instance, at a stride of 32 steps:
    # some 25 a training video of THUMOS14 at one step every four frames.
    "tadtr": Recipe(
        learning_rate=2e-4,
        weight_decay=1e-4,
        decayed="all",
        slow=("reference", "offsets"),
        epochs=16,
        min_steps=0,
        batch_size=16,
        max_steps=128,
        shrink=(1.0, 1.0),
        crops=25,
        crop_keep=0.75,
        clip_norm=0.1,
        warmup=0.0,
        schedule="step",
        drops=(14 / 16,),
        ema=0.0,
    ),
    "local_global": _ACTIONFORMER,
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
# ActivityNet v1.3: ActionFormer's features are resized to 192 steps, TriDet's are not (at most 768)
_ACTIONFORMER_ACTIVITYNET = replace(
    _ACTIONFORMER,
    learning_rate=1e-3,
    epochs=15,
    warmup=5 / 15,
    batch_size=16,
    max_steps=192,
    within_features=True,
)
_ACTIVITYNET = {
    "actionformer": _ACTIONFORMER_ACTIVITYNET,
    "temporalmaxer": _ACTIONFORMER_ACTIVITYNET,  # its authors have no recipe for ActivityNet
    "action_mamba": _ACTIONFORMER_ACTIVITYNET,
    "tridet": replace(
        _TRIDET,
        learning_rate=1e-3,
        min_learning_rate=5e-5,
        weight_decay=0.04,
        epochs=15,
        warmup=10 / 15,
        batch_size=16,
        clip_norm=0.4,
        max_steps=768,
        within_features=True,
        feature_noise=0.5,
    ),
    # rate, decay and steps are the authors'; one crop a recording is this project's
    "afsd": replace(_AFSD, learning_rate=1e-4, weight_decay=1e-4, max_steps=96, crops=1),
    # its authors have released no recipe for ActivityNet
    "tadtr": replace(_PAPER["tadtr"], max_steps=192, crops=1),
}  # every other model: as _PAPER
_RECIPES = {"compact": _COMPACT, "paper_activitynet": _PAPER | _ACTIVITYNET}


def recipe_for(name: str, preset: str = "compact", **overrides) -> Recipe:
    """The recipe of a model's preset, with some fields replaced.

    Raises:
        TalError: no such model, preset or option, or a value that the option does not accept.
    """
    if preset not in presets(name):
        raise unknown_name(preset, presets(name), where=name, name="preset")
    recipe = _RECIPES.get(preset, _PAPER).get(name, _SHARED)
    options = [field.name for field in fields(Recipe)]
    for option in overrides:
        if option not in options:
            raise unknown_name(option, options, where="recipe")
    recipe = replace(recipe, **overrides)
    for option in _WHOLE if name == "timeline_prior" else ():
        require(
            getattr(recipe, option) == getattr(_REMEMBER, option),
            f"{option}: timeline_prior stores whole training recordings",
            f"Leave {option} out for it.",
        )
    return recipe
