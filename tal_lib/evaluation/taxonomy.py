"""Class taxonomies: scores at a coarser level, where confusing two related classes is no error.

Two forms of `taxonomy.json` are read. A benchmark's own:
`{"levels": ["activity", "step"], "classes": {"cut tomato": ["prepare salad", "cut"], …}}`, from coarse to
fine, the class itself left out. And ActivityNet's: `{"taxonomy": [{"nodeName", "parentName", …}, …]}`, as in
its published annotation file; its levels are numbered from the root's children.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.tables import check_annotations, check_detections
from tal_lib.errors import TalError
from tal_lib.evaluation.average_precision import mean_average_precision
from tal_lib.reading import read_json
from tal_lib.validation import unknown_name

WHAT = "class taxonomy"
REMEDY = (
    'Write {"levels": [names], "classes": {class: [its ancestors, coarse to fine]}}, or ActivityNet\'s form.'
)


@dataclass(frozen=True)
class Taxonomy:
    """The ancestors of every class.

    Attributes:
        levels: names of the levels, coarse to fine; the classes themselves are one level more, `class`.
        ancestors: class → its ancestors, one per level. A class that is less deep has fewer.
    """

    levels: tuple[str, ...]
    ancestors: Mapping[str, tuple[str, ...]]

    def at(self, level: str) -> dict[str, str]:
        """Class → its ancestor at a level; a class that does not reach down to the level stays itself.

        Raises:
            TalError: no such level.
        """
        names = (*self.levels, "class")
        if level not in names:
            raise unknown_name(level, names, name="level")
        depth = names.index(level)
        return {name: path[depth] if depth < len(path) else name for name, path in self.ancestors.items()}

    def coarsen(self, table: pd.DataFrame, level: str) -> pd.DataFrame:
        """Annotations or detections with the labels of a level.

        Above the classes, rows that become the same (recording, times, label) are one, as detections are at
        every level, with their best score.

        Raises:
            TalError: a label that the taxonomy does not have.
        """
        names = self.at(level)
        unknown = table.label[~table.label.isin(names)]
        if len(unknown):
            raise unknown_name(unknown.iloc[0], names, where=WHAT, name="class")
        table = table.assign(label=table.label.map(names))
        if "score" in table:
            table = table.sort_values("score", ascending=False, kind="stable")
        if "score" in table or level != "class":
            table = table.drop_duplicates(["recording", "start", "end", "label"])
        return table.reset_index(drop=True)


def read_taxonomy(path: str | Path, classes) -> Taxonomy:
    """The taxonomy of a file.

    Args:
        classes: classes that it must have.

    Raises:
        TalError: missing, unreadable or of another form; a class that it lacks or that is an inner node; two
            nodes of one name, a parent that is not a node, or nodes in a circle.
    """
    content = read_json(path, what=WHAT)
    if not isinstance(content, dict) or not ({"levels", "classes"} <= set(content) or "taxonomy" in content):
        raise TalError("unexpected structure of a class taxonomy", where=path, remedy=REMEDY)
    inner = set()
    try:
        if "taxonomy" in content:
            parents = _parents(content["taxonomy"])
            taxonomy, inner = _activitynet(parents), set(parents.values())
        else:
            taxonomy = _listed(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        text = f"unexpected structure of a class taxonomy ({type(error).__name__}: {error})"
        raise TalError(text, where=path, remedy=REMEDY) from None
    missing = [name for name in classes if name not in taxonomy.ancestors]
    if missing and missing[0] in inner:
        below = sorted(name for name, parent in parents.items() if parent == missing[0])
        shown = ", ".join(below[:3]) + ", …" * (len(below) > 3)
        raise TalError(
            f"class {missing[0]!r} is an inner node, above {shown}",
            where=path,
            remedy="Only leaves are classes. Annotate with the leaves, or make the class a leaf.",
        )
    if missing:
        raise TalError(
            f"no class {missing[0]!r} in it", where=path, remedy="Add the class and its ancestors."
        )
    return taxonomy


def _listed(content):
    levels = _names(content["levels"], "levels")
    ancestors = {str(name): _names(path, name) for name, path in content["classes"].items()}
    deep = [name for name, path in ancestors.items() if len(path) > len(levels)]
    if deep:
        raise ValueError(f"{deep[0]!r} has more ancestors than there are levels")
    if "class" in levels or len(set(levels)) < len(levels):
        raise ValueError("two levels of one name")
    return Taxonomy(levels, ancestors)


def _names(items, what):
    if not isinstance(items, list) or not all(isinstance(item, str | int) for item in items):
        raise ValueError(f"{what!r} is not a list of names")
    return tuple(map(str, items))


def _parents(nodes):
    """Node → its parent's name, None for a root, of ActivityNet's list of nodes.

    Raises:
        ValueError: two different nodes of one name, a parent that is not a node, or nodes in a circle.
    """
    parents: dict[str, str | None] = {}
    for node in nodes:
        name, parent = str(node["nodeName"]), node["parentName"]
        parent = None if parent is None else str(parent)
        if parents.setdefault(name, parent) != parent:
            raise ValueError(f"two nodes are called {name!r}, below {parents[name]!r} and {parent!r}")
    for name, parent in parents.items():
        if parent is not None and parent not in parents:
            raise ValueError(f"the parent {parent!r} of {name!r} is not a node")
        path = {name}
        while parent is not None:
            if parent in path:
                raise ValueError(f"{parent!r} is its own ancestor")
            path.add(parent)
            parent = parents[parent]
    return parents


def _activitynet(parents):
    inner, ancestors = set(parents.values()), {}
    for leaf in (name for name in parents if name not in inner):
        path, name = [], parents[leaf]
        while name is not None and parents[name] is not None:  # the root is no level
            path.append(name)
            name = parents[name]
        ancestors[leaf] = tuple(reversed(path))
    depth = max(map(len, ancestors.values()), default=0)
    return Taxonomy(tuple(str(level) for level in range(1, depth + 1)), ancestors)


def map_at_level(annotations, detections, tious, taxonomy: Taxonomy, level: str) -> pd.Series:
    """mAP over the ancestors at a level, indexed by tIoU."""
    return mean_average_precision(
        taxonomy.coarsen(annotations, level), taxonomy.coarsen(detections, level), tious
    )


def precision_by_class(
    annotations: pd.DataFrame, detections: pd.DataFrame, threshold: float = 0.0
) -> pd.DataFrame:
    """Precision of the label that is given to each moment, for each class.

    A moment's label is that of the best detection that covers it. A class's precision is the share of the
    time given to it in which it is annotated. Times are exact: no grid is used.

    Args:
        threshold: detections with a lower score are left out.

    Returns:
        One row per class that is annotated or given: `label, given_s, right_s, precision`. A class that is
        annotated and never given has precision 0.
    """
    annotations, detections = check_annotations(annotations), check_detections(detections)
    detections = detections[detections.score >= threshold]  # pyright: ignore[reportAssignmentType]
    labels = sorted(set(annotations.label) | set(detections.label))
    given, right = (np.zeros(len(labels)) for _ in range(2))
    truth_of = dict(tuple(annotations.groupby("recording")))
    for recording, detected in detections.sort_values("score", kind="stable").groupby(
        "recording", sort=False
    ):
        truth: pd.DataFrame = truth_of.get(recording, annotations.iloc[:0])  # pyright: ignore[reportAssignmentType]
        edges = np.unique(
            np.concatenate([table[["start", "end"]].to_numpy().ravel() for table in (detected, truth)])
        )
        middle, length = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        best = np.full(len(middle), -1)
        for start, end, label in zip(
            detected.start, detected.end, detected.label
        ):  # ascending score: the best is last
            best[(middle > start) & (middle < end)] = labels.index(label)
        annotated = np.zeros((len(labels), len(middle)), bool)
        for start, end, label in zip(truth.start, truth.end, truth.label):
            annotated[labels.index(label)] |= (middle > start) & (middle < end)
        for index in np.unique(best[best >= 0]):
            at = best == index
            given[index] += length[at].sum()
            right[index] += length[at & annotated[index]].sum()
    precision = np.divide(right, given, out=np.zeros(len(labels)), where=given > 0)
    return pd.DataFrame({"label": labels, "given_s": given, "right_s": right, "precision": precision})


def mean_precision(annotations, detections, taxonomy: Taxonomy, level: str, threshold: float = 0.0) -> float:
    """Mean over the classes of a level of the precision by time (see `precision_by_class`)."""
    coarse = (taxonomy.coarsen(table, level) for table in (annotations, detections))
    return float(precision_by_class(*coarse, threshold=threshold).precision.mean())
