"""Training: `fit` trains a model on some recordings by a recipe; `save_model` and `load_model`."""

from tal_lib.training.checkpoints import Trained, load_model, save_model
from tal_lib.training.distillation import Distillation, Distilled
from tal_lib.training.loop import TrainResult, detect_all, fit, propose_all, seed_everything
from tal_lib.training.recipes import Recipe, recipe_for

__all__ = [
    "Distillation",
    "Distilled",
    "Recipe",
    "TrainResult",
    "Trained",
    "detect_all",
    "fit",
    "load_model",
    "propose_all",
    "recipe_for",
    "save_model",
    "seed_everything",
]
