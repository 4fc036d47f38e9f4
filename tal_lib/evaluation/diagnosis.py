"""Why a detector loses mAP: kinds of false positives, what it is sensitive to, which segments it misses.

Source: Alwassel et al., Diagnosing Error in Temporal Action Detectors (DETAD, ECCV 2018). As there: errors are told apart by tIoU and
class, AP is normalized so that buckets of different size compare (Hoiem et al., ECCV 2012), and segments are sorted by coverage, length and
number of instances. Otherwise: buckets are fifths of the benchmark's own segments, so that they are equally full on any benchmark.
"""

import numpy as np
import pandas as pd

from tal_lib.data.tables import check_annotations, check_detections
from tal_lib.evaluation.average_precision import area_under, interpolated_ap, matches
from tal_lib.segments import tiou as overlap_of

HIT, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION, BACKGROUND = ERRORS = (
    "true positive",
    "double detection",
    "wrong label",
    "localization",
    "confusion",
    "background",
)
BACKGROUND_TIOU = 0.1  # below it a detection touches nothing
BUCKETS = ("XS", "S", "M", "L", "XL")
CHARACTERISTICS = ("coverage", "length", "instances")


def error_types(annotations: pd.DataFrame, detections: pd.DataFrame, tiou: float = 0.5) -> pd.Series:
    """The kind of every detection, one of `ERRORS`, indexed as the detections.

    *Double detection*: overlaps an annotation of its class, which a better one has taken; *wrong label*: overlaps one of another class by
    at least `tiou`; *localization* and *confusion*: overlaps one of its own, or only one of another class, by at least 0.1; *background*:
    neither.
    """
    annotations, detections = check_annotations(annotations), check_detections(detections)
    hit = matches(annotations, detections, [tiou])[tiou] >= 0
    same, other = np.zeros(len(detections)), np.zeros(len(detections))
    truth = dict(iter(annotations.groupby("recording", sort=False)))
    for recording, rows in detections.groupby("recording", sort=False).indices.items():
        if recording not in truth:
            continue
        own = truth[recording]
        table = overlap_of(
            detections[["start", "end"]].to_numpy()[rows][:, None], own[["start", "end"]].to_numpy()[None]
        )
        alike = detections.label.to_numpy()[rows][:, None] == own.label.to_numpy()[None]
        same[rows] = np.where(alike, table, 0).max(1)
        other[rows] = np.where(alike, 0, table).max(1)
    kinds = np.select(
        [hit, same >= tiou, other >= tiou, same >= BACKGROUND_TIOU, other >= BACKGROUND_TIOU],
        [HIT, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION],
        BACKGROUND,
    )
    return pd.Series(kinds, index=detections.index, name="error")


def false_positive_profile(
    annotations: pd.DataFrame, detections: pd.DataFrame, tiou: float = 0.5, upto: int = 5
) -> pd.DataFrame:
    """What the best detections are: `bucket, error, value`.

    G annotated segments; bucket `kG` holds the detections from rank (k − 1)·G to k·G over all recordings by score; value is the share (%)
    of that bucket that is of each kind. Shares are of G, so a bucket that detections do not fill adds up to less than 100.
    """
    best = detections.sort_values("score", ascending=False, kind="stable")
    kinds = error_types(annotations, detections, tiou).loc[best.index].to_numpy()
    group = max(1, len(annotations))
    return pd.DataFrame(
        [
            {
                "bucket": f"{k}G",
                "error": kind,
                "value": 100 * (kinds[(k - 1) * group : k * group] == kind).sum() / group,
            }
            for k in range(1, upto + 1)
            for kind in ERRORS
        ]
    )


def error_impact(annotations: pd.DataFrame, detections: pd.DataFrame, tious) -> pd.DataFrame:
    """`error, value`: points of avg mAP that are won when all errors of a kind are taken away, mean over `tious`."""
    gains = {kind: [] for kind in ERRORS[1:]}
    classes = list(dict.fromkeys(annotations.label))
    mean_ap = lambda found, hit: np.mean(
        [
            interpolated_ap(hit[(found.label == name).to_numpy()], total)
            for name, total in annotations.label.value_counts().loc[classes].items()
        ]
    )
    best = detections.sort_values("score", ascending=False, kind="stable")
    for level in tious:
        kinds = error_types(annotations, detections, level).loc[best.index].to_numpy()
        whole = mean_ap(best, kinds == HIT)
        for kind, values in gains.items():
            values.append(mean_ap(best[kinds != kind], kinds[kinds != kind] == HIT) - whole)
    return pd.DataFrame(
        [{"error": kind, "value": 100 * float(np.mean(values))} for kind, values in gains.items()]
    )


def characteristics(annotations: pd.DataFrame, durations: dict[str, float]) -> pd.DataFrame:
    """What segments are sorted by, a row each: coverage (share of the recording), length (s), instances (of its class in the recording)."""
    length = annotations.end - annotations.start
    return pd.DataFrame(
        {
            "coverage": length / annotations.recording.map(durations),
            "length": length,
            "instances": annotations.groupby(["recording", "label"]).label.transform("size"),
        },
        index=annotations.index,
    )


def in_fifths(values: pd.Series) -> tuple[pd.Series, dict[str, str]]:
    """The bucket of each value, XS … XL, and what each spans, as text. Fifths; equal values share one, so there may be fewer."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, len(BUCKETS) + 1)[1:]))  # upper ends
    edges = np.r_[-np.inf, edges]
    place = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    names = BUCKETS[: len(edges) - 1]
    spans = {
        name: "–".join(
            dict.fromkeys(f"{end:.3g}" for end in (values[place == i].min(), values[place == i].max()))
        )
        for i, name in enumerate(names)
        if (place == i).any()
    }
    return pd.Series(np.asarray(names)[place], index=values.index), spans


def normalized_ap(hit: np.ndarray, total: int, usual: float) -> float:
    """AP with the precision that a class of `usual` segments would have at the same recall: R·N / (R·N + false positives).

    Args:
        hit: (N,) whether each detection, best first, is a true positive; total: annotated segments, usual: N.

    Source: Hoiem et al., Diagnosing Error in Object Detectors (ECCV 2012), equation 2.
    """
    if total == 0:
        return float("nan")
    hit = np.asarray(hit, dtype=bool)
    recall, wrong = hit.cumsum() / total, (~hit).cumsum()
    precision = recall * usual / np.maximum(recall * usual + wrong, 1e-12)
    return area_under(precision, hit, total)


def by_characteristic(
    annotations: pd.DataFrame, detections: pd.DataFrame, durations: dict[str, float], tious
) -> pd.DataFrame:
    """Sensitivity and misses by bucket: `characteristic, bucket, span, segments, map_n, missed`.

    map_n: normalized mAP (%) of the bucket's segments alone, mean over `tious` and classes; detections of other buckets' segments are
    neither right nor wrong. missed: share (%) of the bucket's segments that none of the best G detections finds at tIoU 0.5, of G annotated
    segments. A row of characteristic `all` holds the values for all segments.
    """
    annotations = annotations.reset_index(drop=True)
    best = detections.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
    owner = matches(annotations, best, tious)
    usual = len(annotations) / max(1, annotations.label.nunique())
    few = matches(annotations, best.iloc[: max(1, len(annotations))], [0.5])[0.5]
    found = np.isin(np.arange(len(annotations)), few)
    labels = best.label.to_numpy()

    def row(inside):
        values = []
        for level in tious:
            own = owner[level]
            counts = (own < 0) | inside[own]
            for name, total in annotations.label[inside].value_counts().items():
                mine = counts & (labels == name)
                values.append(normalized_ap(own[mine] >= 0, total, usual))
        return {
            "segments": int(inside.sum()),
            "map_n": 100 * float(np.mean(values)),
            "missed": 100 * float((~found[inside]).mean()),
        }

    rows = [{"characteristic": "all", "bucket": "", "span": ""} | row(np.ones(len(annotations), bool))]
    table = characteristics(annotations, durations)
    for name in CHARACTERISTICS:
        bucket, spans = in_fifths(table[name])  # pyright: ignore[reportArgumentType]
        rows += [
            {"characteristic": name, "bucket": which, "span": span} | row((bucket == which).to_numpy())
            for which, span in spans.items()
        ]
    return pd.DataFrame(rows)


def diagnose(
    annotations: pd.DataFrame, detections: pd.DataFrame, durations: dict[str, float], tious
) -> pd.DataFrame:
    """All of it as one tidy table: `analysis, characteristic, bucket, span, segments, error, value` (%; impact: points of avg mAP).

    Analyses: `profile` (false positives, tIoU 0.5), `impact`, `map_n` (sensitivity), `missed` (false negatives).
    """
    sensitivity = by_characteristic(annotations, detections, durations, tious)
    parts = [
        false_positive_profile(annotations, detections).assign(analysis="profile"),
        error_impact(annotations, detections, tious).assign(analysis="impact"),
        sensitivity.drop(columns="missed").rename(columns={"map_n": "value"}).assign(analysis="map_n"),
        sensitivity.drop(columns="map_n").rename(columns={"missed": "value"}).assign(analysis="missed"),
    ]
    columns = ["analysis", "characteristic", "bucket", "span", "segments", "error", "value"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)
