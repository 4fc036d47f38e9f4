"""The benchmarks by name."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from tal_lib import plugins
from tal_lib.data import (
    hapt,
    hapt_recomposed,
    published,
    rehearsal,
    rendered,
    salads,
    sfinge3d,
    synthetic,
    urfall,
    videos,
)
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.fetching import fetch
from tal_lib.data.folds import OFFICIAL
from tal_lib.data.subsets import PRIOR
from tal_lib.errors import TalError
from tal_lib.files import checked_name, data_root
from tal_lib.validation import did_you_mean

VALIDATION = "_validation"  # suffix of a benchmark's name: its training part, some people held out as test
OTHER_LETTERS = re.compile(r"[^\W\x00-\x7f]")  # letters and digits that are not ASCII
FOLDERS = "TAL_FOLDERS"  # environment variable: JSON, name → folder, for this process and its children


@dataclass(frozen=True)
class Entry:
    """How to load a benchmark, and where it comes from."""

    load: Callable[[Path], Benchmark]  # data root -> benchmark
    about: str
    origin: str
    file: str | Callable[[], Path] | None  # below the data root, or elsewhere; None: nothing needed
    licence: str = "as its owners state"  # of the data
    fetch: Callable[[Path, str | Path | None], Path] | None = None  # (data root, given file) → where it lies
    counts: tuple[int, int, int] | None = None  # recordings, classes, segments; None: not stated
    people: bool = False  # whether the person of a recording is known; then folds are by person
    features: str | None = None  # folder of the user's own features, below the data root
    supervised: bool = False  # the features are scores of a classifier, trained with labels of all classes

    def is_here(self, root: Path) -> bool:
        """Whether its files are present."""
        if self.file is None:
            return True
        return (root / (self.file if isinstance(self.file, str) else self.file())).exists()

    def present(self, root: Path) -> str:
        """`yes`, `no`, or `annotations` if the user's features are missing."""
        if not self.is_here(root):
            return "no"
        return "yes" if self.features is None or (root / self.features).is_dir() else "annotations"


CC_BY_NC_SA = "CC BY-NC-SA 4.0 (not for commerce)"


def _with_prior_subsets(name, root):
    benchmark = BENCHMARKS[name].load(root)
    benchmark.name, benchmark.root = name + PRIOR, root
    return benchmark


BENCHMARKS = {
    "synthetic": Entry(
        lambda root: synthetic.load(),
        "generated, two streams, 20 classes",
        "made from a seed",
        None,
        "none needed",
        counts=(60, 20, 458),
    ),
    "hapt": Entry(
        hapt.load,
        "61 smartphone recordings, 12 classes",
        "UCI 341: `tal data fetch hapt`",
        "hapt/hapt.zip",
        "CC BY 4.0",
        hapt.fetch,
        counts=(61, 12, 1214),
        people=True,
    ),
    "hapt_validation": Entry(
        partial(hapt.load, validation=True),
        "hapt's training people only, a quarter held out as test; for design decisions",
        "as hapt",
        "hapt/hapt.zip",
        "CC BY 4.0",
        counts=(42, 12, 849),
        people=True,
    ),
    "sfinge3d": Entry(
        sfinge3d.load,
        "72 recordings of a tracked hand, 13 gestures",
        "SFINGE3D/DatasetV1 on GitHub: `tal data fetch sfinge3d`",
        "sfinge3d/sfinge3d.zip",
        "none stated: do not redistribute",
        partial(fetch, sfinge3d.SOURCE),
        counts=(72, 13, 278),
    ),
    "sfinge3d_dictionary": Entry(
        sfinge3d.load_dictionary,
        "learn from 468 cut gestures, find them in all 72 recordings",
        "as sfinge3d",
        "sfinge3d/sfinge3d.zip",
        "none stated: do not redistribute",
        counts=(540, 13, 746),
    ),
    "50salads": Entry(
        salads.load,
        "50 kitchen videos, 17 activities; supervised class scores as features: for all labels only",
        "Dundee; scores of Lea et al.: `tal data fetch 50salads --from FILE`",
        "50salads/features.npz",
        f"{CC_BY_NC_SA}; scores MIT",
        salads.fetch,
        counts=(50, 17, 940),
        people=True,
        supervised=True,
    ),
    "50salads_i3d": Entry(
        salads.load_i3d,
        "50 Salads with the I3D features of the MS-TCN release",
        "your copy of the release, unpacked",
        "50salads/groundTruth",
        CC_BY_NC_SA,
        people=True,
    ),
    "urfall": Entry(
        urfall.load,
        "70 short recordings from depth video, falls; 24 have no event",
        "Rzeszów: `tal data fetch urfall`",
        "urfall/urfall.zip",
        CC_BY_NC_SA,
        partial(fetch, urfall.SOURCE),
        counts=(70, 2, 97),
    ),
    "hapt_recomposed": Entry(
        partial(hapt_recomposed.load, name="hapt_recomposed"),
        "hapt cut in its gaps and rejoined at random: nothing follows a script",
        "as hapt",
        "hapt/hapt.zip",
        "CC BY 4.0",
        counts=(61, 12, 1214),
        people=True,
    ),
    "hapt_recomposed_test": Entry(
        partial(hapt_recomposed.load, name="hapt_recomposed_test", recomposed=("test",)),
        "learn from hapt as it is, test on recordings that were rejoined at random",
        "as hapt",
        "hapt/hapt.zip",
        "CC BY 4.0",
        counts=(61, 12, 1214),
        people=True,
    ),
    "rendered": Entry(
        partial(rendered.load, name="rendered"),
        "90 videos of crowded scenes, 8 actions; appearance and motion (hog-hof) of the encoded videos",
        "made from a seed: `tal data fetch rendered`",
        partial(rendered.features_of, "rendered"),
        "MIT",
        counts=(90, 8, 3205),
    ),
    "rendered_cnn": Entry(
        partial(rendered.load, name="rendered_cnn"),
        "the videos of rendered, with features of EfficientNet-Lite0",
        "made from a seed: `tal data fetch rendered_cnn`",
        partial(rendered.features_of, "rendered_cnn"),
        "MIT",
        counts=(90, 8, 3205),
    ),
    "thumos14": Entry(
        videos.load_thumos14,
        "412 videos, 20 classes",
        "your annotations and features",
        "thumos14/thumos14.json",
        counts=(412, 20, 6365),
        features="thumos14/features",
    ),
    rehearsal.NAME: Entry(
        rehearsal.load,
        "thumos14's videos with generated features: a rehearsal of the study's size, no result",
        "your annotations; features made from a seed",
        "thumos14/thumos14.json",
    ),
    "activitynet": Entry(
        videos.load_activitynet,
        "v1.3, 14,950 videos, 200 classes",
        "your annotations and features",
        "activitynet",
        counts=(14950, 200, 23052),
        features="activitynet/features",
    ),
}
BENCHMARKS |= {
    f"hapt_recomposed_{count}": replace(
        BENCHMARKS["hapt_recomposed"],
        load=partial(hapt_recomposed.load, name=f"hapt_recomposed_{count}", classes=count),
        about=f"hapt_recomposed with {count} classes in each test recording",
        counts=(61, 12, segments),
    )
    for count, segments in zip(hapt_recomposed.CLASS_COUNTS, (972, 1034, 1234))
}
BENCHMARKS |= {
    name: Entry(
        partial(published.load, name),
        entry.about,
        "your annotations and features",
        entry.folder,
        features=f"{entry.folder}/features",
    )
    for name, entry in published.PUBLISHED.items()
}
BENCHMARKS |= {
    name + PRIOR: replace(
        BENCHMARKS[name],
        load=partial(_with_prior_subsets, name),
        about=f"{name}, with the training subsets of Warchocki et al., 2023",
    )
    for name in ("thumos14", "activitynet")
}


def register_benchmark(
    name: str,
    load,
    *,
    about: str = "",
    origin: str = "a plug-in",
    file: str | None = None,
    people: bool = False,
) -> None:
    """Make a benchmark loadable as `name`, also in sweeps. A plug-in calls this when it is imported.

    Args:
        load: data folder → Benchmark; about, origin: for the list of benchmarks.
        file: the file that it needs below the data folder.
        people: whether the person of a recording is known.

    Raises:
        TalError: the name is in use, or cannot be part of a file's name.
    """
    checked_name(name, what="benchmark")
    if name in BENCHMARKS and getattr(BENCHMARKS[name].load, "__module__", None) != load.__module__:
        raise TalError(f"two benchmarks are called {name!r}", remedy="Rename one of them.")
    BENCHMARKS[name] = Entry(load, about, origin, file, people=people)


def group_name(*names: str) -> str:
    """What a test group of these benchmarks is: `person`, `recording`, or `person or recording`.

    The validation part of a benchmark has its groups. A folder does not say who its people are.
    """
    entries = [BENCHMARKS.get(name.removesuffix(VALIDATION)) for name in names]
    known = {entry is not None and entry.people for entry in entries}
    words = {True: "person", False: "recording"}
    return " or ".join(words[each] for each in sorted(known, reverse=True))


def group_names(*names: str) -> str:
    """The plural of `group_name`: `people`, `recordings`, or `people or recordings`."""
    return group_name(*names).replace("person", "people").replace("recording", "recordings")


def subset_names(name: str) -> dict[str, str]:
    """Split → its name in a benchmark's published annotations, where its loader expects another name."""
    if name in published.PUBLISHED:
        return {"train": published.PUBLISHED[name].train, "test": published.PUBLISHED[name].test}
    return {"test": "validation"} if name == "activitynet" else {}


def load_benchmark(name: str | Path, root: str | Path | None = None, *, fold: int | None = None) -> Benchmark:
    """Load a benchmark, or one of its cross-validation folds.

    Args:
        name: one of `BENCHMARKS`, such as `synthetic`, `hapt`, `thumos14` or `hacs`; or a folder with
            `annotations.json` and `features/`; or the name of such a folder, if it lies below the data
            folder or was passed to `portable_name`. With `_validation` after the name it is the training
            part of the split or fold alone: a quarter of its groups is held out as `test`.
        root: data folder; `$TAL_DATA`, `data/` or `../shared/data` if None.
        fold: number of a fold, from 0; None or −1: the official split.

    Raises:
        TalError: no such benchmark or fold, or its files cannot be used.
    """
    plugins.load()
    name, root = str(name), Path(root) if root is not None else data_root()
    benchmark, folder = _whole_or_fold(name, root, fold)
    benchmark.taxonomy = next(
        filter(Path.is_file, _taxonomies(benchmark.name.removesuffix(VALIDATION), folder)), None
    )
    return benchmark


def _taxonomies(name, folder):
    """Where the class taxonomy of a benchmark may be: in its folder, or in this package."""
    shipped = Path(__file__).with_name("taxonomies")
    plain = OTHER_LETTERS.sub("_", name)  # a folder's name may have letters of any language
    return folder / "taxonomy.json", shipped / f"{checked_name(plain, what='benchmark')}.json"


def _whole_or_fold(name, root, fold):
    """The benchmark, and the folder of its files."""
    in_fold = fold is not None and fold != OFFICIAL
    if name in BENCHMARKS and not (in_fold and name.endswith(VALIDATION)):
        return BENCHMARKS[name].load(root).fold(fold), root / name
    whole = validation_of(name, root)
    if whole in BENCHMARKS:
        benchmark = BENCHMARKS[whole].load(root).fold(fold).validation()
        benchmark.name = name
        return benchmark, root / whole
    folder = _folder_of(whole or name, root, _known_folders())
    if folder is not None and whole is not None:
        benchmark = videos.load_folder(folder, reserved_names=BENCHMARKS).fold(fold).validation()
        benchmark.name += VALIDATION
        return benchmark, folder
    if folder is None:
        raise _unknown(name, root)
    return videos.load_folder(folder, reserved_names=BENCHMARKS).fold(fold), folder


def check_known(name: str, root: str | Path | None = None) -> None:
    """Raise `TalError` if no benchmark has this name. Its data need not be here; a path is not looked at."""
    plugins.load()
    root = Path(root) if root is not None else data_root()
    is_path = Path(name).name != name
    if not (
        is_path
        or name.removesuffix(VALIDATION) in BENCHMARKS
        or _folder_of(name, root, _known_folders())
        or validation_of(name, root)
    ):
        raise _unknown(name, root)


def _unknown(name, root):
    if Path(name).name != name:
        return TalError(
            "no such folder", where=name, remedy="Give a folder with annotations.json and features/."
        )
    whole = name.removesuffix(VALIDATION)
    return TalError(
        f"no benchmark {name!r}" + f", and none called {whole!r}" * (whole != name),
        remedy=f"Choose from {', '.join(BENCHMARKS)}, or give a folder with annotations.json and "
        f"features/ (its path from {Path.cwd()}, or its name if it lies in {root})."
        f"{did_you_mean(whole, BENCHMARKS)}",
    )


def validation_of(name: str, root: str | Path | None = None) -> str | None:
    """The benchmark or folder whose validation part `name` is; None if it is another name.

    A folder that itself has such a name comes first.
    """
    whole = name.removesuffix(VALIDATION)
    if whole == name or whole in BENCHMARKS:
        return None if whole == name else whole
    root, known = Path(root) if root is not None else data_root(), _known_folders()
    if _folder_of(name, root, known) is not None or _folder_of(whole, root, known) is None:
        return None
    return whole


def portable_name(name: str, root: str | Path | None = None) -> str:
    """The name of a benchmark in a ledger; never a path.

    A folder's path means nothing on another machine, so sweeps refer to a folder by its name. This process
    and its child processes know the folder's path. Other processes look below their data folder.

    Raises:
        TalError: another folder has the name already.
    """
    if name not in BENCHMARKS and (whole := validation_of(name, root)):
        return portable_name(whole, root) + VALIDATION
    root, known = Path(root) if root is not None else data_root(), _known_folders()
    folder = None if name in BENCHMARKS else _folder_of(name, root, {})
    if folder is None:
        return name
    short, folder = videos.folder_name(folder, BENCHMARKS), str(folder.resolve())
    if known.get(short, folder) != folder:
        raise TalError(
            f"two folders would be called {short}: {known[short]} and {folder}", remedy="Rename one of them."
        )
    os.environ[FOLDERS] = json.dumps(known | {short: folder})  # child processes inherit it
    return short


def _folder_of(name, root, known):
    """The folder of a benchmark: by registered name, at that path, or below the data folder; else None."""
    if name in known:
        return Path(known[name])
    try:
        if (Path(name) / "annotations.json").is_file():
            return Path(name)
        if Path(name).name == name and (root / name / "annotations.json").is_file():
            return root / name
        return Path(name) if Path(name).is_dir() else None
    except (OSError, ValueError):  # not a valid file name
        return None


def _known_folders():
    try:
        known = json.loads(os.environ.get(FOLDERS, "{}"))
        return {str(name): str(folder) for name, folder in known.items()}
    except (ValueError, AttributeError):
        return {}


@dataclass(frozen=True)
class Shape:
    """The sizes that a model's cost depends on: feature columns D, classes K, seconds between steps."""

    input_dim: int
    num_classes: int
    stride_s: float


# as published: I3D of two streams every 4 frames (30 a second); TSP every 16 frames (Alwassel et al.,
# TSP, ICCVW 2021)
_PUBLISHED = {"thumos14": Shape(2048, 20, 4 / 30), "activitynet": Shape(512, 200, 16 / 30)}


_PUBLISHED |= {
    name: Shape(sum(entry.default.streams.values()), entry.classes, entry.stride_s)
    for name, entry in published.PUBLISHED.items()
}


def shape_of(name: str, root: str | Path | None = None) -> Shape:
    """The shape of a benchmark's features. For published data sets of videos their shape, without
    reading data."""
    if name in _PUBLISHED:
        return _PUBLISHED[name]
    benchmark = load_benchmark(name, root)
    return Shape(benchmark.feature_spec.dim, len(benchmark.classes), benchmark.feature_spec.stride_s)


def list_benchmarks(root: str | Path | None = None) -> pd.DataFrame:
    """One row per benchmark: name, published counts, description, origin, licence, and whether its files are
    present (`yes`, `no`, or `annotations` without features)."""
    plugins.load()
    root = Path(root) if root is not None else data_root()
    return pd.DataFrame(
        [
            {
                "benchmark": name,
                **dict(zip(("recordings", "classes", "segments"), entry.counts or ("", "", ""))),
                "about": entry.about,
                "origin": entry.origin,
                "licence": entry.licence,
                "here": entry.present(root),
            }
            for name, entry in BENCHMARKS.items()
        ]
    )
