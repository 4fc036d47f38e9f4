"""A data set with features, as a configuration of another library describes it.

The result is a folder as `load_benchmark` reads it: `annotations.json` and `features/spec.json`. The features
stay where they are; the spec names their folder.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

from tal_lib.data.annotations import SPLITS, AnnotationFile, read_annotations, write_annotations
from tal_lib.data.feature_folder import FeatureFolder
from tal_lib.data.features import SUFFIXES, read_array
from tal_lib.data.remarks import ALL, Remark
from tal_lib.data.spec import NAME, FolderSpec
from tal_lib.errors import TalError, short
from tal_lib.files import write_text
from tal_lib.validation import unknown_name
from tal_lib.writing import claim

FEATURES = "features"  # the stream's name where a configuration has none
DEEPEST = 8  # folders above a configuration in which its relative paths are looked up


@dataclass(frozen=True)
class DataSet:
    """Annotations and feature spec. The spec's folders are absolute."""

    content: AnnotationFile
    spec: FolderSpec

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What the user should know."""
        return self.content.repairs


def locate(text: str, config: Path, *, what: str, option: str) -> Path:
    """The file or folder that a configuration names, relative to the folder in which its program runs.

    It is looked up in the folders above the configuration, and in the current one.

    Raises:
        TalError: it is in none of them.
    """
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise TalError(f"{what} {short(text)} is not a path", where=config, remedy=f"Name it with {option}.")
    above = [*config.resolve().parents][:DEEPEST]
    for place in (*above, Path.cwd()):
        if (place / text).exists():
            return (place / text).resolve()
    raise TalError(
        f"{what} {text} was not found in any parent folder", where=config, remedy=f"Name it with {option}."
    )


def split_content(
    path: Path, train: Iterable[str], test: Iterable[str], *, dropped: Iterable[str] = (), why: str = ""
) -> AnnotationFile:
    """An annotation file whose subsets `train` and `test` become our splits. Other recordings are left out.

    Args:
        train, test: names of subsets, as the configuration has them.
        dropped: recordings that are left out, and `why`.

    Raises:
        TalError: an unreadable file, an unknown subset, or a subset in both.
    """
    content = read_annotations(path, repair=True)
    wanted: dict[str, str] = {}
    for split, names in (("train", train), ("test", test)):
        for name in names:
            known = SPLITS.get(str(name).strip().lower())
            if known is None:
                raise unknown_name(name, SPLITS, where=path, name="subset")
            if wanted.setdefault(known, split) != split:
                raise TalError(
                    f"subset {name} is for training and for testing",
                    where=path,
                    remedy="Correct the configuration.",
                )
    table, gone = content.recordings, set(dropped)
    remarks = list(content.repairs)
    used = table.split.isin(list(wanted))
    for split, count in table.split[~used].value_counts().items():
        text = f"{count:,} recordings of subset {split} are left out, as in the configuration"
        remarks.append(Remark(ALL, "left out", text))
    blocked = used & table.recording.isin(list(gone))
    if blocked.any():
        remarks.append(Remark(ALL, "left out", f"{int(blocked.sum()):,} recordings: {why}"))
    table = table[used & ~blocked].reset_index(drop=True)
    table["split"] = table.split.map(wanted)
    if not len(table):
        raise TalError("no recording of these subsets", where=path, remedy="Check the subsets' names.")
    segments = content.segments[content.segments.recording.isin(table.recording)].reset_index(drop=True)
    return replace(content, recordings=table, segments=segments, repairs=tuple(remarks))


def with_remark(content: AnnotationFile, kind: str, text: str) -> AnnotationFile:
    """The annotations with one more remark on all recordings."""
    return replace(content, repairs=(*content.repairs, Remark(ALL, kind, text)))


def with_rate(content: AnnotationFile, fps: float | None) -> AnnotationFile:
    """The annotations with one frame rate for all recordings, as a configuration states it."""
    if fps is None:
        return content
    return replace(content, recordings=content.recordings.assign(fps=float(fps)))


def columns_of(
    folders: Mapping[str, Path], recordings: Sequence[str], prefix: str, suffix: str
) -> dict[str, int]:
    """Stream → number of columns (T, D) of its first file.

    Raises:
        TalError: no recording has a file there, or it is not an array (T, D).
    """
    widths = {}
    for stream, folder in folders.items():
        alone = {stream: ""}
        files = FeatureFolder(folder, {stream: 1}, recordings, folders=alone, prefix=prefix, suffix=suffix)
        path = next((paths[0] for name in recordings if (paths := files.files_of(name))), None)
        if path is None:
            raise TalError(
                f"no feature file of any of {len(recordings):,} recordings (such as "
                f"{prefix}{recordings[0]}{suffix}.npy)",
                where=folder,
                remedy=f"Put them there ({', '.join(SUFFIXES)}), or name the right folder with --features.",
            )
        shape = read_array(path).shape
        if len(shape) != 2:
            raise TalError(f"an array of {shape}", where=path, remedy="Expected time × columns.")
        widths[stream] = int(shape[1])
    return widths


def stream_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder of features: its own, if there are several."""
    if len(folders) == 1:
        return [FEATURES]
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names, 1)]


def class_remark(content: AnnotationFile, stated: object) -> AnnotationFile:
    """A remark if the configuration states another number of classes than the annotations have."""
    count = content.segments.label.nunique()
    if stated is None or stated == count:
        return content
    if stated == 1:
        text = f"trained there without classes (class-agnostic); the annotations have {count}"
    else:
        text = f"{count} classes have segments; the configuration states {stated}"
    return with_remark(content, "labels", text)


def spec_text(spec: FolderSpec) -> str:
    """The text of `spec.json`: what differs from the defaults."""
    defaults = {field.name: field.default for field in fields(FolderSpec) if field.default is not MISSING}
    values = {name: value for name, value in asdict(spec).items() if value != defaults.get(name, MISSING)}
    return json.dumps(values, indent=1) + "\n"


def write_folder(out: str | Path, content: AnnotationFile, spec: FolderSpec | None = None) -> list[Path]:
    """Write `annotations.json`, and with a spec `features/spec.json`, into a folder; returns the files.

    Raises:
        TalError: a file that this program did not write is there.
    """
    names = ["annotations.json", *([f"features/{NAME}"] if spec is not None else [])]
    out = claim(out)
    claim(out, names)
    path = out / names[0]
    written = [write_annotations(path, content.recordings, content.segments, content.label_ids)]
    if spec is not None:
        written.append(write_text(out / names[1], spec_text(spec)))
    return written
