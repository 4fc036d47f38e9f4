"""`tal train`."""

from tal_lib.cli.options import (
    add_loading,
    add_missing,
    add_options,
    add_overwrite,
    loading_of,
    pairs,
    print_scores,
    typed,
)
from tal_lib.errors import TalError
from tal_lib.validation import Count, Fold, Fraction, Seed


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    train = commands.add_parser(
        "train", help="train one model; writes model.pt, history.csv, detections.json, proposals.json"
    )
    train.lists("models", "presets", "benchmarks")
    train.add_argument("model", help="a model; `tal models NAME` lists its options")
    train.add_argument(
        "--benchmark", default="synthetic", help="a benchmark, or a folder (default: synthetic)"
    )
    train.add_argument("--preset", default="compact", help="a preset of the model (default: compact)")
    train.add_argument(
        "--fraction", type=typed(Fraction), default=1.0, help="fraction of the training recordings"
    )
    train.add_argument(
        "--people",
        type=typed(Fraction),
        default=1.0,
        help="fraction of the training people, whose recordings --fraction is taken of (default: 1)",
    )
    train.add_argument(
        "--annotated",
        type=typed(Fraction),
        default=1.0,
        help="fraction of the segments of each training recording that is annotated, a connected part of its "
        "timeline; the rest is cut away (default: 1)",
    )
    train.add_argument(
        "--fold",
        type=typed(Fold),
        default=None,
        help="cross-validation fold of the benchmark, from 0 (default: the official split)",
    )
    train.add_argument("--seed", type=typed(Seed), default=0)
    train.add_argument("--stream", default=None)
    train.add_argument(
        "--device",
        default=None,
        help="cpu, cuda or cuda:N (default: $TAL_DEVICE, else a GPU if there is one)",
    )
    add_options(train, "an option of the model or the recipe")
    train.add_argument(
        "--proposals", metavar="MODEL", help="for tcanet: the model whose proposals it refines (default: bmn)"
    )
    train.add_argument(
        "--fusion",
        choices=("early", "late"),
        default="early",
        help="of several streams: early joins their columns; late trains one model per stream and averages "
        "the scores (OUT then has one folder per stream)",
    )
    train.add_argument(
        "--weights", nargs="+", default=[], metavar="STREAM=WEIGHT", help="of late fusion (default: equal)"
    )
    train.add_argument(
        "--teacher",
        metavar="MODEL.pt",
        help="for a pyramid detector: a trained model to distil from, in addition to the annotations",
    )
    train.add_argument(
        "--skip", type=typed(Count), default=1, help="use one of so many feature steps (default: every step)"
    )
    add_missing(train)
    train.add_argument(
        "--class-agnostic",
        action="store_true",
        help="train with one class, `action`; `tal eval --class-scores` gives the detections their classes",
    )
    train.add_argument(
        "--distinct",
        action="store_true",
        help="leave out annotations below 1 ms and those that repeat another within 1 ms",
    )
    add_loading(train)
    train.add_argument("--root", help="data folder")
    train.add_argument("--out", required=True, help="folder")
    add_overwrite(train)
    train.set_defaults(run=_train)


def _train(arguments):
    import sys
    from pathlib import Path

    from tal_lib import evaluation
    from tal_lib.data import (
        MISSING_LIST,
        class_agnostic,
        distinct,
        limited_subset,
        load_benchmark,
        ready,
        write_missing,
    )
    from tal_lib.models.parts.fusion import checked_weights
    from tal_lib.provenance import checked_device, default_device
    from tal_lib.study import late_fusion, train_and_score
    from tal_lib.training.loop import WRITTEN
    from tal_lib.training.settings import route
    from tal_lib.writing import claim

    if arguments.fusion == "late" and (arguments.stream or arguments.teacher):
        raise TalError(
            "--fusion late trains on every stream, without a teacher",
            remedy="Leave out --stream and --teacher.",
        )
    if arguments.weights and arguments.fusion != "late":
        raise TalError("--weights are those of late fusion", remedy="Add --fusion late.")
    values = pairs(arguments.set) | ({"generator": arguments.proposals} if arguments.proposals else {})
    settings = route(arguments.model, arguments.preset, values, where="--set")
    device = checked_device(arguments.device, where="--device") if arguments.device else default_device()
    data = load_benchmark(arguments.benchmark, arguments.root, fold=arguments.fold).every(arguments.skip)
    data.loading = loading_of(arguments)
    if not data.in_memory:
        print(
            f"features: {data.feature_bytes / 1e9:.1f} GB, read from their files for each crop by "
            f"{data.loading.threads(False)} workers (--in-memory true keeps them in memory)",
            file=sys.stderr,
        )
    data = distinct(data) if arguments.distinct else data
    recordings = limited_subset(data, arguments.fraction, arguments.seed, arguments.people)
    checked = ready(data, recordings, arguments.missing)
    data = class_agnostic(data) if arguments.class_agnostic else data  # after the sample, which sees classes
    for remark in checked.report():
        print(remark, file=sys.stderr)
    late, streams, out = arguments.fusion == "late", data.feature_spec.streams, Path(arguments.out)
    weights = checked_weights(pairs(arguments.weights), streams) if late else None
    claim(
        out,
        ["detections.json", "proposals.json", MISSING_LIST]
        + [str(Path(folder) / name) for folder in (streams if late else ["."]) for name in WRITTEN],
        sources=[arguments.teacher] if arguments.teacher else [],
    )

    def train(stream, folder):
        return train_and_score(
            data,
            arguments.model,
            preset=arguments.preset,
            options=settings.options,
            recipe=settings.recipe,
            recordings=checked.train,
            tested=checked.test,
            annotated=arguments.annotated,
            seed=arguments.seed,
            stream=stream,
            teacher=arguments.teacher,
            out_dir=folder,
            device=device,
            progress=True,
        )

    if late:
        run = late_fusion({stream: train(stream, out / stream) for stream in streams}, weights)
    else:
        run = train(arguments.stream, out)
    evaluation.write_detections(out / "detections.json", run.detections)
    evaluation.write_detections(out / "proposals.json", run.proposals.assign(label="proposal"))
    write_missing(out, checked)
    print_scores(run.scores)
    for path in run.checkpoints:
        print(f"model  {path}")
