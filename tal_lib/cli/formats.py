"""`tal data import` and `tal data export`: annotations of other programs."""

from tal_lib.cli.options import add_options, add_overwrite, pairs, typed
from tal_lib.disk import no_folder
from tal_lib.errors import TalError
from tal_lib.validation import Count, Finite, Positive, Rate

CONFIGURATIONS = {".yaml": "actionformer", ".yml": "actionformer", ".py": "opentad"}


def add_data_actions(data_actions) -> None:
    """Add `import` and `export` to `tal data`."""
    read = data_actions.add_parser(
        "import",
        help="import annotations of ELAN, VIA, BORIS, Label Studio or CVAT, or data sets of ActionFormer or "
        "OpenTAD",
        description="Import annotations or a data set. SOURCE is one of: files of annotation tools, a "
        "configuration of ActionFormer (YAML) or OpenTAD (Python, not executed), or a folder of features. "
        "The command writes annotations.json, and features/spec.json for a data set with features. "
        "docs/adding-a-dataset.md explains what to export from each tool.",
    )
    read.add_argument("sources", nargs="+", metavar="SOURCE", help="files, a configuration, or a folder")
    read.add_argument("--out", required=True, help="output folder of the data set")
    read.add_argument(
        "--as",
        dest="kind",
        metavar="FORMAT",
        help="elan, via, boris, label_studio or cvat (default: detected from the file)",
    )
    read.add_argument(
        "--fps", type=typed(Rate), help="frame rate of all videos, for annotations whose times are frames"
    )
    read.add_argument(
        "--durations", metavar="FILE.csv", help="table with columns recording and duration (seconds)"
    )
    read.add_argument("--videos", metavar="FOLDER", help="videos to read durations and frame rates from")
    read.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="NAME",
        help="tier to import from ELAN, or layer of a file that `tal data export` wrote; may contain * and ?",
    )
    read.add_argument(
        "--label",
        choices=("value", "tier"),
        default="value",
        help="for ELAN: take the label from the annotation's value (default) or from the tier's name",
    )
    read.add_argument("--attribute", metavar="NAME", help="for VIA and CVAT: attribute that holds the label")
    read.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="split of all recordings (default: train)",
    )
    read.add_argument(
        "--test", nargs="+", default=[], metavar="ID", help="recordings to put into the test split instead"
    )
    read.add_argument(
        "--update",
        metavar="FILE.json",
        help="earlier annotations to update: durations, frame rates, splits and all other recordings are "
        "kept",
    )
    read.add_argument("--annotations", metavar="FILE", help="annotations of a data set with features")
    read.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder of the features; repeat it for several streams",
    )
    add_options(read, "entry of spec.json for a folder of features, such as stride_frames=8 or resize=192")
    add_overwrite(read)
    read.set_defaults(run=_import)
    write = data_actions.add_parser(
        "export",
        help="export annotations and detections to ELAN or VIA",
        description="Export annotations and detections to ELAN or VIA, where people can correct them. `tal "
        "data import` reads the corrected files.",
    )
    write.add_argument("--as", dest="kind", required=True, choices=("elan", "via"), help="file format")
    write.add_argument("--out", required=True, help="output folder")
    write.add_argument("--annotations", metavar="FILE.json", help="annotations to export")
    write.add_argument(
        "--detections", metavar="FILE", help="detections to export, in a format that `tal eval` reads"
    )
    write.add_argument("--videos", metavar="FOLDER", help="folder of the videos that the tool will open")
    write.add_argument(
        "--min-score", type=typed(Finite), metavar="S", help="lowest score of exported detections"
    )
    write.add_argument(
        "--top", type=typed(Count), metavar="N", help="number of detections per recording, best first"
    )
    write.add_argument(
        "--recordings", nargs="+", default=[], metavar="ID", help="recordings to export (default: all)"
    )
    add_overwrite(write)
    write.set_defaults(run=_export)


def _import(arguments):
    from pathlib import Path

    from tal_lib.data.importing.dataset import write_folder
    from tal_lib.writing import claim

    sources = [Path(source) for source in arguments.sources]
    read = [*sources, *filter(None, (arguments.annotations, arguments.update))]
    claim(arguments.out, ["annotations.json"], sources=read)
    kinds = {_kind(path) for path in sources}
    if kinds == {"file"}:
        content, spec = _from_tools(sources, arguments), None
    elif len(sources) == 1:
        data = _data_set(sources[0], kinds.pop(), arguments)
        content, spec = data.content, data.spec
    else:
        raise TalError(
            "several sources, and not all of them are files of annotation tools",
            remedy="Import configurations and folders one by one.",
        )
    written = write_folder(arguments.out, content, spec)
    for remark in content.repairs:
        print(f"{remark.kind}: {remark}")
    for path in written:
        print(path)
    counts = content.recordings.split.value_counts()
    splits = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    print(
        f"{len(content.recordings):,} recordings ({splits}), {len(content.segments):,} segments, "
        f"{content.segments.label.nunique():,} classes"
    )


def _kind(path):
    """What a source is: a folder, a configuration (by its suffix), or a file of a tool."""
    return "folder" if path.is_dir() else CONFIGURATIONS.get(path.suffix.lower(), "file")


def _from_tools(sources, arguments):
    """The annotations in files of annotation tools."""
    from tal_lib.data import read_annotations
    from tal_lib.data.importing import Options, import_files
    from tal_lib.data.importing.collect import updated

    if arguments.set or arguments.annotations or arguments.features:
        raise TalError(
            "--set, --annotations and --features are for data sets with features",
            remedy="Leave them out for files of annotation tools.",
        )
    base = read_annotations(arguments.update, repair=True) if arguments.update else None
    durations, rates = _videos(arguments.videos)
    if base is not None:
        known = base.recordings.set_index("recording")
        durations = known.duration.to_dict() | durations
        rates = known.fps.dropna().to_dict() | rates
    if arguments.durations:
        durations |= _durations(arguments.durations)
    options = Options(
        fps=arguments.fps,
        durations=durations,
        rates=rates,
        tiers=tuple(arguments.tier),
        label=arguments.label,
        attribute=arguments.attribute,
        split=arguments.split,
        test=tuple(arguments.test),
    )
    content = import_files(sources, options, kind=arguments.kind)
    return content if base is None else updated(base, content)


def _data_set(source, kind, arguments):
    """The data set of a configuration or of a folder of features."""
    of_tools = ("kind", "durations", "videos", "tier", "attribute", "test", "update")
    if given := [name for name in of_tools if getattr(arguments, name)]:
        raise TalError(
            f"--{given[0].replace('kind', 'as')} is for files of annotation tools",
            where=source,
            remedy="Leave it out for a data set with features.",
        )
    from pathlib import Path

    from tal_lib.data.importing import actionformer, opentad

    annotations = Path(arguments.annotations) if arguments.annotations else None
    features = [Path(folder).resolve() for folder in arguments.features]
    if kind != "folder":
        reader = {"actionformer": actionformer, "opentad": opentad}[kind]
        return reader.read(source, annotations=annotations, features=features)
    if annotations is None:
        raise TalError("a folder of features", where=source, remedy="Give its --annotations FILE too.")
    entries = pairs(arguments.set) | ({"fps": arguments.fps} if arguments.fps else {})
    return opentad.read_features(source, annotations, entries)


def _videos(folder):
    """Durations (s) and frame rates of the videos of a folder, by recording id."""
    if not folder:
        return {}, {}
    from tal_lib.video.frames import Reader

    durations, rates = {}, {}
    for recording, path in _by_id(folder).items():
        reader = Reader(path, 1.0)
        if reader.duration:
            durations[recording] = reader.duration
        if reader.native_fps:
            rates[recording] = reader.native_fps
    return durations, rates


def _by_id(folder):
    """Recording id → video of a folder."""
    from pathlib import Path

    from tal_lib.data.importing.collect import media_id
    from tal_lib.video.frames import SUFFIXES, videos_in

    folder = Path(folder)
    is_video = folder.is_file() and folder.suffix.lower() in SUFFIXES
    if not (folder.is_dir() or is_video):
        raise no_folder(folder)
    videos = {}
    for path in videos_in(folder):
        name = media_id(path.name)
        if name in videos:
            raise TalError(f"two videos are called {name}", where=folder, remedy="Rename one of them.")
        videos[name] = path
    return videos


def _durations(path):
    """Recording id → seconds, from a table."""
    import csv
    import io

    from tal_lib.reading import read_text
    from tal_lib.validation import validate

    remedy = "Expected lines recording,duration with durations in seconds."
    text = read_text(path, what="table of durations", remedy=remedy)
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise TalError(f"not a readable table ({error})", where=path, remedy=remedy) from None
    durations = {}
    for number, row in enumerate(rows, 1):
        if number == 1 and [cell.strip() for cell in row] == ["recording", "duration"] or not row:
            continue
        if len(row) != 2 or row[0] in durations:
            problem = "is there twice" if len(row) == 2 else "does not have two values"
            raise TalError(f"line {number}: {row[0]} {problem}", where=path, remedy=remedy)
        durations[row[0]] = validate(Positive, row[1], where=path, name=f"line {number}", remedy=remedy)
    return durations


def _export(arguments):
    from tal_lib.data import read_annotations
    from tal_lib.data.exporting import FORMATS, layers
    from tal_lib.evaluation import match_detections, read_detections

    if not arguments.annotations and not arguments.detections:
        raise TalError("nothing to export", remedy="Give --annotations, --detections, or both.")
    content = read_annotations(arguments.annotations, repair=True) if arguments.annotations else None
    detections = read_detections(arguments.detections) if arguments.detections else None
    if content is not None and detections is not None:
        detections, _ = match_detections(detections, content, where=arguments.detections)
    segments = content.segments if content is not None else None
    recordings = list(content.recordings.recording) if content is not None else []
    if arguments.recordings:
        wanted = set(arguments.recordings)
        known = set(recordings) | (set(detections.recording) if detections is not None else set())
        if unknown := sorted(wanted - known):
            raise TalError(
                f"unknown recording {unknown[0]}", remedy="Use ids of the annotations or detections."
            )
        recordings = [name for name in recordings if name in wanted]
        segments = segments[segments.recording.isin(wanted)] if segments is not None else None
        detections = detections[detections.recording.isin(wanted)] if detections is not None else None
    result = layers(
        annotations=segments,
        detections=detections,
        recordings=recordings,
        videos=_by_id(arguments.videos) if arguments.videos else None,
        min_score=arguments.min_score,
        top=arguments.top,
    )
    if not result.recordings:
        raise TalError(
            "no detection or annotation is left to export",
            where=arguments.detections or arguments.annotations,
            remedy="Lower --min-score, or give --annotations too.",
        )
    written = FORMATS[arguments.kind].write(arguments.out, result)
    counts = ", ".join(f"{len(table):,} {name}" for name, table in result.tables.items())
    print(f"{len(written):,} files for {len(result.recordings):,} recordings: {counts}")
    print(written[0].parent if len(written) > 1 else written[0])
