"""The command `tal`. Exit codes: 0 done, 1 some cells failed (or problems were found), 2 bad arguments or input."""

import argparse
import sys

from tal_lib import __version__
from tal_lib.cli_video import add_commands
from tal_lib.errors import TalError
from tal_lib.processes import keep_freed


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (of the process if None); the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if argv is None:  # the process is ours
        keep_freed()
    try:
        return arguments.run(arguments) or 0
    except TalError as error:
        print(f"tal: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tal: interrupted; finished work is kept, the same command goes on from there", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(prog="tal", description="Efficient temporal action localization: the study's tool.")
    parser.add_argument("--version", action="version", version=f"tal {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="list, fetch and check benchmarks; write data-limited subsets")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("list", help="the benchmarks and whether their files are here")
    one.set_defaults(run=_data_list)
    one = actions.add_parser("fetch", help="download a benchmark, or take it from a file")
    one.add_argument("name")
    one.add_argument("--from", dest="source", metavar="FILE", help="the archive, downloaded before")
    one.set_defaults(run=_data_fetch)
    check = actions.add_parser("check", help="what is missing or broken, recording by recording")
    check.add_argument("name")
    check.set_defaults(run=_data_check)
    subset = actions.add_parser("subset", help="write a data-limited annotation file")
    subset.add_argument("name")
    subset.add_argument("--fraction", type=float, required=True, help="share of the training recordings, 0–1")
    subset.add_argument("--seed", type=int, default=0)
    subset.add_argument("--out", default=".", help="folder (default: here)")
    subset.set_defaults(run=_data_subset)
    for one in actions.choices.values():
        one.add_argument("--root", help="data folder (default: $TAL_DATA, data/ or ../shared/data)")
    add_commands(commands, actions)

    sweep = commands.add_parser("sweep", help="run the cells of a grid that are not done yet")
    sweep.add_argument("grid", metavar="GRID.yaml")
    sweep.add_argument("--jobs", type=int, default=1, help="cells at a time (default 1)")
    sweep.add_argument("--threads", type=int, default=1, help="CPU threads of a cell (default 1)")
    sweep.add_argument("--cluster", metavar="WHERE", help="tcp://HOST:PORT of a Dask scheduler, local:N workers, or slurm:CONFIG.yaml")
    sweep.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop longer cells (default: the grid's, or 12 hours)")
    sweep.add_argument("--memory-limit", type=float, metavar="GB", help="memory that a cell may take (default: what there is)")
    sweep.add_argument("--only", action="append", default=[], metavar="KEY=VALUE", help="only cells with this parameter value")
    sweep.add_argument("--dry-run", action="store_true", help="list the cells and whether they are done")
    sweep.add_argument("--again", action="store_true", help="run finished cells again")
    sweep.set_defaults(run=_sweep)

    again = commands.add_parser("verify", help="run a random sample of the committed cells again: do their numbers hold?")
    again.add_argument("results", nargs="?", default="results", help="folder of the ledgers (default: results)")
    again.add_argument("--sample", type=int, default=3, help="how many cells (default 3)")
    again.add_argument("--seed", type=int, default=None, help="of the draw (default: another one each time)")
    again.add_argument("--tolerance", type=float, default=0.02, help="how far means may be off (default 0.02: 2 points of mAP)")
    again.add_argument("--longest", type=float, default=300, metavar="SECONDS", help="draw from cells that took at most so long")
    again.add_argument("--only", action="append", default=[], metavar="KEY=VALUE", help="only cells with this parameter value")
    again.set_defaults(run=_verify)

    report = commands.add_parser("report", help="rebuild tables, figures and rendered notebooks from the ledger")
    report.add_argument("--figures", default=None, help="folder of the figures (default: figures, or RESULTS/figures)")
    report.add_argument("--no-notebooks", action="store_true", help="tables and figures only")
    report.set_defaults(run=_report)
    site = commands.add_parser("site", help="build a static site, which works offline, from the rendered notebooks")
    site.add_argument("--out", default="build/site", help="folder of the site (default: build/site)")
    site.set_defaults(run=_site)
    for one in (sweep, report):
        one.add_argument("--results", default="results", help="folder of ledger and tables (default: results)")
        one.add_argument("--runs", default="runs", help="folder of the run folders (default: runs)")

    cost = commands.add_parser("cost", help="parameters, MACs, memory and latency of a model")
    cost.add_argument("model")
    cost.add_argument("--length", type=int, nargs="+", required=True, metavar="T", help="steps; several for a table")
    cost.add_argument("--dim", type=int, required=True, metavar="D", help="feature columns")
    cost.add_argument("--classes", type=int, default=20, metavar="K")
    cost.add_argument("--preset", default="compact")
    cost.add_argument("--device", default="cpu")
    cost.add_argument("--precision", default="float32", help="float32, bfloat16 or compiled")
    cost.add_argument("--threads", type=int, default=None)
    cost.set_defaults(run=_cost)

    train = commands.add_parser("train", help="train one model; writes model.pt, history.csv, detections.json, proposals.json")
    train.add_argument("model")
    train.add_argument("--benchmark", default="synthetic")
    train.add_argument("--preset", default="compact")
    train.add_argument("--fraction", type=float, default=1.0)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--stream", default=None)
    train.add_argument("--device", default=None, help="cpu or cuda (default: $TAL_DEVICE, else a GPU if there is one)")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the model or the recipe")
    train.add_argument("--proposals", metavar="MODEL", help="of tcanet: the model whose proposals it refines (default: bmn)")
    train.add_argument("--fusion", choices=("early", "late"), default="early", help="of several streams: their columns joined, or a model "
                       "a stream and their scores averaged (then OUT has a folder a stream)")
    train.add_argument("--weights", nargs="+", default=[], metavar="STREAM=WEIGHT", help="of late fusion (default: equal)")
    train.add_argument("--teacher", metavar="MODEL.pt", help="of a pyramid detector: a trained one to learn from, beside the annotations")
    train.add_argument("--root", help="data folder")
    train.add_argument("--out", required=True, help="folder")
    train.set_defaults(run=_train)

    out = commands.add_parser("export", help="write a trained model as ONNX, pt2 or TorchScript, with all that its outputs mean")
    out.add_argument("model", help="its name, as a check")
    out.add_argument("--checkpoint", required=True, metavar="model.pt", help="written by `tal train`")
    out.add_argument("--format", default="onnx", choices=("onnx", "pt2", "torchscript"))
    out.add_argument("--out", required=True, help="folder")
    out.set_defaults(run=_export)

    evaluate = commands.add_parser("eval", help="mAP of a detections file")
    evaluate.add_argument("detections", metavar="DETECTIONS.json")
    evaluate.add_argument("annotations", metavar="ANNOTATIONS.json")
    evaluate.add_argument("--split", default=None, help="subset to score (default: test, else validation, else all)")
    evaluate.add_argument("--class-scores", metavar="FILE", help="take the file's segments as proposals without class, and multiply by "
                          "these scores of whole recordings (JSON or pickle)")
    evaluate.add_argument("--top", type=int, default=2, help="classes a recording, with --class-scores (default: 2)")
    evaluate.add_argument("--recall", action="store_true", help="print AR@AN and its area too, whatever the classes")
    evaluate.add_argument("--tious", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7])
    evaluate.set_defaults(run=_eval)
    return parser


def _data_list(arguments):
    from tal_lib.data import list_benchmarks

    print(list_benchmarks(arguments.root).to_string(index=False))


def _data_fetch(arguments):
    from pathlib import Path

    from tal_lib.data import hapt
    from tal_lib.files import data_root

    if arguments.name != "hapt":
        raise TalError(f"{arguments.name} cannot be fetched", remedy="Only hapt can; `tal data list` says where others come from.")
    print(hapt.fetch(Path(arguments.root) if arguments.root else data_root(), arguments.source))


def _data_check(arguments):
    from tal_lib.data import check_benchmark, load_benchmark

    benchmark = load_benchmark(arguments.name, arguments.root)
    print(benchmark)
    problems = check_benchmark(arguments.name, arguments.root)
    for row in problems.itertuples(index=False):
        print(f"{row.kind}: {row.recording}: {row.problem}")
    broken = (problems.kind == "broken").sum()
    print(f"{len(benchmark.recordings())} recordings, {broken} broken, {len(problems) - broken} remarks")
    return 1 if broken else 0


def _data_subset(arguments):
    from tal_lib.data import load_benchmark, write_limited_annotations

    benchmark = load_benchmark(arguments.name, arguments.root)
    print(write_limited_annotations(benchmark, arguments.fraction, arguments.seed, arguments.out))


def _pairs(items):
    """KEY=VALUE texts → dict; values as YAML reads them."""
    import yaml

    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise TalError(f"{item!r} is not KEY=VALUE")
        pairs[key] = yaml.safe_load(value)
    return pairs


def _only(arguments):
    only = dict(item.split("=", 1) for item in arguments.only if "=" in item)
    if len(only) < len(arguments.only):
        raise TalError("--only takes KEY=VALUE")
    return only


def _sweep(arguments):
    from tal_lib import sweeps

    only = _only(arguments)
    if arguments.dry_run:
        cells = sweeps.plan(arguments.grid, only)
        done = {record["id"] for record in sweeps.ledgers(arguments.results)}
        for cell in cells:
            print(f"{cell.id}  {'done' if cell.id in done else 'to do'}  {cell.notebook.stem}  {cell.label()}")
        print(f"{len(cells)} cells, {sum(cell.id not in done for cell in cells)} to do")
        return 0
    result = sweeps.run(arguments.grid, jobs=arguments.jobs, threads=arguments.threads, cluster=arguments.cluster,
                        resume=not arguments.again, results=arguments.results, runs=arguments.runs, only=only,
                        time_limit=arguments.time_limit and 60 * arguments.time_limit,
                        memory_limit=arguments.memory_limit and int(1e9 * arguments.memory_limit))
    print(f"{len(result.cells)} cells: {result.done_before} were done, {result.done_now} done now, {len(result.failed)} failed")
    print(f"ledger  {result.ledger}")
    for cell, reason in result.failed.items():
        print(f"failed  {cell}: {reason}\n        notebook with the traceback: {result.runs / (cell + '.failed')}")
    if result.failed:
        print("The same command tries the failed cells again.")
    return 1 if result.failed else 0


def _verify(arguments):
    from tal_lib import sweeps

    held = []
    for one in sweeps.verify(arguments.results, arguments.sample, arguments.seed, arguments.tolerance, arguments.longest, _only(arguments)):
        held.append(one.holds)
        print(one, flush=True)
    print(f"{sum(held)} of {len(held)} cells hold")
    return 0 if all(held) else 1


def _site(arguments):
    from tal_lib.reports import site

    print(f"{len(written := site.build(arguments.out))} pages; open {written[0]}")


def _report(arguments):
    from pathlib import Path

    from tal_lib.reports.report import report

    own = Path(arguments.results) == Path("results")
    figures = arguments.figures or ("figures" if own else str(Path(arguments.results) / "figures"))
    done = report(arguments.results, figures, arguments.runs, render=not arguments.no_notebooks)
    print(f"{len(done.tables)} tables   {Path(arguments.results).resolve()}")
    print(f"{len(done.figures)} figures  {Path(figures).resolve()}")
    for page in done.notebooks:
        print(f"page       {page.resolve()}")


def _cost(arguments):
    import pandas as pd

    from tal_lib.cost import profile

    rows = [profile(arguments.model, arguments.dim, length, arguments.device, num_classes=arguments.classes,
                    preset=arguments.preset, precision=arguments.precision, threads=arguments.threads) for length in arguments.length]
    print(f"{rows[0].model} ({rows[0].preset}), {rows[0].params:,} parameters; {rows[0].device_name}, {rows[0].threads} threads, "
          f"{rows[0].precision}")
    print(pd.DataFrame([{"steps": row.length_steps, "GMACs": round(row.macs / 1e9, 3),
                         "latency ms": round(1e3 * row.latency_s_median, 2), "p90 ms": round(1e3 * row.latency_s_p90, 2),
                         "with NMS ms": round(1e3 * row.detect_s_median, 2),
                         "peak MB": round(row.peak_memory_bytes / 1e6, 1), "uncounted": row.uncounted_ops or "none"}
                        for row in rows]).to_string(index=False))


def _train(arguments):
    from pathlib import Path

    from tal_lib import evaluation, models
    from tal_lib.data import limited_subset, load_benchmark
    from tal_lib.models.fusion import LateFusion, checked_weights
    from tal_lib.training import Distillation, Distilled, Recipe, detect_all, fit, load_model, propose_all, recipe_for, seed_everything

    if arguments.fusion == "late" and (arguments.stream or arguments.teacher):
        raise TalError("--fusion late trains on every stream, without a teacher", remedy="Leave out --stream and --teacher.")
    if arguments.weights and arguments.fusion != "late":
        raise TalError("--weights are those of late fusion", remedy="Add --fusion late.")
    values = _pairs(arguments.set) | ({"generator": arguments.proposals} if arguments.proposals else {})
    recipe = {name: value for name, value in values.items() if name in Recipe.__dataclass_fields__}
    data = load_benchmark(arguments.benchmark, arguments.root)
    recordings = limited_subset(data, arguments.fraction, arguments.seed)
    written = []

    def train(stream, out):
        columns = data.feature_spec.columns(stream)
        seed_everything(arguments.seed)
        model = models.build(arguments.model, input_dim=columns.stop - columns.start, num_classes=len(data.classes),
                             preset=arguments.preset, **{name: value for name, value in values.items() if name not in recipe})
        if arguments.teacher:
            model = Distilled(model, load_model(arguments.teacher).model, Distillation())
        result = fit(model, data, recordings, recipe_for(arguments.model, arguments.preset, **recipe), arguments.seed, out, stream=stream,
                     device=arguments.device, progress=True)
        written.append(result.checkpoint)
        return result.model

    if arguments.fusion == "late":
        streams = data.feature_spec.streams
        weights = checked_weights(_pairs(arguments.weights), streams)  # before hours of training
        model = LateFusion({stream: train(stream, Path(arguments.out) / stream) for stream in streams},
                           {stream: data.feature_spec.columns(stream) for stream in streams}, weights)
    else:
        model = train(arguments.stream, arguments.out)
    detections = detect_all(model, data, data.recordings("test"), stream=arguments.stream, device=arguments.device)
    proposals = propose_all(model, data, data.recordings("test"), stream=arguments.stream, device=arguments.device)
    evaluation.write_detections(Path(arguments.out) / "detections.json", detections)
    evaluation.write_detections(Path(arguments.out) / "proposals.json", proposals.assign(label="proposal"))
    scores = evaluation.mean_average_precision(data.annotations("test"), detections, data.tious)
    _print_scores(scores)
    for path in written:
        print(f"model  {path}")


def _export(arguments):
    import json

    from tal_lib.export import ABOUT, export
    from tal_lib.training import load_model

    trained = load_model(arguments.checkpoint)
    if trained.model.spec["name"] != arguments.model:
        raise TalError(f"it holds {trained.model.spec['name']}, not {arguments.model}", where=arguments.checkpoint,
                       remedy="Name the model that was trained.")
    folder = export(trained, arguments.out, arguments.format)
    about = json.loads((folder / ABOUT).read_text())
    print(f"{arguments.model}, {len(about['classes'])} classes; outputs {', '.join(about['outputs'])}; differs from the model by at most "
          f"{about['largest_difference']:.1e}")
    print(folder / about["file"])


def _eval(arguments):
    from tal_lib.data import read_annotations
    from tal_lib.evaluation import area_under_recall, average_recall, fuse, mean_average_precision, read_class_scores, read_detections

    content = read_annotations(arguments.annotations, repair=True)
    splits = set(content.recordings.split)
    split = arguments.split or next((name for name in ("test", "validation") if name in splits and content.segments.recording.isin(
        content.recordings.recording[content.recordings.split == name]).any()), None)
    if split is not None and split not in splits:
        raise TalError(f"no recordings of subset {split!r}", where=arguments.annotations,
                       remedy=f"Choose from {', '.join(sorted(splits))}.")
    kept = content.recordings.recording if split is None else content.recordings.recording[content.recordings.split == split]
    truth = content.segments[content.segments.recording.isin(kept)]
    found = read_detections(arguments.detections)
    known = set(content.recordings.recording)
    unknown = [name for name in found.recording.unique() if name not in known]
    if unknown:
        raise TalError(f"recording {unknown[0]} is not in the annotations" + (f" ({len(unknown)} such)" if len(unknown) > 1 else ""),
                       where=arguments.detections, remedy="Score detections with the annotations they were made for.")
    found = found[found.recording.isin(kept)]
    if arguments.recall:
        recall = average_recall(truth, found.drop(columns="label"))
        print("  ".join(f"AR@{an} {100 * recall[an]:.2f}" for an in (1, 5, 10, 50, 100)) + f"  AUC {area_under_recall(recall):.2f}")
    if arguments.class_scores:
        found = fuse(found.drop(columns="label"), read_class_scores(arguments.class_scores, sorted(truth.label.unique())), arguments.top)
    print(f"{len(found):,} detections, {len(truth):,} segments of {truth.recording.nunique():,} recordings"
          + (f" ({split})" if split else ""))
    _print_scores(mean_average_precision(truth, found, arguments.tious))


def _print_scores(scores):
    print("tIoU    " + "  ".join(f"{tiou:5.2f}" for tiou in scores.index))
    print("mAP %   " + "  ".join(f"{100 * value:5.2f}" for value in scores))
    print(f"avg mAP {100 * scores.mean():.2f} %")
