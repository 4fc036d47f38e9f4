"""The card of a trained model: `README.md` of a model folder, with front matter for the Hugging Face Hub."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import yaml

from tal_lib.data.registry import BENCHMARKS
from tal_lib.models.parts import registry
from tal_lib.reports import cards
from tal_lib.reports.papers import PAPERS

if TYPE_CHECKING:  # for annotations only
    from tal_lib.reports.model_folders import Source, Stored

LIBRARY = "efficient-tal"
# benchmark -> (one sentence on its signals, code that makes its features)
SIGNALS = {
    "hapt": (
        "Signals: acceleration (g) and angular velocity (rad/s), three axes each, 50 samples per second, of "
        "a phone worn at the waist.",
        "import numpy as np\n"
        "from tal_lib.data.hapt import window_features\n\n"
        'np.save("walk.npy", window_features(signal))  # signal: (samples, 6) float32, acc x y z, gyro x y z',
    )
}
LIMITS = {
    "hapt": [
        "Volunteers followed a script: most recordings have the same sequence of activities. Scores in "
        "another order are lower.",
        "The phone was worn at the waist in one orientation. Other orientations, positions, phones and "
        "sampling rates were not tested.",
        "Not for medical use, and not for anything that must not miss a fall.",
    ]
}


def card(source: "Source", stored: "Stored", weight_bytes: int) -> str:
    """The card of a model folder, in Markdown with YAML front matter.

    Args:
        source: the run that trained the model; stored: how its stored weights compare.
        weight_bytes: of `model.safetensors`.
    """
    model, benchmark = source.cell.parameters["model"], source.cell.parameters["benchmark"]
    paper = PAPERS.get(model)
    origin = (
        f"{paper.title} ({paper.authors}; {paper.venue} {paper.year}; <{paper.link}>)"
        if paper
        else "a model of this study"
    )
    parts = [
        _front_matter(source),
        f"# {model}, trained on {benchmark}",
        f"Temporal action localization: start, end, class and score of each action in a recording. "
        f"Architecture: {origin}. Preset `{source.cell.parameters['preset']}` of the study.",
        _section("Intended use", _uses(source)),
        _section("How to use", []) + _usage(benchmark, model),
        _section("Input", _input(source)) + _code_for(benchmark),
        _section("Training data", _training(source)),
        _section("Scores", []) + _scores(source, stored),
        _section("Weights", _weights(source, stored, weight_bytes)),
        _section("Post-processing", _post(source)),
        _section("Limits", _limits(source)),
        _section("Citation", [])
        + "```bibtex\n"
        + "\n\n".join(cards.citations_of([model, benchmark]))
        + "\n```",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _front_matter(source):
    benchmark, model = source.cell.parameters["benchmark"], source.cell.parameters["model"]
    values = {
        "license": source.licence,
        "library_name": LIBRARY,
        "tags": ["temporal-action-localization", "safetensors", model.replace("_", "-"), benchmark],
        "datasets": [benchmark],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _section(title, lines):
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)


def _uses(source):
    family = registry.family(source.cell.parameters["model"])
    return [
        cards.USES.get(family, "Localize actions of known classes."),
        "Try the command line without training, or compare with another model.",
        f"Classes: {', '.join(source.trained.classes)}.",
    ]


def _usage(benchmark, model):
    return (
        f"```\ntal detect walk.npy --model FOLDER       # this folder, or {benchmark}/{model} in the study's "
        "repository\n```\n\n"
        "```python\nfrom tal_lib.training import load_model\n\n"
        'trained = load_model("FOLDER")  # .model, .classes, .feature_spec, .statistics\n'
        "```\n\n"
        "Nothing is executed when the folder is read: the weights are safetensors, the rest is JSON."
    )


def _input(source):
    spec, trained = source.trained.feature_spec, source.trained
    streams = [trained.stream] if trained.stream else list(spec.streams)
    columns = ", ".join(f"`{name}` ({spec.streams[name]})" for name in streams)
    lines = [
        f"A feature file (`.npy`, `.npz`, `.pt`, `.h5`, `.csv`) of shape (T, {trained.model.input_dim}). "
        f"Columns: {columns}.",
        f"One row every {spec.stride_s:g} s; each row sees {spec.window_s:g} s.",
    ]
    if source.data.inertial is not None:
        samples = source.data.inertial.samples
        lines.append(
            f"Within a stream, columns are in blocks of {samples}, a block for each axis (x, y, z). "
            f"A block has the samples of its window in the order of time ({samples / spec.window_s:g} per "
            "second)."
        )
    if trained.statistics is not None:
        lines.append(
            "Features are raw. The command standardises each column by the mean and the standard deviation "
            "in `config.json`, which come from the training recordings."
        )
    return lines + [SIGNALS[name][0] for name in [source.cell.parameters["benchmark"]] if name in SIGNALS]


def _code_for(benchmark):
    return f"\n\n```python\n{SIGNALS[benchmark][1]}\n```" if benchmark in SIGNALS else ""


def _training(source):
    given, entry = source.cell.parameters, BENCHMARKS[source.cell.parameters["benchmark"]]
    people = {source.data.group(name) for name in source.recordings} if source.data.people else set()
    changed = [f"{name}={value}" for name, value in (given["options"] | given["recipe"]).items()]
    about = cards.about_of(cards.module_of(given["benchmark"])).split("Source: ")
    lines = [
        f"{given['benchmark']}: {entry.about}. Licence of the data: {entry.licence}.",
        f"Training part of {_split(given)}: {len(source.recordings)} recordings"
        + (f" of {len(people)} people" if people else "")
        + f", label fraction {100 * given['fraction']:g} %.",
        f"Settings that differ from the defaults of model and recipe: {', '.join(changed) or 'none'}. "
        f"Seed {given['seed']}.",
    ]
    return lines + [f"Source of the data: {' '.join(about[1].split())}" for _ in [0] if len(about) > 1]


def _split(given):
    return "the official split" if given["fold"] < 0 else f"cross-validation fold {given['fold']}"


def _scores(source, stored):
    scores = source.scores
    tested = source.data.recordings("test")
    people = {source.data.group(name) for name in tested} if source.data.people else set()
    head = "| " + " | ".join([f"mAP@{tiou:g}" for tiou in scores.index] + ["avg mAP"]) + " |"
    values = [f"{100 * value:.1f}" for value in [*scores, scores.mean()]]
    return (
        f"{head}\n|{' ---: |' * len(values)}\n| {' | '.join(values)} |\n\n"
        f"Per cent, on the {len(tested)} test recordings"
        + (f" of {len(people)} people" if people else "")
        + f". {_condition(source)} One run (cell `{source.cell.id}` of the study's ledger), no mean over "
        "folds or seeds. It says little about the difference between two models. RESULTS.md has means over "
        "several runs, with other settings, so its values differ. With the weights as they are stored: "
        f"{100 * stored.avg_map:.2f} avg mAP (run: {100 * scores.mean():.2f})."
    )


def _condition(source):
    """Which split, label fraction and seed the scores of a card are of."""
    given = source.cell.parameters
    split = _split(given)
    return (
        f"{split[0].upper()}{split[1:]}, {100 * given['fraction']:g} % of the labels, seed "
        + f"{given['seed']}."
    )


def _weights(source, stored, weight_bytes):
    model = source.trained.model
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"{count:,} parameters; `model.safetensors`, {weight_bytes / 1e6:.2f} MB, {stored.dtype}. "
        "They are computed with in float32.",
        "The outputs are those of the run."
        if stored.difference == 0
        else f"The outputs differ from those of the run by {100 * stored.difference:.2g} % "
        "(root mean square on the test recordings).",
        f"Licence of the weights: {source.licence}. Name the source of the data and this study.",
    ]
    if model.separate_classifier:
        lines.append("It proposes segments. The study's classifier, part of the weights, gives the classes.")
    return lines


def _post(source):
    options = asdict(source.trained.model.config.post)
    return ["Options: " + ", ".join(f"`{name}={value}`" for name, value in options.items()) + "."]


def _limits(source):
    lines = [
        "Scores rank detections. They are not calibrated probabilities.",
        "It reads features, not video.",
    ]
    if source.trained.model.not_exportable:
        lines.append(f"It cannot be exported: {source.trained.model.not_exportable}.")
    return lines + LIMITS.get(source.cell.parameters["benchmark"], [])
