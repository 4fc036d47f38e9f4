"""The cost of fresh memory in a forward pass: glibc's default allocator, and one that keeps freed memory.

    python experiments/allocator.py --processes 5

By default glibc may return freed memory to the operating system. The next allocation then pays for new pages,
which the system fills with zeros first. The rules depend on everything that the process did before. Two
processes with the same model and input may therefore differ, each with steady times. Every process here runs
the same forward passes and counts its page faults. It uses HAPT's feature width and classes and one thread.
Writes results/experiments/allocator.csv.
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
    """In a fresh process: median seconds and page faults per forward pass, after two warm-up passes."""
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
    """Print each model's fastest and slowest process for both allocator settings."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=models.names())
    parser.add_argument("--length", type=int, default=1152, help="steps")
    parser.add_argument("--processes", type=int, default=5, help="processes per model and allocator setting")
    parser.add_argument("--passes", type=int, default=20)
    chosen = parser.parse_args()
    # this process computes nothing, so its forks have fresh memory
    fork, rows = multiprocessing.get_context("fork"), []
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
    """Latency (ms), spread and page faults by model and allocator setting.

    Latency is that of the fastest, the median and the slowest process. The spread is the distance from
    fastest to slowest in % of the median. Page faults are the median over processes, per pass.
    """
    each = table.groupby(["model", "freed"])
    times = 1e3 * each.latency_s_median.agg(["min", "median", "max"])
    times = times.assign(
        spread=100 * (times["max"] - times["min"]) / times["median"], faults=each.page_faults.median()
    )
    return times.round(1).unstack("freed")


if __name__ == "__main__":
    main()
