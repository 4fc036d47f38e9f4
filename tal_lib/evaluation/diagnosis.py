"""Why a detector loses mAP: types of false positives, sensitivity to segment properties, missed segments.

Source: Alwassel et al., Diagnosing Error in Temporal Action Detectors (DETAD, ECCV 2018). As there, errors
are told apart by tIoU and class. AP is normalized so that buckets of different size can be compared (Hoiem et
al., ECCV 2012). Segments are sorted by coverage, length and number of instances. Unlike there, buckets are
fifths of the benchmark's segments, so they are equally full on any benchmark.
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
BACKGROUND_TIOU = 0.1  # a detection with less overlap is a background error
BUCKETS = ("XS", "S", "M", "L", "XL")
CHARACTERISTICS = ("coverage", "length", "instances")


def error_types(annotations: pd.DataFrame, detections: pd.DataFrame, tiou: float = 0.5) -> pd.Series:
    """The type of every detection, one of `ERRORS`, with the index of the detections.

    - double detection: overlaps an annotation of its class by at least `tiou`, but a better detection took
    it;
    - wrong label: overlaps an annotation of another class by at least `tiou`;
    - localization: overlaps an annotation of its class by at least 0.1;
    - confusion: overlaps only an annotation of another class by at least 0.1;
    - background: overlaps nothing by 0.1.
    """
    annotations, detections = check_annotations(annotations), check_detections(detections)
    hit = matches(annotations, detections, [tiou])[tiou] >= 0
    same, other = np.zeros(len(detections)), np.zeros(len(detections))
    truth = dict(iter(annotations.groupby("recording", sort=False)))
    for recording, rows in detections.groupby("recording", sort=False).indices.items():
        if recording not in truth:
            continue
        segments = truth[recording]
        table = overlap_of(
            detections[["start", "end"]].to_numpy()[rows][:, None],
            segments[["start", "end"]].to_numpy()[None],
        )
        alike = detections.label.to_numpy()[rows][:, None] == segments.label.to_numpy()[None]
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
    """Composition of the best detections: `bucket, error, value`.

    G is the number of annotated segments. Bucket `kG` holds the detections of rank (k − 1)·G to k·G, over all
    recordings by score. The value is the share (%) of G that has each error type, so a bucket that is not
    full adds up to less than 100.
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
    """`error, value`: points of avg mAP gained when all errors of a type are removed, mean over `tious`."""
    gains = {kind: [] for kind in ERRORS[1:]}
    classes = list(dict.fromkeys(annotations.label))
    mean_ap = lambda ranked, hit: np.mean(
        [
            interpolated_ap(hit[(ranked.label == name).to_numpy()], total)
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
    """Properties of each segment, one row each.

    Columns: coverage (share of the recording), length (s), instances (of its class in the recording).
    """
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
    """The bucket (XS … XL) of each value, and the range of each bucket as text.

    Buckets are fifths. Equal values share a bucket, so there may be fewer than five.
    """
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
    """AP with the precision that a class of `usual` segments would have at the same recall.

    That precision is R·N / (R·N + false positives), with recall R and N = `usual`.

    Args:
        hit: (N,) whether each detection, best first, is a true positive; total: annotated segments.

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
    """Sensitivity and missed segments of each bucket: `characteristic, bucket, span, segments, map_n,
    missed`.

    - map_n: normalized mAP (%) of the bucket's segments alone, mean over `tious` and classes. Detections of
    other buckets' segments are left out.
    - missed: share (%) of the bucket's segments that none of the best G detections matches at tIoU 0.5, of G
    annotated segments.

    The row of characteristic `all` holds the values for all segments.
    """
    annotations = annotations.reset_index(drop=True)
    best = detections.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
    owner = matches(annotations, best, tious)
    usual = len(annotations) / max(1, annotations.label.nunique())
    few = matches(annotations, best.iloc[: max(1, len(annotations))], [0.5])[0.5]
    detected = np.isin(np.arange(len(annotations)), few)
    labels = best.label.to_numpy()

    def row(inside):
        values = []
        for level in tious:
            owners = owner[level]
            counts = (owners < 0) | inside[owners]
            for name, total in annotations.label[inside].value_counts().items():
                counted = counts & (labels == name)
                values.append(normalized_ap(owners[counted] >= 0, total, usual))
        return {
            "segments": int(inside.sum()),
            "map_n": 100 * float(np.mean(values)),
            "missed": 100 * float((~detected[inside]).mean()),
        }

    rows = [{"characteristic": "all", "bucket": "", "span": ""} | row(np.ones(len(annotations), bool))]
    table = characteristics(annotations, durations)
    for name in CHARACTERISTICS:
        bucket, spans = in_fifths(table[name])  # pyright: ignore[reportArgumentType]
        rows += [
            {"characteristic": name, "bucket": label, "span": span} | row((bucket == label).to_numpy())
            for label, span in spans.items()
        ]
    return pd.DataFrame(rows)


def diagnose(
    annotations: pd.DataFrame, detections: pd.DataFrame, durations: dict[str, float], tious
) -> pd.DataFrame:
    """The whole diagnosis as one tidy table (values in %, impact in points of avg mAP).

    Columns: `analysis, characteristic, bucket, span, segments, error, value`. Analyses: `profile` (false
    positives at tIoU 0.5), `impact`, `map_n` (sensitivity), `missed` (false negatives).
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
