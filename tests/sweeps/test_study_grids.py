"""The grids of the protocol: what they hold, and that sizes, searches and times are as equal as said."""

import importlib.util
import itertools
import re
from functools import cache

import pandas as pd
import pytest

from tal_lib import models, sweeps
from tal_lib.cost import count_macs
from tal_lib.files import REPOSITORY
from tal_lib.reading import read_yaml
from tal_lib.sweeps import grid as grids
from tal_lib.sweeps import identity
from tal_lib.sweeps.grid_file import read_grid

STUDY = REPOSITORY / "notebooks" / "sweeps"
FOLDS = list(range(5))
INPUT_DIM, CLASSES = 300, 12  # HAPT


@pytest.fixture
def planned(monkeypatch):
    """Plans a grid of the study without its data."""
    monkeypatch.setattr(grids, "data_hash", lambda benchmark: "0")
    monkeypatch.setattr(grids, "check_fold_of", lambda *_: None)
    monkeypatch.setattr(identity, "_loaders", lambda parameters: ("",))
    return lambda name: [cell.parameters for cell in sweeps.plan(STUDY / f"{name}.yaml", here=False)]


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# norms, losses, and what happens before or after the network
WITHOUT_MACS = {
    "norm",
    "neck_norm",
    "drop_path",
    "dropout",
    "piou",
    "boundary",
    "least_boundary",
    "positive_tiou",
}
NINE = {
    "local_global",
    "actionformer",
    "temporalmaxer",
    "tridet",
    "afsd",
    "action_mamba",
    "tadtr",
    "stale",
    "bilstm",
}
PLAIN = {"epochs": 1, "min_steps": 400, "max_steps": 576}
WITHOUT_MACS |= {"boundary_scale", "hard_share", "regression_weight", "mask_weight", "scale", "train_overlap"}


@cache
def macs(model, options, steps):
    built = models.build(model, input_dim=INPUT_DIM, num_classes=CLASSES, **dict(options))
    return count_macs(built, INPUT_DIM, steps)[0]


@pytest.mark.slow
@pytest.mark.shallow
def test_the_sizes_are_equal(planned):
    """At each size, the models' MACs on a crop of HAPT are within 10 % of each other; sizes are far apart."""
    cells = pd.DataFrame(
        {"model": p["model"], "options": tuple(p["options"].items()), "benchmark": p["benchmark"]}
        | {name: p[name] for name in ("fraction", "fold", "seed", "subset_seed")}
        for p in planned("size")
    )
    assert set(cells.model) == {"local_global", "actionformer", "temporalmaxer", "tridet", "afsd", "gaf"}
    assert len(cells) == 6 * 3 * 2 * 2 * 5 and set(cells.benchmark) == {"hapt", "sfinge3d"}
    assert set(cells.fraction) == {0.1, 1.0} and sorted(set(cells.fold)) == FOLDS
    sizes = {
        model: sorted(macs(model, options, 576) for options in rows.options.unique())
        for model, rows in cells.groupby("model")
    }
    for size, target in enumerate((0.195, 0.54, 2.0)):
        counts = [values[size] / 1e9 for values in sizes.values()]
        assert max(counts) / min(counts) <= 1.10 and all(abs(count / target - 1) < 0.1 for count in counts)
    for options in cells.options.unique():
        chosen = dict(options)
        assert chosen["width"] == chosen["head_width"]
        assert set(chosen) <= {"width", "head_width", "embedding_layers", "embedding_kernel"}


def test_their_latency_is_measured(planned):
    shape = lambda p, model: (model, tuple(p["options"].items()))
    trained = {shape(p, p["model"]) for p in planned("size")}
    *measured, compact = planned("size_cost")
    assert {shape(p, model) for p in measured for model in p["model_names"]} == trained
    assert {p["shape_of"] for p in measured} == {p["benchmark"] for p in planned("size")}
    assert (compact["model_names"], compact["shape_of"], compact["options"]) == (
        ["local_global"],
        "sfinge3d",
        {},
    )
    assert len(measured) == 2 * len(trained) and all(576 in p["lengths"] for p in measured)


def test_the_search_is_that_of_the_protocol(planned):
    cells = planned("tuning")
    assert len(cells) == 8 * 2 * (len(models.names()) + 3 * len(NINE))
    assert {p["benchmark"] for p in cells} == {
        f"{name}_validation" for name in ("hapt", "sfinge3d", "rendered", "urfall")
    }
    assert {p["fraction"] for p in cells} == {0.2, 1.0} and {p["fold"] for p in cells} == {0}
    block, rest = read_grid(STUDY / "tuning.yaml").blocks
    assert block.search == rest.search and set(block.grid["model"]) == NINE
    assert block.search.trials == 8 and set(block.search.own) == set(models.names())
    shared = [p["recipe"] for p in cells if p["benchmark"] == "hapt_validation" and p["fraction"] == 0.2]
    assert len({str(sorted(recipe.items())) for recipe in shared}) == 8  # the same draws for all models
    rates = [recipe["learning_rate"] for recipe in shared if "learning_rate" in recipe]
    assert min(rates) >= 3e-4 and max(rates) <= 3e-3


def test_the_released_models_are_cells_of_the_equal_arm(planned):
    """The official split, all labels, the plain recipe: one training serves both."""
    cells = planned("released_models")
    assert [p["model"] for p in cells] == [name for name in models.names() if name != "text_pyramid"]
    shared = {"benchmark": "hapt", "fold": -1, "fraction": 1.0, "recipe": PLAIN, "seed": 0, "options": {}}
    assert all(shared.items() <= p.items() for p in cells)
    official = [block for block in read_grid(STUDY / "equal.yaml").blocks if "fold" not in block.grid]
    assert {"benchmark": "hapt", "recipe": PLAIN} in [block.parameters for block in official]


@pytest.mark.shallow
@pytest.mark.parametrize("model", models.names())
def test_no_trial_costs_more_than_a_tenth_more(model):
    block, _ = read_grid(STUDY / "tuning.yaml").blocks
    chosen = [o for _, o in block.search.drawn(model, "compact")]
    shaping = {tuple((n, v) for n, v in each.items() if n not in WITHOUT_MACS) for each in chosen}
    assert len({str(sorted(each.items())) for each in chosen}) > 2  # there is something to tune
    default = macs(model, (), 128) if shaping != {()} else 0
    for options in shaping - {()}:
        assert macs(model, options, 128) <= 1.10 * default, options


def test_plain_variance_and_annotation(planned):
    cells = planned("plain")
    assert len(cells) == 5 * 2 * (len(models.names()) + 3 * len(NINE))
    assert all(p["recipe"] == PLAIN for p in cells)
    assert {p["model"] for p in cells if p["benchmark"] == "hapt"} == set(models.names())
    crossed = planned("variance")
    assert len(crossed) == 2 * 5 * 3 * 2 * 2 and {p["fraction"] for p in crossed} == {0.2}
    budget = planned("annotation")
    assert all(p["recipe"] == PLAIN for p in budget)
    normed = [p for p in budget if p["options"]]  # added after the arm had run
    budget = [p for p in budget if not p["options"]]
    assert len(budget) == 5 * 3 * 3 * 4
    settings = {(p["model"], *p["options"].values(), p["people"], p["annotated"]) for p in normed}
    assert len(normed) == 5 * len(settings) == 20 and settings == {
        (model, norm, *shares)
        for model, norm in (("local_global", "layer"), ("temporalmaxer", "half"))
        for shares in ((0.5, 0.25), (0.25, 0.5))
    }
    products = pd.Series([p["people"] * p["annotated"] for p in budget]).value_counts()
    assert products[0.25] == 3 * 20 and products[0.5] == 2 * 20  # several ways to as many segments


def test_the_main_arm_is_tuned_and_ordered():
    """Its cells are planned once the tuning has run; here its blocks are read."""
    content = read_yaml(STUDY / "equal.yaml", what="grid", remedy="")
    assert content["detections"] == 200
    blocks = [
        block["parameters"] | block["grid"] | {"tuned": block.get("tuned")} for block in content["cells"]
    ]
    folds = [block for block in blocks if "fold" in block]
    assert all(block["fold"] == FOLDS for block in folds) and len(folds) == len(blocks) - 2
    assert all(next(iter(block["grid"])) == "fold" for block in content["cells"][:-2])
    hapt = [block for block in blocks if block["benchmark"] == "hapt" and "fold" in block]
    assert all(block["also"] == ["hapt_recomposed_test"] for block in hapt)
    assert {str(block.get("fraction", [1.0])) for block in blocks} == {"[1.0, 0.1]", "[1.0]"}
    assert {block["tuned"]["sweep"] for block in blocks if block["tuned"]} == {"tuning"}
    assert all(block["tuned"]["fold"] == 0 for block in blocks if block["tuned"])
    given = [block["benchmark"] for block in folds]
    read = {name for each in given for name in (each if isinstance(each, list) else [each])}
    assert read == {"hapt", "sfinge3d", "rendered", "urfall", "50salads", "hapt_recomposed"}


@pytest.mark.parametrize("ratio", [1.3, 2.0, 3.7])
def test_the_time_is_equal(ratio):
    """Twice the base's time: steps of the wide model × its time are 800 narrow steps, within a step."""
    budget = experiment("time_budget")
    steps = budget.wide_steps(ratio)
    assert steps * ratio == pytest.approx(2 * budget.STEPS, abs=ratio / 2 + 1e-9)


def test_the_committed_grid_of_times_is_the_scripts(planned):
    budget = experiment("time_budget")
    text = (STUDY / "time_budget.yaml").read_text()
    ratios = {model: float(ratio) for ratio, model in re.findall(r"([\d.]+) \((\w+)\)", text)}
    source = re.search(r"one's \((.*?)\), so its", text)[1]
    assert budget.grid(ratios, source) == text
    cells = planned("time_budget")
    assert len(cells) == 2 * 5 * (2 + 4 + 2) and {p["model"] for p in cells} == set(ratios)


def test_a_measured_step_comes_before_macs():
    budget = experiment("time_budget")
    row = {"model": "temporalmaxer", "preset": "compact", "crop_steps": 576, "recipe": None}
    row |= {"device_name": "cpu", "options": None, "step_s_median": 0.05}
    wide = row | {"options": "width=256, head_width=256", "step_s_median": 0.12}
    assert budget.measured_ratio(pd.DataFrame([row, wide]), "temporalmaxer") == pytest.approx(2.4)
    elsewhere = wide | {"device_name": "another"}
    for rows in ([], [row], [row, elsewhere], [row, wide | {"crop_steps": 256}]):
        assert budget.measured_ratio(pd.DataFrame(rows), "temporalmaxer") is None


def test_mixed_precision_differs_in_nothing_else(planned):
    cells = planned("mixed_precision")
    assert len(cells) == 8 and {(p["benchmark"], p["fold"], p["fraction"]) for p in cells} == {
        ("hapt", 0, 1.0)
    }
    kinds = {(p["model"], p["recipe"]["precision"]) for p in cells}
    assert len(kinds) == 8 and {kind for _, kind in kinds} == {"float32", "bfloat16"}
    assert all(p["recipe"] == PLAIN | {"precision": p["recipe"]["precision"]} for p in cells)


def test_the_gpu_runs_every_model_in_every_precision(planned):
    both = {(name, preset) for name in models.names() for preset in ("compact", "paper")}
    assert {(p["model"], p["preset"]) for p in planned("gpu_check")} == both
    cost = planned("inference_cost_gpu")
    measured = [
        (p["model_names"][0], p["preset"], precision, length)
        for p in cost
        for precision, length in itertools.product(p["precisions"], p["lengths"])
    ]
    lengths = (288, 576, 1152, 2304, 4608, 9216, 18432, 36864)
    few = {"tf32": (288, 2304, 9216, 36864), "compiled": (2304, 9216, 36864)}
    assert sorted(measured) == sorted(
        (*each, kind, length)
        for each in both
        for kind in ("float32", "bfloat16", "tf32", "compiled")
        for length in few.get(kind, lengths)
    )
    assert all(p["device"] == "cuda" for p in cost)
    trained = {(p["model"], p["recipe"].get("precision", "float32")) for p in planned("training_cost_gpu")}
    assert trained == {(n, k) for n in models.names() for k in ("float32", "bfloat16", "float16")}
