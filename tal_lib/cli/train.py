"""`tal train`."""

from tal_lib.cli.options import pairs, print_scores
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    train = commands.add_parser(
        "train", help="train one model; writes model.pt, history.csv, detections.json, proposals.json"
    )
    train.add_argument("model")
    train.add_argument("--benchmark", default="synthetic")
    train.add_argument("--preset", default="compact")
    train.add_argument("--fraction", type=float, default=1.0)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--stream", default=None)
    train.add_argument(
        "--device", default=None, help="cpu or cuda (default: $TAL_DEVICE, else a GPU if there is one)"
    )
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the model or the recipe"
    )
    train.add_argument(
        "--proposals", metavar="MODEL", help="of tcanet: the model whose proposals it refines (default: bmn)"
    )
    train.add_argument(
        "--fusion",
        choices=("early", "late"),
        default="early",
        help="of several streams: their columns joined, or a model "
        "a stream and their scores averaged (then OUT has a folder a stream)",
    )
    train.add_argument(
        "--weights", nargs="+", default=[], metavar="STREAM=WEIGHT", help="of late fusion (default: equal)"
    )
    train.add_argument(
        "--teacher",
        metavar="MODEL.pt",
        help="of a pyramid detector: a trained one to learn from, beside the annotations",
    )
    train.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="recordings without features: an error (default), or left out and listed in OUT",
    )
    train.add_argument("--root", help="data folder")
    train.add_argument("--out", required=True, help="folder")
    train.set_defaults(run=_train)


def _train(arguments):
    import sys
    from pathlib import Path

    from tal_lib import evaluation, models
    from tal_lib.data import limited_subset, load_benchmark, ready, write_missing
    from tal_lib.models.parts.fusion import LateFusion, checked_weights
    from tal_lib.training import (
        Distillation,
        Distilled,
        Recipe,
        detect_all,
        fit,
        load_model,
        propose_all,
        recipe_for,
        seed_everything,
    )

    if arguments.fusion == "late" and (arguments.stream or arguments.teacher):
        raise TalError(
            "--fusion late trains on every stream, without a teacher",
            remedy="Leave out --stream and --teacher.",
        )
    if arguments.weights and arguments.fusion != "late":
        raise TalError("--weights are those of late fusion", remedy="Add --fusion late.")
    values = pairs(arguments.set) | ({"generator": arguments.proposals} if arguments.proposals else {})
    recipe = {name: value for name, value in values.items() if name in Recipe.__dataclass_fields__}
    data = load_benchmark(arguments.benchmark, arguments.root)
    checked = ready(data, limited_subset(data, arguments.fraction, arguments.seed), arguments.missing)
    recordings, tested = checked.train, checked.test
    for remark in checked.report():
        print(remark, file=sys.stderr)
    written = []

    def train(stream, out):
        columns = data.feature_spec.columns(stream)
        seed_everything(arguments.seed)
        model = models.build(
            arguments.model,
            input_dim=columns.stop - columns.start,
            num_classes=len(data.classes),
            preset=arguments.preset,
            **{name: value for name, value in values.items() if name not in recipe},
        )
        if arguments.teacher:
            model = Distilled(model, load_model(arguments.teacher).model, Distillation())
        result = fit(
            model,
            data,
            recordings,
            recipe_for(arguments.model, arguments.preset, **recipe),
            arguments.seed,
            out,
            stream=stream,
            device=arguments.device,
            progress=True,
        )
        written.append(result.checkpoint)
        return result.model

    if arguments.fusion == "late":
        streams = data.feature_spec.streams
        weights = checked_weights(pairs(arguments.weights), streams)  # before hours of training
        model = LateFusion(
            {stream: train(stream, Path(arguments.out) / stream) for stream in streams},
            {stream: data.feature_spec.columns(stream) for stream in streams},
            weights,
        )
    else:
        model = train(arguments.stream, arguments.out)
    detections = detect_all(model, data, tested, stream=arguments.stream, device=arguments.device)
    proposals = propose_all(model, data, tested, stream=arguments.stream, device=arguments.device)
    evaluation.write_detections(Path(arguments.out) / "detections.json", detections)
    evaluation.write_detections(Path(arguments.out) / "proposals.json", proposals.assign(label="proposal"))
    write_missing(arguments.out, checked)
    scores = evaluation.mean_average_precision(data.annotations_of(tested), detections, data.tious)
    print_scores(scores)
    for path in written:
        print(f"model  {path}")
