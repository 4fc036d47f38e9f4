"""`tal eval`."""

from tal_lib.cli.options import print_scores
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    evaluate = commands.add_parser("eval", help="mAP of a detections file")
    evaluate.add_argument("detections", metavar="DETECTIONS.json")
    evaluate.add_argument("annotations", metavar="ANNOTATIONS.json")
    evaluate.add_argument(
        "--split", default=None, help="subset to score (default: test, else validation, else all)"
    )
    evaluate.add_argument(
        "--class-scores",
        metavar="FILE",
        help="take the file's segments as proposals without class, and multiply by "
        "these scores of whole recordings (JSON or pickle)",
    )
    evaluate.add_argument(
        "--top", type=int, default=2, help="classes a recording, with --class-scores (default: 2)"
    )
    evaluate.add_argument(
        "--recall", action="store_true", help="print AR@AN and its area too, whatever the classes"
    )
    evaluate.add_argument("--tious", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7])
    evaluate.set_defaults(run=_eval)


def _eval(arguments):
    from tal_lib.data import read_annotations
    from tal_lib.evaluation import (
        area_under_recall,
        average_recall,
        fuse,
        mean_average_precision,
        read_class_scores,
        read_detections,
    )

    content = read_annotations(arguments.annotations, repair=True)
    splits = set(content.recordings.split)
    split = arguments.split or next(
        (
            name
            for name in ("test", "validation")
            if name in splits
            and content.segments.recording.isin(
                content.recordings.recording[content.recordings.split == name]
            ).any()
        ),
        None,
    )
    if split is not None and split not in splits:
        raise TalError(
            f"no recordings of subset {split!r}",
            where=arguments.annotations,
            remedy=f"Choose from {', '.join(sorted(splits))}.",
        )
    kept = (
        content.recordings.recording
        if split is None
        else content.recordings.recording[content.recordings.split == split]
    )
    truth = content.segments[content.segments.recording.isin(kept)]
    found = read_detections(arguments.detections)
    known = set(content.recordings.recording)
    unknown = [name for name in found.recording.unique() if name not in known]
    if unknown:
        raise TalError(
            f"recording {unknown[0]} is not in the annotations"
            + (f" ({len(unknown)} such)" if len(unknown) > 1 else ""),
            where=arguments.detections,
            remedy="Score detections with the annotations they were made for.",
        )
    found = found[found.recording.isin(kept)]
    if arguments.recall:
        recall = average_recall(truth, found.drop(columns="label"))
        print(
            "  ".join(f"AR@{an} {100 * recall[an]:.2f}" for an in (1, 5, 10, 50, 100))
            + f"  AUC {area_under_recall(recall):.2f}"
        )
    if arguments.class_scores:
        found = fuse(
            found.drop(columns="label"),
            read_class_scores(arguments.class_scores, sorted(truth.label.unique())),
            arguments.top,
        )
    print(
        f"{len(found):,} detections, {len(truth):,} segments of {truth.recording.nunique():,} recordings"
        + (f" ({split})" if split else "")
    )
    print_scores(mean_average_precision(truth, found, arguments.tious))
