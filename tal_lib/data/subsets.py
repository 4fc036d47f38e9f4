"""The recordings and classes that a run may train on: data-limited subsets, seen and unseen classes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tal_lib.data.annotations import read_annotations, write_annotations
from tal_lib.data.benchmark import Benchmark
from tal_lib.errors import TalError
from tal_lib.files import data_root
from tal_lib.reading import read_text
from tal_lib.writing import claim

FULL_LABELS = "full labels"  # kind of a remark: why nothing can be learned about few labels from this data
PRIOR = "_prior"  # suffix of benchmarks that use the prior study's subsets


def subset_order(benchmark: Benchmark, seed: int) -> list[str]:
    """All training recordings, in the order in which growing subsets take them.

    The order is random by seed, but its first recordings are chosen so that every class occurs as early as
    possible.
    """
    recordings = benchmark.recordings("train")
    return _classes_early(recordings, _labels(benchmark, {name: name for name in recordings}), [seed, 20])


def people_order(benchmark: Benchmark, seed: int) -> list[str]:
    """All people of the training part, in the order in which growing subsets take them; as `subset_order`."""
    groups = {name: benchmark.group(name) for name in benchmark.recordings("train")}
    return _classes_early(sorted(set(groups.values())), _labels(benchmark, groups), [seed, 22])


def _labels(benchmark, groups):
    """Group -> labels of its training recordings. groups: recording -> group."""
    present = {name: set() for name in groups.values()}
    for recording, label in benchmark.annotations("train")[["recording", "label"]].itertuples(index=False):
        present[groups[recording]].add(label)
    return present


def _classes_early(names, present, seed):
    """The names in random order, but the first ones are chosen so that all labels occur early."""
    rng = np.random.default_rng(seed)
    remaining = [names[i] for i in rng.permutation(len(names))]
    order, missing = [], set().union(*present.values()) if present else set()
    while missing:
        best = max(remaining, key=lambda name: len(present[name] & missing))  # ties: random by seed
        order.append(best)
        remaining.remove(best)
        missing -= present[best]
    return order + remaining


def check_share(benchmark: Benchmark, name: str, share: float) -> None:
    """Raise `TalError` unless a label fraction is in (0, 1], and 1 for data that allows nothing else."""
    if not 0 < share <= 1:
        raise TalError(
            f"{name}: {share} is not in (0, 1]",
            where=benchmark.name,
            remedy="Give a fraction above 0 and at most 1.",
        )
    reasons = [remark.text for remark in benchmark.notes if remark.kind == FULL_LABELS]
    if reasons and share < 1:
        raise TalError(
            f"{name} {share:g}: {reasons[0].rstrip('.')}",
            where=benchmark.name,
            remedy=f"Give {name} 1.",
        )


def limited_subset(benchmark: Benchmark, fraction: float, seed: int, people: float = 1.0) -> list[str]:
    """Training recordings that a data-limited run may use.

    Deterministic. For one seed, a smaller fraction's recordings are a subset of a larger one's, and so are
    those of fewer people. Exception: for `thumos14_prior` and `activitynet_prior` the seed is the number of
    the prior study's subset sample (`published_subset`); these samples are not nested.

    Args:
        fraction: fraction of the training recordings, in (0, 1]. The count is rounded, and at least 1.
        people: fraction of the training people, in (0, 1], rounded, and at least one. With less than 1,
            `fraction` is one of their recordings.

    Raises:
        TalError: a fraction out of range, or below 1 for data that says nothing about few labels; `people`
            below 1 where people are unknown.
    """
    check_share(benchmark, "fraction", fraction)
    check_share(benchmark, "people", people)
    if people < 1 and not benchmark.people:
        raise TalError(
            f"people {people:g}: the people of its recordings are unknown",
            where=benchmark.name,
            remedy="Give people 1, and a fraction of the recordings.",
        )
    if benchmark.name.endswith(PRIOR):
        if benchmark.partition:
            raise TalError(
                f"{benchmark.partition}: the published subsets are those of the official split",
                where=benchmark.name,
                remedy=f"Use {benchmark.name.removesuffix(PRIOR)} for folds.",
            )
        return published_subset(benchmark, round(100 * fraction), seed, benchmark.root)
    order = subset_order(benchmark, seed)
    if people < 1:
        known = people_order(benchmark, seed)
        kept = set(known[: max(1, round(people * len(known)))])
        order = [name for name in order if benchmark.group(name) in kept]
    if not order:
        raise TalError(
            "no training recordings to take a subset of",
            where=benchmark.name,
            remedy="Check the annotations' subsets.",
        )
    return order[: max(1, round(fraction * len(order)))]


def write_limited_annotations(
    benchmark: Benchmark,
    fraction: float,
    seed: int,
    folder: str | Path,
    subsets: Mapping[str, str] | None = None,
) -> Path:
    """Write the subset and all test recordings as an annotation file in the ActivityNet JSON form.

    The name follows the field's habit: `<benchmark>_20p5.json` is the 20 % subset of seed 5. Frame rates
    stay.

    Args:
        subsets: split → its name in the file, where the data set's loader expects another
            (`registry.subset_names`).
    """
    kept = limited_subset(benchmark, fraction, seed) + [
        r for split in benchmark.splits if split != "train" for r in benchmark.recordings(split)
    ]
    table = benchmark.table().set_index("recording", drop=False).loc[kept]
    table["split"] = table.split.replace(dict(subsets or {}))
    path = Path(folder) / f"{benchmark.name}_{100 * fraction:g}p{seed}.json"
    claim(folder, [path.name])
    return write_annotations(path, table, benchmark.annotations_of(kept))


def read_limited_annotations(path: str | Path) -> list[str]:
    """Training recordings of a file that `write_limited_annotations` wrote."""
    table = read_annotations(path).recordings
    return table.recording[table.split == "train"].tolist()


def open_set_split(benchmark: Benchmark, seen: float, seed: int) -> tuple[list[str], list[str]]:
    """Seen and unseen classes: a random fraction `seen` of the classes, by seed. Each side has at least one
    class."""
    if not 0 < seen < 1 or len(benchmark.classes) < 2:
        raise TalError(
            f"seen: {seen} of {len(benchmark.classes)} classes",
            where=benchmark.name,
            remedy="Give a fraction in (0, 1), and a benchmark with at least two classes.",
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
    """One of five training subsets that the prior data-efficiency study published for each label fraction.

    Source: Warchocki et al., ICCV Workshops 2023.
    """
    name = f"{benchmark.name.removesuffix(PRIOR)}/limited_subsets/splits_p{percent}_{draw}.txt"
    sampled = set(_read_list(root, name))
    return _only_known(sampled, benchmark.recordings("train"), name)


def published_open_set_split(
    benchmark: Benchmark, seen: float, draw: int, root: str | Path | None = None
) -> tuple[list[str], list[str]]:
    """One of the ten published class splits of the zero-shot literature; 0.75 or 0.5 of the classes are seen.

    Source: Ju et al. (2022); Nag et al. (2022).
    """
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
            f"lists {unknown[0]!r}, which is not in the benchmark",
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
