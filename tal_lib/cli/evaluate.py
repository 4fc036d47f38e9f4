"""`tal eval`."""

from tal_lib.cli.options import add_only, add_root, only, print_scores, root_of
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    evaluate = commands.add_parser(
        "eval",
        help="compute the mAP of a detections file",
        description="Compute the mAP of a detections file. Recording ids may have the prefix v_ of "
        "ActivityNet. Numeric labels are looked up in label_id of the annotations. Labels that the "
        "annotations do not have are reported.",
    )
    evaluate.lists("benchmarks")
    evaluate.add_argument(
        "detections",
        metavar="DETECTIONS",
        help="JSON file, or table (.csv, .parquet) with recording, start, end, label, score",
    )
    evaluate.add_argument(
        "annotations",
        metavar="ANNOTATIONS",
        help="annotations in ActivityNet's JSON form, or a benchmark (name, or folder of your own)",
    )
    evaluate.add_argument(
        "--fold",
        type=int,
        help="cross-validation fold of the benchmark (default: of --only fold=N, else the official split)",
    )
    add_root(evaluate)
    add_only(
        evaluate,
        "run to score, for a file in results/detections that holds several (model=tridet, fold=0)",
        metavar="NAME=VALUE",
    )
    evaluate.add_argument(
        "--split", default=None, help="split to score (default: test, else validation, else all)"
    )
    evaluate.add_argument(
        "--class-scores",
        metavar="FILE",
        help="treat the segments as class-agnostic proposals, and multiply their scores by these class "
        "scores of whole recordings (JSON or pickle)",
    )
    evaluate.add_argument(
        "--top", type=int, default=2, help="with --class-scores: number of classes per recording (default: 2)"
    )
    evaluate.add_argument(
        "--recall", action="store_true", help="also print class-agnostic AR@AN and the area under it"
    )
    evaluate.add_argument(
        "--taxonomy",
        metavar="FILE",
        help="also compute mAP at the coarser levels of this class taxonomy (JSON, see "
        "docs/adding-a-dataset.md)",
    )
    evaluate.add_argument(
        "--distinct",
        action="store_true",
        help="drop annotations shorter than 1 ms and repeated ones, as ActionFormer's code does",
    )
    evaluate.add_argument(
        "--tious",
        type=float,
        nargs="+",
        default=[0.3, 0.4, 0.5, 0.6, 0.7],
        help="tIoU thresholds (default: 0.3 to 0.7 in steps of 0.1)",
    )
    evaluate.set_defaults(run=_eval)


def _eval(arguments):
    import sys

    from tal_lib.data import distinct_annotations
    from tal_lib.evaluation import (
        check_tious,
        match_detection_labels,
        match_detections,
        mean_average_precision,
        read_detections,
        read_taxonomy,
    )
    from tal_lib.validation import Count, validate

    tious = check_tious(arguments.tious)
    validate(Count, arguments.top, name="--top")
    content = _annotations(arguments)
    split, truth, kept = _subset(content, arguments.split, arguments.annotations)
    if arguments.distinct:
        truth = distinct_annotations(truth)
    where, no_map = arguments.detections, None
    proposals, remarks = match_detections(read_detections(where, only(arguments)), content, where=where)
    remarks += _unscored(proposals, truth, kept, split)
    proposals = detections = proposals[proposals.recording.isin(kept)]
    if arguments.class_scores:
        detections = _fused(proposals, content, arguments.class_scores, arguments.top)
    elif len(proposals):
        try:
            detections, more = match_detection_labels(proposals, content, where=where)
            remarks += more
        except TalError as error:
            if not arguments.recall:
                raise
            no_map = error  # proposals without class: only recall can be computed
    taxonomy = None
    if arguments.taxonomy:
        labels = {*truth.label, *(() if no_map else detections.label)}
        taxonomy = read_taxonomy(arguments.taxonomy, labels)
    for remark in remarks:  # all inputs are checked: from here on results are printed
        print(f"tal: {where}: {remark}", file=sys.stderr)
    if arguments.recall:
        _print_recall(truth, proposals)
    if no_map:
        print(f"no mAP: {no_map}", file=sys.stderr)
        return
    print(
        f"{len(detections):,} detections, {len(truth):,} segments of {truth.recording.nunique():,} recordings"
        + (f" ({split})" if split else "")
    )
    print_scores(mean_average_precision(truth, detections, tious))
    if taxonomy:
        _print_levels(truth, detections, tious, taxonomy)


def _annotations(arguments):
    """The annotations of a file, or of a benchmark's official split or fold."""
    from tal_lib.data import load_benchmark, read_annotations
    from tal_lib.data.annotations import AnnotationFile

    where = arguments.annotations
    if _is_file(where, root_of(arguments)):
        if arguments.fold is not None:
            raise TalError(
                "a file has no folds",
                where=where,
                remedy="Name a benchmark, such as hapt, or leave out --fold.",
            )
        return read_annotations(where, repair=True)
    fold = arguments.fold
    if fold is None:
        given = only(arguments).get("fold", "-1")
        fold = int(given) if given.lstrip("-").isdecimal() else -1
    benchmark = load_benchmark(where, root_of(arguments), fold=fold)
    return AnnotationFile(benchmark.table(), benchmark.annotations(), benchmark.notes)


def _is_file(where, root):
    """Whether annotations are given as a file, not as a benchmark's name or folder."""
    from pathlib import Path

    from tal_lib.data.registry import check_known

    if Path(where).is_dir():
        return False
    if Path(where).name == where:
        try:
            check_known(where, root)
        except TalError:
            return True
        return False
    return True


def _unscored(detections, truth, kept, split):
    """Remarks on detections of other recordings than the scored ones, and on recordings without any."""
    remarks, scored = [], detections.recording.isin(kept)
    if not scored.all():
        remarks.append(
            f"{int((~scored).sum()):,} of {len(detections):,} detections are of recordings outside {split}: "
            "not scored. If they are of a fold, give the benchmark's name and the fold"
        )
    missing = (
        truth.recording.nunique() - truth[truth.recording.isin(detections.recording)].recording.nunique()
    )
    if missing:
        remarks.append(
            f"{missing} of {truth.recording.nunique()} annotated recordings have no detection: they count as "
            "missed"
        )
    return remarks


def _subset(content, asked, where):
    """The subset to score (None: all), its segments, and its recordings."""
    from tal_lib.data.annotations import SPLITS

    splits = content.recordings.set_index("recording").split
    annotated = set(content.segments.recording.map(splits))
    split = SPLITS.get(asked.lower(), asked) if asked else None
    if asked is None:
        split = next((name for name in ("test", "validation") if name in annotated), None)
    elif split not in set(splits):
        raise TalError(
            f"no recordings of subset {asked!r}",
            where=where,
            remedy=f"Choose from {', '.join(sorted(set(splits)))}.",
        )
    kept = splits.index if split is None else splits.index[splits == split]
    truth = content.segments[content.segments.recording.isin(kept)]
    if not len(truth):
        raise TalError(
            f"no annotated segments{f' in subset {split!r}' if split else ''}",
            where=where,
            remedy="Choose a subset that has annotations.",
        )
    return split, truth, kept


def _fused(proposals, content, path, top):
    """Proposals with classes from the scores of their recordings."""
    from tal_lib.evaluation import fuse, match_recordings, read_class_scores

    classes = sorted(content.segments.label.unique())
    ids = content.label_ids
    if set(classes) <= set(ids.values()):  # a list without names is in the order of the ids
        classes = [ids[number] for number in sorted(ids) if ids[number] in set(classes)]
    scores = read_class_scores(path, classes, label_ids=ids)
    known = match_recordings(scores.index, content.recordings.recording, where=path)
    return fuse(proposals.drop(columns="label"), scores[scores.index.isin(known)].rename(index=known), top)


def _print_levels(truth, detections, tious, taxonomy):
    from tal_lib.evaluation import map_at_level, mean_precision

    for level in (*taxonomy.levels, "class"):
        scores = map_at_level(truth, detections, tious, taxonomy, level)
        precision = mean_precision(truth, detections, taxonomy, level)
        print(
            f"level {level}: avg mAP {100 * scores.mean():.2f}, mean precision by time {100 * precision:.2f}"
        )


def _print_recall(truth, proposals):
    from tal_lib.evaluation import area_under_recall, average_recall

    recall = average_recall(truth, proposals.drop(columns="label"))
    print(
        "  ".join(f"AR@{count} {100 * recall[count]:.2f}" for count in (1, 5, 10, 50, 100))
        + f"  AUC {area_under_recall(recall):.2f}"
    )
