"""Detection files in the field's JSON form: {'results': {recording: [{'label', 'score', 'segment': [s, e]}]}}."""

import json
from pathlib import Path

import pandas as pd

from tal_lib.data.tables import DETECTION_COLUMNS, check_detections
from tal_lib.errors import TalError
from tal_lib.files import write_json

SHAPE = "Expected {'results': {recording: [{'label', 'score', 'segment': [start, end]}]}}."


def read_detections(path: str | Path) -> pd.DataFrame:
    """Detections table of a JSON file; ActivityNet's `v_` before recording ids is taken off where present."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TalError(
            "detections file not found", where=path, remedy="Give the path of a results JSON."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TalError(
            f"not valid JSON ({error})", where=path, remedy="The file may be truncated; write it again."
        ) from None
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise TalError("JSON of another shape: no 'results' in it", where=path, remedy=SHAPE)
    rows = []
    for recording, items in results.items():
        name = recording.removeprefix("v_") if len(recording) == 13 else recording
        try:
            for item in items:
                start, end = item["segment"]
                rows.append((name, float(start), float(end), str(item["label"]), float(item["score"])))
        except (KeyError, TypeError, ValueError) as error:
            raise TalError(
                f"JSON of another shape ({type(error).__name__}: {error})",
                where=f"{path}, recording {recording}",
                remedy=SHAPE,
            ) from None
    return check_detections(pd.DataFrame(rows, columns=DETECTION_COLUMNS), where=path)


def write_detections(path: str | Path, detections: pd.DataFrame) -> Path:
    """Write a detections table in the field's JSON form."""
    detections = check_detections(detections)
    results: dict[str, list] = {}
    for recording, start, end, label, score in detections.itertuples(index=False):
        results.setdefault(recording, []).append({"label": label, "score": score, "segment": [start, end]})
    return write_json(path, {"version": "tal_lib 1", "results": results, "external_data": {}}, indent=None)
