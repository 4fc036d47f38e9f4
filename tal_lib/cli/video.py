"""The video commands of `tal`: extract, detect, serve, and preparing data."""

from tal_lib.cli.options import add_overwrite, typed
from tal_lib.errors import TalError, one_line
from tal_lib.validation import Count, NotNegative, Port, Positive, Probability, Seed, Threads, Whole


def add_data_actions(data_actions) -> None:
    """Add the actions that prepare videos to `tal data`."""
    prepare = data_actions.add_parser(
        "prepare",
        help="copy a random sample of the files of a data set from Kaggle, Hugging Face or a folder",
    )
    prepare.add_argument("origin", metavar="ORIGIN", help="kaggle:OWNER/NAME, hf:OWNER/NAME, or a folder")
    prepare.add_argument("--out", required=True, help="output folder")
    prepare.add_argument(
        "--count", type=typed(Count), default=None, metavar="N", help="number of files (default: all)"
    )
    prepare.add_argument("--seed", type=typed(Seed), default=0, help="seed of the sample (default: 0)")
    prepare.add_argument(
        "--kind",
        nargs="+",
        default=None,
        metavar=".SUFFIX",
        help="kind of files to copy, such as .npy for features (default: videos)",
    )
    add_overwrite(prepare)
    prepare.set_defaults(run=_prepare)
    render = data_actions.add_parser("render", help="render videos of simple actions, with annotations")
    render.add_argument("--out", required=True, help="output folder")
    render.add_argument(
        "--train", type=typed(Whole), default=40, help="number of training videos (default: 40)"
    )
    render.add_argument("--test", type=typed(Whole), default=8, help="number of test videos (default: 8)")
    render.add_argument(
        "--seconds", type=typed(Positive), default=40.0, help="duration of each video (default: 40)"
    )
    render.add_argument("--seed", type=typed(Seed), default=0, help="random seed (default: 0)")
    add_overwrite(render)
    render.set_defaults(run=_render)


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    extract = commands.add_parser("extract", help="extract the features of videos")
    extract.add_argument("videos", nargs="+", metavar="VIDEO_OR_FOLDER", help="video, or folder of videos")
    extract.add_argument(
        "--backbone",
        default="hog-hof",
        help="hog-hof (default, no weights), efficientnet-lite0 (weights from a package), resnet50, "
        "clip-vit-b32, inception_resnet_v2 (needs timm), dinov2-small, transformers:WHERE or clip:WHERE",
    )
    extract.add_argument(
        "--fps", type=typed(Positive), default=16.0, help="frames per second that are sampled (default: 16)"
    )
    extract.add_argument(
        "--window", type=typed(Count), default=16, help="frames per feature step (default: 16)"
    )
    extract.add_argument(
        "--stride", type=typed(Count), default=8, help="frames between feature steps (default: 8)"
    )
    extract.add_argument(
        "--skip",
        type=typed(Count),
        default=1,
        metavar="N",
        help="use every N-th sampled frame (default: 1)",
    )
    extract.add_argument(
        "--max-frames",
        type=typed(Count),
        default=0,
        metavar="N",
        help="use only the first N frames of each video (default: all)",
    )
    extract.add_argument(
        "--workers",
        type=typed(Threads),
        default=1,
        help="number of videos to process in parallel (default: 1)",
    )
    extract.add_argument("--again", action="store_true", help="extract existing features again")
    extract.add_argument("--out", required=True, help="output folder for the .npy files and spec.json")
    add_overwrite(extract)
    extract.set_defaults(run=_extract)

    detect = commands.add_parser(
        "detect",
        help="detect the actions in a video or in feature files",
        description="Detect the actions in a video or in feature files. For a video, the command writes a "
        "table, JSON, a timeline and, with --draw, the video with its detections. For feature files of shape "
        "(T, D) it writes a table and detections.json. The features must be those of the training.",
    )
    detect.add_argument(
        "source",
        metavar="SOURCE",
        help="video, feature file (.npy, .npz, .pt, .h5, .csv), or folder of feature files",
    )
    detect.add_argument("--draw", action="store_true", help="also write the video with its detections")
    detect.add_argument(
        "--windowed",
        action="store_true",
        help="run every model in windows, so that the network's memory does not grow with the recording; "
        "some models then detect otherwise (docs/end-to-end.md)",
    )
    detect.add_argument("--out", default="detections", help="output folder (default: detections)")
    add_overwrite(detect)
    detect.set_defaults(run=_detect)

    serve = commands.add_parser(
        "serve", help="serve a live web page that shows a camera, file or stream with its current action"
    )
    serve.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="file, camera (0, /dev/video0) or URL (rtsp://…); default: $TAL_SOURCE, which hides the URL "
        "from the process list",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, reachable from this machine only)",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="additional host name that viewers may use; may be repeated",
    )
    serve.add_argument("--port", type=typed(Port), default=8000, help="port (default: 8000; 0: any free one)")
    tokens = serve.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token",
        default=None,
        help="secret that viewers must enter; required if other machines can reach the page. The process "
        "list shows it: on a shared machine, use $TAL_TOKEN or --token-file",
    )
    tokens.add_argument("--token-file", default=None, metavar="FILE", help="file that contains the token")
    serve.add_argument(
        "--delay",
        type=typed(NotNegative),
        default=1.5,
        help="seconds between an event and its detection (default: 1.5)",
    )
    serve.add_argument("--once", action="store_true", help="play a file once (default: in a loop)")
    serve.set_defaults(run=_serve)
    for command in (detect, serve):
        command.lists("trained models")
        command.add_argument(
            "--model",
            required=True,
            metavar="MODEL",
            help="checkpoint (model.pt), model folder or its short name (hapt/tridet), or the folder of an "
            "exported model",
        )
        command.add_argument(
            "--trust",
            action="store_true",
            help="allow exported pt2 and TorchScript models: they can run arbitrary code",
        )
        command.add_argument(
            "--backbone",
            default=None,
            help="backbone of the features, as for `tal extract` (default: chosen by the model's streams)",
        )
        command.add_argument(
            "--window",
            type=typed(Count),
            default=None,
            help="frames per feature step of the model's features, as for `tal extract` (default: 16)",
        )
        command.add_argument(
            "--threshold",
            type=typed(Probability),
            default=0.25,
            help="lowest score of a shown action (default: 0.25)",
        )


def _prepare(arguments):
    from tal_lib.video.frames import SUFFIXES
    from tal_lib.video.prepare import prepare

    kinds = tuple(arguments.kind) if arguments.kind else SUFFIXES
    table = prepare(
        arguments.origin, arguments.out, count=arguments.count, seed=arguments.seed, suffixes=kinds
    )
    return _summary(table, "file", arguments.out)


def _render(arguments):
    from tal_lib.video.rendered import render

    print(render(arguments.out, arguments.train, arguments.test, arguments.seconds, arguments.seed))


def _extract(arguments):
    import os
    from contextlib import suppress
    from pathlib import Path

    from tal_lib.data.spec import NAME
    from tal_lib.video.extract import Sampling, extract
    from tal_lib.video.frames import videos_in
    from tal_lib.writing import remove_replaceable

    paths = [path for source in arguments.videos for path in videos_in(Path(source))]
    sampling = Sampling(
        arguments.fps, arguments.window, arguments.stride, arguments.skip, arguments.max_frames
    )
    out = Path(arguments.out)
    described = os.path.lexists(out / NAME)
    try:
        table = extract(
            paths, out, arguments.backbone, sampling, workers=arguments.workers, again=arguments.again
        )
    finally:
        with suppress(OSError):
            if not described and not any(out.glob("*.npy")):  # it would describe nothing
                remove_replaceable(out / NAME)
    return _summary(table, "video", arguments.out)


def _summary(table, name, out):
    for row in table[table.problem != ""].itertuples():
        print(one_line(f"{getattr(row, name)}: {row.problem}"))
    failed = int(((table.problem != "") & ~table.new).sum())
    new = int(table.new.sum())
    print(f"{len(table)} {name}s: {new} new, {len(table) - new - failed} were there, {failed} failed   {out}")
    return 1 if failed else 0


def _ready(arguments):
    from tal_lib.video import backbone
    from tal_lib.video.detect import ready

    chosen = ready(arguments.model, trust=arguments.trust)
    return chosen, backbone(arguments.backbone) if arguments.backbone else None


def _detect(arguments):
    from tal_lib.reports.layout import model_place
    from tal_lib.video.detect_features import is_features

    arguments.model = model_place(arguments.model)
    return (_detect_in_features if is_features(arguments.source) else _detect_in_video)(arguments)


def _detect_in_features(arguments):
    from tal_lib.video.detect import ready, require_windows
    from tal_lib.video.detect_features import detect_in_features, write_table
    from tal_lib.writing import claim

    for option in ("draw", "backbone"):
        if getattr(arguments, option):
            raise TalError(
                f"--{option} is for videos, but {arguments.source} has features",
                remedy=f"Leave out --{option}.",
            )
    claim(arguments.out, ["detections.json"], sources=[arguments.source, arguments.model])
    chosen = ready(arguments.model, trust=arguments.trust)
    if arguments.windowed:
        require_windows(chosen, arguments.model)
    table, problems = detect_in_features(arguments.source, chosen, arguments.windowed)
    _print_table(table, arguments.threshold, "recording")
    for problem in problems.values():
        print(problem)
    if table.attrs["recordings"]:
        print(write_table(arguments.out, table))
    if problems:
        print(f"{table.attrs['recordings']} recordings done, {len(problems)} failed")
    return 1 if problems else 0


def _print_table(table, threshold, *more):
    """Print the detections with at least this score, in order of time, and how many there are in all."""
    shown = table[table.score >= threshold].sort_values([*more, "start"])
    if len(shown):
        columns = shown[[*more, "start", "end", "label", "score"]].round(2)
        print(columns.rename(columns={"start": "start (s)", "end": "end (s)"}).to_string(index=False))
        print(f"{len(shown):,} of {len(table):,} detections score {threshold:g} (--threshold) or more.")
    else:
        best = f"; the best has {table.score.max():.2f}" if len(table) else ""
        print(f"None of {len(table):,} detections has a score of {threshold:g} (--threshold) or more{best}.")


def _tell_window(arguments):
    """Say so if the frames per feature step are assumed: a model does not know those of its features."""
    import sys

    from tal_lib.video.backbones import WINDOW

    if arguments.window is None:
        print(
            f"tal: {WINDOW} frames per step are assumed, as of `tal extract`; if the model's features have "
            "another number, give --window.",
            file=sys.stderr,
        )


def _detect_in_video(arguments):
    from tal_lib.video.backbones import WINDOW
    from tal_lib.video.detect import (
        claim_outputs,
        detect,
        extractor_for,
        require_all_streams,
        require_windows,
        write_all,
    )

    claim_outputs(arguments.source, arguments.out, draw=arguments.draw, model=arguments.model)
    chosen, extractor = _ready(arguments)
    require_all_streams(chosen, arguments.model)
    extractor = extractor_for(chosen, extractor, arguments.model)
    if arguments.windowed:
        require_windows(chosen, arguments.model)
    window = arguments.window or WINDOW
    table, reader = detect(arguments.source, chosen, extractor, window, arguments.windowed)
    _tell_window(arguments)
    _print_table(table, arguments.threshold)
    if reader.problem:
        print(f"{arguments.source}: {reader.problem}")
    written = write_all(
        arguments.source,
        table,
        reader,
        chosen.classes,
        arguments.out,
        draw=arguments.draw,
        threshold=arguments.threshold,
    )
    print("\n".join(map(str, written)))


def _token(arguments):
    """The token, from the option, the file, or `$TAL_TOKEN`; None if none is set."""
    import os

    from tal_lib.reading import read_text

    if arguments.token_file is None:
        return arguments.token if arguments.token is not None else os.environ.get("TAL_TOKEN")
    token = read_text(arguments.token_file, what="token file", largest=4096).strip()
    if not token.isprintable():
        raise TalError(
            "more than one line", where=arguments.token_file, remedy="Write only the token into it."
        )
    return token


def _serve(arguments):
    import os

    from tal_lib.reports.layout import model_place
    from tal_lib.validation import NotNegative, Probability, validate
    from tal_lib.video.addresses import check_source
    from tal_lib.video.backbones import WINDOW
    from tal_lib.video.detect import extractor_for, require_all_streams
    from tal_lib.video.live import LiveDetector
    from tal_lib.video.server import address_of, make_server
    from tal_lib.video.stream import Stream

    source = arguments.source or os.environ.get("TAL_SOURCE")
    if not source:
        raise TalError("SOURCE is missing", remedy="Give a file, camera number or URL, or set TAL_SOURCE.")
    check_source(source)
    arguments.model = model_place(arguments.model)
    token = _token(arguments)
    delay = validate(NotNegative, arguments.delay, name="--delay")
    threshold = validate(Probability, arguments.threshold, name="--threshold")
    chosen, extractor = _ready(arguments)
    require_all_streams(chosen, arguments.model)
    extractor = extractor_for(chosen, extractor, arguments.model)
    detector = LiveDetector(
        chosen.model,
        chosen.classes,
        chosen.spec,
        extractor=extractor,
        window=arguments.window or WINDOW,
        delay_s=delay,
        threshold=threshold,
        prepared=chosen.prepared,
    )
    stream = Stream(source, detector, loop=not arguments.once)
    server = make_server(
        stream,
        host=arguments.host,
        port=arguments.port,
        token=token,
        hosts=tuple(arguments.allow_host),
    )
    stream.start()
    print(f"watch at {address_of(server, arguments.host, token)}  (Ctrl-C ends)", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        stream.stop()
        server.close()
