"""Data sets that users of OpenTAD and ActionFormer have, by name: a table of what each is.

    <data root>/<folder>/<file>                    annotations, as published or as OpenTAD converts them
    <data root>/<folder>/features/<recording>.npy  features; features/spec.json if they are not the default

`default` is the feature set that OpenTAD's or ActionFormer's configurations train on. Another one needs a
`spec.json`, or `tal data import` of its configuration.

Sources: sming256/OpenTAD, `configs/_base_/datasets` (splits, tIoUs, strides, offsets, rates) and
`configs/actionformer` (columns, classes), `docs/en/data.md` (FineAction's classes);
happyharrycn/actionformer_release, `configs` and `libs/datasets`
(EPIC-Kitchens, Ego4D); TuanTNG/TemporalMaxer (MultiTHUMOS). Forms of the owners: `published_forms`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tal_lib.data import published_forms as forms
from tal_lib.data.annotations import AnnotationFile, read_annotations
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.spec import SHORTEST_WINDOW, FolderSpec, read_spec
from tal_lib.data.videos import make_benchmark, without_split
from tal_lib.errors import TalError

_COARSE = (0.1, 0.2, 0.3, 0.4, 0.5)
_DENSE = (*_COARSE, 0.6, 0.7, 0.8, 0.9)
_FINE = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Published:
    """One data set: its files, splits, tIoUs, and default features."""

    folder: str
    files: tuple[str, ...]  # annotations in the field's JSON; the first that is there is read
    about: str
    classes: int  # as published; a class may lack segments
    tious: tuple[float, ...]
    train: str = "train"  # subset of the annotations that is our `train`
    test: str = "validation"  # subset that is our `test`
    default: FolderSpec
    one_rate: bool = True  # the default features were made of videos at `default.fps`, whatever their own
    official: Callable[[Path], AnnotationFile | None] | None = None  # reads the form of the data set's owners
    owners: str = ""  # files of that form
    lists: Callable[[Path], AnnotationFile | None] | None = None  # reads another form of the JSON in `files`

    @property
    def stride_s(self) -> float:
        """Seconds between steps of the default features, at their usual frame rate."""
        stride, rate = self.default.stride_frames, self.default.fps
        assert stride is not None and rate is not None  # of every entry of the table
        return stride / rate


def _frames(columns, stride, window, fps=None, name="features"):
    return FolderSpec(streams={name: columns}, stride_frames=stride, window_frames=window, fps=fps)


def _epic(what, classes):
    return Published(
        folder="epic_kitchens",
        files=(f"epic_kitchens_100_{what}.json", f"epic_kitchens_{what}.json"),
        about=f"EPIC-KITCHENS-100, {classes} {what}s",
        classes=classes,
        tious=_COARSE,
        default=_frames(2304, 16, 32, 30.0, "slowfast"),
        official=lambda folder: forms.epic_kitchens(folder, what),
        owners="EPIC_100_*.csv",
    )


PUBLISHED = {
    "multithumos": Published(
        folder="multithumos",
        files=("multithumos.json", "multithumos_anno.json"),
        about="THUMOS14's videos, dense labels of 65 classes",
        classes=65,
        tious=_DENSE,
        one_rate=False,
        default=FolderSpec(streams={"rgb": 1024, "flow": 1024}, stride_frames=4, window_frames=16, fps=30.0),
        official=forms.multithumos,
        owners="class_list.txt and annotations/<class>.txt",
        lists=lambda path: forms.action_lists(path, 1, "class_{:02d}", "validation"),
    ),
    "hacs": Published(
        folder="hacs",
        files=("hacs.json", "HACS_segments_v1.1.1.json"),
        about="HACS Segments 1.1.1, 200 classes",
        classes=200,
        tious=_FINE,
        default=_frames(2304, 8, 32, 15.0, "slowfast"),
    ),
    "epic_kitchens_verb": _epic("verb", 97),
    "epic_kitchens_noun": _epic("noun", 300),
    "ego4d_mq": Published(
        folder="ego4d_mq",
        files=("ego4d_mq.json", "ego4d.json", "ego4d_v2_220429.json"),
        about="Ego4D Moment Queries, 110 classes",
        classes=110,
        tious=_COARSE,
        default=_frames(2304, 16, 32, 30.0, "slowfast"),
        official=forms.ego4d,
        owners="moments_train.json and moments_val.json",
    ),
    "fineaction": Published(
        folder="fineaction",
        files=("fineaction.json", "annotations_gt.json"),
        about="FineAction, 106 classes",
        classes=106,
        tious=_FINE,
        default=_frames(1280, 16, 16, 30.0, "videomae_h"),
    ),
    "charades": Published(
        folder="charades",
        files=("charades.json",),
        about="Charades, 157 classes",
        classes=157,
        tious=_DENSE,
        test="test",
        default=_frames(1024, 8, SHORTEST_WINDOW, 24.0, "i3d_rgb"),  # OpenTAD: offset_frames=0
        official=forms.charades,
        owners="Charades_v1_train.csv and Charades_v1_test.csv",
        lists=lambda path: forms.action_lists(path, 0, "c{:03d}", "test"),
    ),
}


def load(name: str, root: Path) -> Benchmark:
    """A data set of `PUBLISHED` below the data root.

    Raises:
        TalError: its annotations are missing or unreadable, or lack the training or the test subset.
    """
    entry = PUBLISHED[name]
    folder = root / entry.folder
    path = next((folder / file for file in entry.files if (folder / file).is_file()), None)
    if path is not None:
        content = (entry.lists and entry.lists(path)) or read_annotations(path, repair=True)
    else:
        content, path = entry.official(folder) if entry.official else None, folder
    if content is None:
        owners = f", or the owners' {entry.owners}" if entry.owners else ""
        raise TalError(
            f"annotations of {name} not found", where=folder, remedy=f"Put {entry.files[0]} there{owners}."
        )
    content = _our_splits(content, entry, path)
    features = folder / "features"
    spec = read_spec(features, entry.default)
    if spec is entry.default and entry.one_rate:
        content = replace(content, recordings=content.recordings.assign(fps=float("nan")))
    return make_benchmark(name, entry.tious, content, spec, features, path)


def _our_splits(content, entry, path):
    """The annotations with `train` and `test` alone.

    Files of TemporalMaxer name MultiTHUMOS's subsets as THUMOS14 does: `validation` to train, `test` to test.
    """
    subsets = set(content.recordings.split)
    train, test = entry.train, entry.test
    if train not in subsets and {"validation", "test"} <= subsets:
        train, test = "validation", "test"
    for split in (train, test):
        if split not in subsets:
            raise TalError(
                f"no recording of subset {split} (there are {', '.join(sorted(subsets))})",
                where=path,
                remedy="Use the annotations as published, or as OpenTAD or ActionFormer convert them.",
            )
    for split in subsets - {train, test}:
        content = without_split(content, split)
    content.recordings["split"] = content.recordings.split.map({train: "train", test: "test"})
    return content
