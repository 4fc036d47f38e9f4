"""`tal released`: detections of a checkpoint that the authors released."""

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
)
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommand to `tal`."""
    released = commands.add_parser(
        "released",
        help="evaluate a checkpoint that the authors of ActionFormer, TriDet or TemporalMaxer released",
        description="Evaluate a checkpoint that the authors of ActionFormer, TriDet or TemporalMaxer "
        "released on the test recordings of a benchmark. The command prints mAP and writes detections.json "
        "and model.pt. `tal detect` and `tal export` read model.pt.",
    )
    released.lists("presets", "benchmarks")
    released.add_argument("model", help="actionformer, tridet or temporalmaxer")
    released.add_argument("checkpoint", metavar="FILE.pth.tar", help="the authors' checkpoint")
    released.add_argument("--benchmark", required=True, help="name of a benchmark, or a folder")
    released.add_argument(
        "--annotations",
        metavar="FILE.json",
        help="annotations of the training: their label_id gives the order of the classes (default: "
        "alphabetical, as for THUMOS14)",
    )
    released.add_argument("--preset", default="paper", help="preset of the model (default: paper)")
    add_options(released, "option of the model, such as padding=none")
    add_device(released)
    add_missing(released)
    add_loading(released)
    add_root(released)
    released.add_argument("--out", required=True, help="output folder")
    add_overwrite(released)
    released.set_defaults(run=_released)


def _released(arguments):
    import sys
    from pathlib import Path

    from tal_lib import evaluation
    from tal_lib.data import MISSING_LIST, load_benchmark, ready, write_missing
    from tal_lib.models import load_checkpoint
    from tal_lib.provenance import checked_device, default_device
    from tal_lib.study import Scored
    from tal_lib.training.checkpoints import Statistics, Trained, save_model
    from tal_lib.writing import claim

    out, files = Path(arguments.out), ["detections.json", "model.pt", MISSING_LIST]
    device = checked_device(arguments.device, where="--device") if arguments.device else default_device()
    model = load_checkpoint(
        arguments.model, arguments.checkpoint, preset=arguments.preset, **pairs(arguments.set)
    )
    data = load_benchmark(arguments.benchmark, root_of(arguments))
    data.loading = loading_of(arguments)
    for what, count, wanted in (
        ("feature columns", model.spec["input_dim"], data.feature_spec.dim),
        ("classes", model.spec["num_classes"], len(data.classes)),
    ):
        if count != wanted:
            raise TalError(
                f"{count:,} {what}, but {data.name} has {wanted:,}",
                where=arguments.checkpoint,
                remedy="Name the benchmark and features that the checkpoint was trained on.",
            )
    classes = _order(data.classes, arguments.annotations)
    checked = ready(data, None, arguments.missing)
    for remark in checked.report():
        print(remark, file=sys.stderr)
    claim(out, files, sources=[arguments.checkpoint])
    run = Scored(benchmark=data, model=model, device=device, tested=checked.test)
    names = dict(zip(data.classes, classes))  # the model's k-th class has the benchmark's k-th name
    table = run.detections.assign(label=run.detections.label.map(names))
    print(evaluation.write_detections(out / "detections.json", table))
    trained = Trained(model, classes, data.feature_spec, None, Statistics.of(data))
    print(save_model(out / "model.pt", trained))
    write_missing(out, checked)
    print_scores(evaluation.mean_average_precision(run.truth, table, data.tious))


def _order(classes, annotations):
    """The classes in the order of the checkpoint's outputs."""
    import sys

    from tal_lib.data.annotations import read_annotations

    if annotations is None:
        print(
            "classes in alphabetical order; --annotations names the file whose label_id gives another",
            file=sys.stderr,
        )
        return tuple(classes)
    ids = read_annotations(annotations, repair=True).label_ids
    if sorted(ids) != list(range(len(classes))) or set(ids.values()) != set(classes):
        raise TalError(
            f"its label_id values do not number the {len(classes)} classes of the benchmark from 0",
            where=annotations,
            remedy="Give the annotations that the checkpoint was trained on.",
        )
    return tuple(ids[number] for number in sorted(ids))
