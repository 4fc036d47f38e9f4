"""`tal train`."""

from tal_lib.cli.options import (
    add_device,
    add_loading,
    add_missing,
    add_options,
    add_overwrite,
    add_root,
    loading_of,
    pairs,
    print_scores,
    root_of,
    typed,
)
from tal_lib.errors import TalError
from tal_lib.validation import Count, Fold, Fraction, Seed


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    train = commands.add_parser(
        "train",
        help="train and evaluate one model",
        description="Train one model and evaluate it on the test recordings. The command writes model.pt, "
        "history.csv, detections.json and proposals.json.",
    )
    train.lists("models", "presets", "benchmarks")
    train.add_argument("model", help="name of the model; `tal models NAME` lists its options")
    train.add_argument(
        "--benchmark", default="synthetic", help="name of a benchmark, or a folder (default: synthetic)"
    )
    train.add_argument("--preset", default="compact", help="preset of the model (default: compact)")
    train.add_argument(
        "--fraction",
        type=typed(Fraction),
        default=1.0,
        help="label fraction: part of the training recordings, in (0, 1] (default: 1)",
    )
    train.add_argument(
        "--people",
        type=typed(Fraction),
        default=1.0,
        help="part of the training people; --fraction samples their recordings (default: 1)",
    )
    train.add_argument(
        "--annotated",
        type=typed(Fraction),
        default=1.0,
        help="part of the segments of each training recording that is annotated; the rest of the recording "
        "is cut away (default: 1)",
    )
    train.add_argument(
        "--fold",
        type=typed(Fold),
        default=None,
        help="number of the cross-validation fold, from 0 (default: the official split)",
    )
    train.add_argument(
        "--seed", type=typed(Seed), default=0, help="seed of the subset sample and the training (default: 0)"
    )
    train.add_argument(
        "--stream", default=None, help="train on this feature stream only (default: all streams)"
    )
    add_device(train)
    add_options(train, "option of the model or the training recipe")
    train.add_argument(
        "--proposals", metavar="MODEL", help="only for tcanet: model that makes the proposals (default: bmn)"
    )
    train.add_argument(
        "--fusion",
        choices=("early", "late"),
        default="early",
        help="with several streams: early concatenates the features (default); late trains one model per "
        "stream and averages the scores",
    )
    train.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="STREAM=WEIGHT",
        help="weights of the streams in late fusion (default: equal)",
    )
    train.add_argument(
        "--teacher",
        metavar="MODEL.pt",
        help="trained teacher for distillation; both must be one-stage models with a feature pyramid",
    )
    train.add_argument(
        "--skip", type=typed(Count), default=1, help="use every N-th feature step (default: 1)", metavar="N"
    )
    add_missing(train)
    train.add_argument(
        "--class-agnostic",
        action="store_true",
        help="train with one class, `action`; `tal eval --class-scores` adds the classes",
    )
    train.add_argument(
        "--distinct",
        action="store_true",
        help="drop annotations shorter than 1 ms and repeated ones",
    )
    add_loading(train)
    add_root(train)
    train.add_argument("--out", required=True, help="output folder")
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
            "--fusion late uses every stream and no teacher",
            remedy="Leave out --stream and --teacher.",
        )
    if arguments.weights and arguments.fusion != "late":
        raise TalError("--weights needs --fusion late", remedy="Add --fusion late, or leave out --weights.")
    values = pairs(arguments.set) | ({"generator": arguments.proposals} if arguments.proposals else {})
    settings = route(arguments.model, arguments.preset, values, where="--set")
    device = checked_device(arguments.device, where="--device") if arguments.device else default_device()
    data = load_benchmark(arguments.benchmark, root_of(arguments), fold=arguments.fold).every(arguments.skip)
    late, streams = arguments.fusion == "late", data.feature_spec.streams
    if late:
        _check_names(streams)
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
    out = Path(arguments.out)
    weights = checked_weights(pairs(arguments.weights, "--weights"), streams) if late else None
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
    split = "the official split" if arguments.fold is None else f"fold {arguments.fold}"
    print(f"{data.name}, {split}: trained on {len(checked.train)} recordings, tested on {len(checked.test)}")
    print_scores(run.scores)
    for path in run.checkpoints:
        print(f"model  {path}")


def _check_names(streams):
    """Refuse names of streams that torch does not take as names of the parts of a late fusion."""
    from torch import nn

    parts = nn.ModuleDict()
    for stream in streams:
        if "." in stream or hasattr(parts, stream):
            raise TalError(
                f"--fusion late cannot hold a stream that is called {stream}",
                remedy="Rename the stream in spec.json (and its folder), or leave out --fusion late.",
            )
