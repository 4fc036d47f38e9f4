"""What training costs: steps, memory, time to accuracy."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.costs.shapes import short
from tal_lib.reports.provenance import of_older_code


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the tables and figures of training cost."""
    step, reached, curve = (data[name] for name in ("training_step", "training_milestones", "training_curve"))
    step = tables.as_preset(step)  # other sizes of a model are not its row
    main = tables.main_machine(step)
    keys = ["benchmark", "device_name", "preset", "precision", "device"]
    for (benchmark, machine, preset, precision, device), rows in step.groupby(keys, sort=False):
        here = lambda table: table[table.cell.isin(rows.cell)]  # noqa: B023
        extra = ["" if preset == "compact" else preset, "" if precision == "float32" else precision]
        milestones = here(reached)
        stem = "_".join(filter(None, [benchmark, *extra])) + tables.machine_suffix(machine, main)
        both = (
            rows.groupby("model")
            .mean(numeric_only=True)
            .join(milestones.groupby("model").mean(numeric_only=True), rsuffix="_of_run")
        )
        table = (
            pd.DataFrame(
                {
                    "params (M)": both.params / 1e6,
                    "ms per step": 1e3 * both.step_s_median,
                    "steps/s": both.steps_per_s,
                    "memory (MB)": both.peak_memory_bytes / 1e6,
                    "state (MB)": both.state_bytes / 1e6,
                    "training (s)": both.total_s,
                    "to 95 % of final (s)": both.near_final_s,
                    "to best (s)": both.best_s,
                    "final avg mAP": 100 * both.final_map,
                    "best avg mAP": 100 * both.best_map,
                }
                | ({"J per step": both.energy_j} if both.get("energy_j", pd.Series()).notna().any() else {})
            )
            .sort_values("to 95 % of final (s)")
            .map(short)
        )
        count = rows.threads_used.max()
        threads = "one CPU thread" if count == 1 else f"{count:g} CPU threads"
        where = [machine, threads if device == "cpu" else "", "" if precision == "float32" else precision]
        caption = (
            f"Training cost on {benchmark}: batches of {rows.batch_size.iloc[0]:g} crops of at most "
            f"{rows.crop_steps.max():g} steps for every model, {', '.join(filter(None, where))}. Memory: "
            "peak of a step, above the state (weights, gradients and moments of the optimizer). A step "
            "leaves out the moving average of the weights. Times are of training alone. mAP is that of the "
            "test recordings at several epochs; it selects nothing."
            f"{tables.classified(rows.model)}{of_older_code(rows)}"
        )
        best = tables.Best(
            high=("steps/s", "final avg mAP", "best avg mAP"),
            low=tuple(name for name in table if "(M" in name or "(s)" in name or name == "ms per step"),
        )
        out.table(table.reset_index(), f"training_{stem}", caption, best)
        lines = here(curve)
        axes = figures.accuracy_over_time(lines.assign(map=100 * lines["map"]))
        shown = (
            f"avg mAP of the test recordings by training time in seconds on {benchmark}, "
            f"{', '.join(filter(None, where))}; a panel per family."
        )
        out.figure(axes, f"accuracy_over_time_{stem}", shown)
