"""The grid `time_budget.yaml`: twice the training time on one core, spent on steps, on data or on width.

    python experiments/time_budget.py [--here | --results FOLDER] > notebooks/sweeps/time_budget.yaml

The base of a model is its compact width at some label fraction, trained for 400 steps. Twice its time buys
800 steps on the same recordings, 800 steps on twice the recordings (each is seen as often as in the base), or
fewer steps of a model twice as wide: as many as take the time of 800 narrow ones. That number comes from
measured training steps of both widths: of `results/tables/training_step.csv`, if one machine measured both
(sweep `training_cost`), or taken `--here`, in turn in one process, so that other work on the machine slows
both alike.
"""

import argparse
import statistics
import time

import pandas as pd
import torch

from tal_lib import models
from tal_lib.data import collate, load_benchmark, make_item
from tal_lib.data.batches import crop
from tal_lib.provenance import device_name
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import read_csv
from tal_lib.study import build_model
from tal_lib.training import recipe_for
from tal_lib.training.loop import make_optimizer, make_scaler, training_step

MODELS = ("temporalmaxer", "actionformer")
STEPS, CROP = 400, 576  # of the base; feature steps of a crop
FRACTIONS = (0.1, 0.4)  # of the base; data doubles them

GRID = """# Fixed training time (docs/protocol.md): twice the time of a base cell on one core, spent on
# twice the steps, on twice the data (each recording is seen as often as in the base), or on a model twice as
# wide. Written by experiments/time_budget.py: a step of the wide model takes {ratios} times
# a narrow one's ({source}), so its cells have fewer steps.
name: time_budget
cells:
  - notebook: 02_train_evaluate.ipynb  # the base
    parameters: &cell {{benchmark: hapt, recipe: {{epochs: 1, min_steps: {steps}, max_steps: 576}}}}
    grid: {{fold: [0, 1, 2, 3, 4], model: [{models}], fraction: {base}}}
  - notebook: 02_train_evaluate.ipynb  # twice the steps; twice the data
    parameters: {{<<: *cell, recipe: {{epochs: 1, min_steps: {twice}, max_steps: 576}}}}
    grid: {{fold: [0, 1, 2, 3, 4], model: [{models}], fraction: {both}}}
"""
WIDE = """  - notebook: 02_train_evaluate.ipynb  # twice the width
    parameters: {{<<: *cell, model: {model}, options: {{{options}}}, recipe: {recipe}}}
    grid: {{fold: [0, 1, 2, 3, 4], fraction: {base}}}
"""


def wide_options(model: str) -> dict[str, int]:
    """Options of a model twice as wide as its compact preset."""
    width = 2 * models.config(model).width
    return {"width": width, "head_width": width}


def measured_ratio(steps: pd.DataFrame, model: str) -> float | None:
    """Time of a wide training step, in narrow ones; None unless one machine measured both.

    Args:
        steps: the table `training_step`.
    """
    if not len(steps):
        return None
    rows = steps[(steps.model == model) & (steps.preset == "compact") & (steps.crop_steps == CROP)]
    rows = rows[rows.recipe.isna() | (rows.recipe == "")]
    rows = rows.assign(options=rows.options.astype(object).fillna(""))
    wide = ", ".join(f"{name}={value}" for name, value in wide_options(model).items())
    medians = rows.pivot_table(index="device_name", columns="options", values="step_s_median")
    if not {"", wide} <= set(medians):
        return None
    ratios = (medians[wide] / medians[""]).dropna()
    return float(ratios.iloc[-1]) if len(ratios) else None


def ratio_here(model: str, rounds: int = 15) -> float:
    """Time of a wide training step in narrow ones, measured now on one thread.

    It is the median over pairs of steps. A step is the forward pass, the backward pass and the update on two
    crops of HAPT.
    """
    torch.set_num_threads(1)
    data, plan = load_benchmark("hapt"), recipe_for(model, max_steps=CROP)
    steps = []
    for options in ({}, wide_options(model)):
        built = build_model(data, model, options=options).train()
        built.name_classes(data.classes)
        steps.append((built, make_optimizer(built, plan)))
    items = [make_item(data, name) for name in data.recordings("train")]
    generator, ratios = torch.Generator().manual_seed(0), []
    for number in range(rounds + 2):
        batch = collate([crop(items[2 * number + i], CROP, generator) for i in range(2)])
        seconds = []
        for built, optimizer in steps:
            started = time.perf_counter()
            training_step(built, batch, optimizer, plan, make_scaler(plan, "cpu"))
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios[2:])  # the first steps allocate


def wide_steps(ratio: float) -> int:
    """Steps of the wide model that take the time of twice the base's steps."""
    return round(2 * STEPS / ratio)


def grid(ratios: dict[str, float], source: str) -> str:
    """The grid's text.

    Args:
        ratios: model → time of a wide training step, in narrow ones.
        source: where these come from.
    """
    base, both = list(FRACTIONS), [*FRACTIONS, *(2 * fraction for fraction in FRACTIONS)]
    text = GRID.format(
        ratios=", ".join(f"{ratio:.2f} ({model})" for model, ratio in ratios.items()),
        source=source,
        steps=STEPS,
        twice=2 * STEPS,
        models=", ".join(ratios),
        base=base,
        both=both,
    )
    for model, ratio in ratios.items():
        options = ", ".join(f"{name}: {value}" for name, value in wide_options(model).items())
        recipe = f"{{epochs: 1, min_steps: {wide_steps(ratio)}, max_steps: 576}}"
        text += WIDE.format(model=model, options=options, recipe=recipe, base=base)
    return text


def main():
    """Print the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=None, help="folder of the results (default: results)")
    parser.add_argument("--here", action="store_true", help="measure the steps now, on this machine")
    arguments = parser.parse_args()
    if arguments.here:
        ratios, source = {model: ratio_here(model) for model in MODELS}, f"in turn, {device_name('cpu')}"
    else:
        layout = Layout(arguments.results) if arguments.results else Layout()
        steps = read_csv(layout.table("training_step"))
        ratios = {model: measured_ratio(steps, model) for model in MODELS}
        if None in ratios.values():
            raise SystemExit("the wide steps are not measured: run the sweep training_cost, or give --here")
        source = f"measured, {steps.device_name.iloc[-1]}"
    print(grid({model: round(ratio, 2) for model, ratio in ratios.items()}, source), end="")


if __name__ == "__main__":
    main()
