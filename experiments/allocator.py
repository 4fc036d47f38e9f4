"""What fresh memory costs a forward pass: every model in fresh processes, with the allocator as it is and keeping what it frees.

    python experiments/allocator.py --processes 5

By itself glibc gives freed memory back to the system by rules that depend on all that happened in the process before; whoever asks next
pays for new pages, each zeroed first. So two processes with the same model and the same input differ, each steadily. Here each process
makes the same passes and counts its page faults; HAPT's feature width and classes, one thread. Written to results/experiments/allocator.csv.
"""

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from tqdm.auto import tqdm

from tal_lib import data, models
from tal_lib.files import write_text
from tal_lib.process.memory import keep_freed
from tal_lib.provenance import device_name, git_commit
from tal_lib.reports.layout import Layout

CHOICES = {"given back": False, "kept": True}


def measure(name: str, shape: data.Shape, length: int, kept: bool, passes: int, answers) -> None:
    """In a process of its own: median seconds of a pass, and page faults a pass, after two passes that are not counted."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = models.build(name, input_dim=shape.input_dim, num_classes=shape.num_classes).eval()
    features, samples = torch.randn(1, shape.input_dim, length), []
    if kept:
        keep_freed()
    with torch.inference_mode():
        for number in range(passes + 2):
            if number == 2:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.perf_counter()
            model(features)
            samples.append(time.perf_counter() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    answers.put((statistics.median(samples[2:]), faults / passes))


def main():
    """Print each model's fastest and slowest process, either way."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=models.names())
    parser.add_argument("--length", type=int, default=1152, help="steps")
    parser.add_argument("--processes", type=int, default=5, help="of each model, either way")
    parser.add_argument("--passes", type=int, default=20)
    chosen = parser.parse_args()
    fork, rows = (
        multiprocessing.get_context("fork"),
        [],
    )  # this process computes nothing, so that its forks are as good as new
    answers, shape = fork.SimpleQueue(), data.shape_of("hapt")
    for name in tqdm(chosen.models):
        for number in range(chosen.processes):
            for choice, kept in CHOICES.items():
                process = fork.Process(
                    target=measure, args=(name, shape, chosen.length, kept, chosen.passes, answers)
                )
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(f"{name} failed")
                seconds, faults = answers.get()
                rows.append(
                    {
                        "model": name,
                        "freed": choice,
                        "process": number,
                        "length_steps": chosen.length,
                        "latency_s_median": seconds,
                        "page_faults": faults,
                    }
                )
    table = pd.DataFrame(rows).assign(
        device_name=device_name(), torch_version=torch.__version__, git_commit=git_commit()
    )
    path = Layout().experiments / "allocator.csv"
    write_text(path, table.to_csv(index=False))
    print(summary(table).to_string())
    print(path)


def summary(table):
    """By model and allocator: ms of the fastest and the slowest process, their distance in % of the median, median page faults a pass."""
    each = table.groupby(["model", "freed"])
    times = 1e3 * each.latency_s_median.agg(["min", "median", "max"])
    times = times.assign(
        spread=100 * (times["max"] - times["min"]) / times["median"], faults=each.page_faults.median()
    )
    return times.round(1).unstack("freed")


if __name__ == "__main__":
    main()
