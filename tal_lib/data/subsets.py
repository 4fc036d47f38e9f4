"""Which recordings and classes a study may learn from: data-limited subsets, seen and unseen classes."""

from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.annotations import read_annotations, write_annotations
from tal_lib.data.benchmark import Benchmark
from tal_lib.errors import TalError
from tal_lib.files import data_root
from tal_lib.reading import read_text

PRIOR = "_prior"  # ends the name of a benchmark whose subsets are those of the prior study


def subset_order(benchmark: Benchmark, seed: int) -> list[str]:
    """All training recordings in the order in which growing subsets take them.

    Random by seed; but the first ones are chosen so that every class is seen as early as possible.
    """
    recordings = benchmark.recordings("train")
    rng = np.random.default_rng([seed, 20])
    left = [recordings[i] for i in rng.permutation(len(recordings))]
    present = {name: set() for name in left}
    for recording, label in benchmark.annotations("train")[["recording", "label"]].itertuples(index=False):
        present[recording].add(label)
    order, missing = [], set().union(*present.values()) if present else set()
    while missing:
        best = max(left, key=lambda name: len(present[name] & missing))  # the first of equals: random by seed
        order.append(best)
        left.remove(best)
        missing -= present[best]
    return order + left


def limited_subset(benchmark: Benchmark, fraction: float, seed: int) -> list[str]:
    """Training recordings that a data-limited run may use.

    Deterministic; for one seed a smaller fraction's recordings are among a larger one's. Of `thumos14_prior` and `activitynet_prior` the
    seed is the number of the prior study's own draw (`published_subset`), which are not nested.

    Args:
        fraction: share of the training recordings in (0, 1]; the count is rounded, at least one.
    """
    if not 0 < fraction <= 1:
        raise TalError(f"fraction {fraction}", where=benchmark.name, remedy="Give a share in (0, 1].")
    if benchmark.name.endswith(PRIOR):
        return published_subset(benchmark, round(100 * fraction), seed, benchmark.root)
    order = subset_order(benchmark, seed)
    if not order:
        raise TalError(
            "no training recordings to take a subset of",
            where=benchmark.name,
            remedy="Check the annotations' subsets.",
        )
    return order[: max(1, round(fraction * len(order)))]


def write_limited_annotations(benchmark: Benchmark, fraction: float, seed: int, folder: str | Path) -> Path:
    """Write the subset and the untouched test recordings as an annotation file in the field's JSON form.

    The name follows the field's habit: `<benchmark>_20p5.json` is the subset of 20 % drawn with seed 5.
    """
    kept = limited_subset(benchmark, fraction, seed) + [
        r for split in benchmark.splits if split != "train" for r in benchmark.recordings(split)
    ]
    splits = {recording: split for split in benchmark.splits for recording in benchmark.recordings(split)}
    table = pd.DataFrame(
        {
            "recording": kept,
            "split": [splits[r] for r in kept],
            "duration": [benchmark.duration(r) for r in kept],
        }
    )
    path = Path(folder) / f"{benchmark.name}_{100 * fraction:g}p{seed}.json"
    return write_annotations(path, table, benchmark.annotations_of(kept))


def read_limited_annotations(path: str | Path) -> list[str]:
    """Training recordings of such a file."""
    table = read_annotations(path).recordings
    return table.recording[table.split == "train"].tolist()


def open_set_split(benchmark: Benchmark, seen: float, seed: int) -> tuple[list[str], list[str]]:
    """Seen and unseen classes: a random `seen` share of them, by seed. Each side has at least one class."""
    if not 0 < seen < 1 or len(benchmark.classes) < 2:
        raise TalError(
            f"a share of {seen} of {len(benchmark.classes)} classes",
            where=benchmark.name,
            remedy="Give a share in (0, 1) and at least two classes.",
        )
    count = min(max(1, round(seen * len(benchmark.classes))), len(benchmark.classes) - 1)
    chosen = set(np.random.default_rng([seed, 75]).permutation(len(benchmark.classes))[:count].tolist())
    return (
        [name for i, name in enumerate(benchmark.classes) if i in chosen],
        [name for i, name in enumerate(benchmark.classes) if i not in chosen],
    )


def published_subset(
    benchmark: Benchmark, percent: int, draw: int, root: str | Path | None = None
) -> list[str]:
    """A training subset of the prior data-efficiency study (Warchocki et al., ICCV Workshops 2023): five draws each."""
    name = f"{benchmark.name.removesuffix(PRIOR)}/limited_subsets/splits_p{percent}_{draw}.txt"
    wanted = set(_read_list(root, name))
    return _only_known(wanted, benchmark.recordings("train"), name)


def published_open_set_split(
    benchmark: Benchmark, seen: float, draw: int, root: str | Path | None = None
) -> tuple[list[str], list[str]]:
    """One of the ten class splits of the zero-shot literature (Ju et al., 2022; Nag et al., 2022), 0.75 or 0.5 seen."""
    percent = round(100 * seen)
    folder = f"{benchmark.name}/open_set_splits/train_{percent}_test_{100 - percent}"
    known = {_key(name): name for name in benchmark.classes}
    parts = []
    for side in ("train", "test"):
        name = f"{folder}/{side}/split_{draw}.list"
        parts.append(
            [known[key] for key in _only_known([_key(line) for line in _read_list(root, name)], known, name)]
        )
    return parts[0], parts[1]


def _key(name):
    return "".join(character for character in name.lower() if character.isalnum())


def _only_known(names, known, where):
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise TalError(
            f"names {unknown[0]!r}, which the benchmark does not have",
            where=where,
            remedy="Use the list with the annotations it was made for.",
        )
    return [name for name in known if name in set(names)]


def _read_list(root, name):
    path = Path(root or data_root()) / name
    packed = path.with_name(path.name + ".gz")
    text = read_text(
        packed if packed.is_file() else path,
        what="published list",
        remedy="See the data folder for the lists there are.",
    )
    return [line.strip() for line in text.splitlines() if line.strip()]
