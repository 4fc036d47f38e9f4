"""Models on another device: do they run there, and do they compute the same as on the CPU?"""

import pandas as pd

from tal_lib.reports import tables


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write a table per device: a row per model, a column per check."""
    table = tables.newest(data["device_check"], ("model", "preset", "device_name", "check"))
    for (device_name, preset), rows in table.groupby(["device_name", "preset"], sort=False):
        text = [_text(row) for row in rows.itertuples()]
        shown = rows.assign(text=text).pivot(index="model", columns="check", values="text")
        shown = shown[list(dict.fromkeys(rows.check))].fillna("–").reset_index()
        words = ["" if preset == "compact" else preset]
        caption = (
            f"Every model ({preset}) on {device_name}: largest relative difference from the CPU in float32, "
            "TF32 off. bfloat16 and float16: difference of the first loss in mixed precision. Gradients of "
            "models that use random numbers cannot be compared. "
            f"{int(rows.ok.astype(bool).sum())} of {len(rows)} checks passed."
        )
        stem = "_".join(filter(None, ["device_check", *words])) + tables.machine_suffix(device_name, "")
        out.table(shown, stem, caption)


def _text(row):
    if not row.ok:
        return f"failed: {row.problem}"[:30]
    if row.largest_difference == row.largest_difference and row.largest_difference is not None:
        return f"{row.largest_difference:.0e}"
    return row.problem or "runs"
