"""Speed of the detectors compared with the machine's ceiling.

    python experiments/speed.py [--quick] [--parts layout …]

Measured are the forward pass of the paper presets (D = 2048, K = 20, batch 1), a training step (batch 2),
post-processing, and what the steps-first layout gains in single layers. The ceiling is the best rate of a
bare convolution in the same run. Run it on an idle machine. Prints every row; without --quick writes
results/experiments/speed.csv, and layout.csv with the part `layout`. `experiments/fidelity.py` times the
authors' code: a ratio to their time needs both codes in turn on one machine, so no time of theirs is here.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data.batches import Item, collate
from tal_lib.evaluation import soft_nms
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.process.environment import KEEP_FREED, child_environment
from tal_lib.provenance import device_name, provenance, usable_cores
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import write_csv
from tal_lib.training.loop import run_in

D, K = 2048, 20
NAMES = ("actionformer", "tridet", "temporalmaxer")


def median_seconds(call, repeats):
    """Median of single calls after two warm-ups."""
    samples = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[2:])


@torch.inference_mode()
def ceiling(dtype, repeats):
    """GMAC/s of the fastest of a few bare convolutions."""
    rates = []
    for inputs, outputs, steps in ((512, 512, 2304), (2048, 512, 2304), (512, 512, 4608)):
        x, conv = (
            torch.randn(1, inputs, steps, dtype=dtype),
            nn.Conv1d(inputs, outputs, 3, padding=1).to(dtype),
        )
        rates.append(3 * inputs * outputs * steps / median_seconds(lambda: conv(x), repeats) / 1e9)
    return max(rates)


def row(**values):
    """Print a measurement and return it."""
    print(
        "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else str(value)
            for name, value in values.items()
        ),
        flush=True,
    )
    return values


def forward_rows(repeats, dtypes):
    """Forward pass at two lengths."""
    rows = []
    for dtype in dtypes:
        top = ceiling(dtype, repeats)
        rows.append(row(what="bare convolution", precision=str(dtype).split(".")[1], gmac_per_s=top))
        for name in NAMES:
            model = models.build(name, input_dim=D, num_classes=K, preset="paper").eval()
            for steps in (2304, 576):
                macs = count_macs(model, D, steps)[0] / 1e9
                cast, x = model.to(dtype), torch.randn(1, D, steps, dtype=dtype)
                with torch.inference_mode():
                    seconds = median_seconds(lambda: cast(x), repeats)
                model.float()
                rows.append(
                    row(
                        what="forward",
                        model=name,
                        steps=steps,
                        precision=str(dtype).split(".")[1],
                        seconds=seconds,
                        gmac_per_s=macs / seconds,
                        share_of_ceiling=macs / seconds / top,
                    )
                )
    return rows


def compiled_rows(repeats):
    """Forward pass in float32 with torch.compile, and the largest difference from the eager outputs."""
    rows = []
    for name in NAMES:
        model = models.build(name, input_dim=D, num_classes=K, preset="paper").eval()
        fast, x = torch.compile(model), torch.randn(1, D, 2304)
        with torch.inference_mode():
            apart = max(float((a - b).abs().max()) for a, b in zip(fast(x), model(x)))
            seconds = median_seconds(lambda: fast(x), repeats)
        rows.append(
            row(
                what="forward",
                model=name,
                steps=2304,
                precision="compiled",
                seconds=seconds,
                largest_difference=apart,
            )
        )
    return rows


def training_rows(repeats):
    """One optimizer step, batch of two recordings of 2,304 steps."""
    rows = []
    segments = torch.arange(0, 2200, 110.0)[:, None] + torch.tensor([0.0, 40.0])
    items = [
        Item(
            recording=str(i),
            features=torch.randn(D, 2304),
            duration=2304.0,
            stride_s=1.0,
            window_s=1.0,
            classes=("a",) * K,
            segments=segments,
            labels=torch.arange(len(segments)) % K,
        )
        for i in range(2)
    ]
    batch = collate(items)
    for name, precision in itertools.product(NAMES, ("float32", "bfloat16")):
        model = models.build(name, input_dim=D, num_classes=K, preset="paper").train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)

        def step():
            loss = model.loss(run_in(precision, model, batch), batch)["total"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        seconds = median_seconds(step, max(2, repeats // 3))
        rows.append(
            row(
                what="training step",
                model=name,
                steps=2304,
                precision=precision,
                seconds=seconds,
            )
        )
    return rows


def cuda_rows(repeats):
    """Forward pass on a GPU in float32, bfloat16 and compiled.

    Time is measured between CUDA events, memory is the peak of the allocator.
    """
    rows = []
    for name, precision in itertools.product(NAMES, ("float32", "bfloat16", "compiled")):
        model = models.build(name, input_dim=D, num_classes=K, preset="paper").eval().cuda()
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = model.to(kind)
        run, x = (
            torch.compile(model) if precision == "compiled" else model,
            torch.randn(1, D, 2304, dtype=kind, device="cuda"),
        )
        samples = []
        with torch.inference_mode():
            for _ in range(3):
                run(x)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            for _ in range(3 * repeats):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                run(x)
                end.record()
                torch.cuda.synchronize()
                samples.append(start.elapsed_time(end) / 1e3)
        rows.append(
            row(
                what="forward",
                model=name,
                steps=2304,
                precision=precision,
                device=torch.cuda.get_device_name(),
                seconds=statistics.median(samples),
                peak_memory_mb=torch.cuda.max_memory_allocated() / 1e6,
            )
        )
    return rows


SHAPES = (
    (512, 512, 576),
    (512, 512, 2304),
    (512, 512, 9216),
    (2048, 512, 2304),
    (256, 256, 2304),
    (128, 128, 720),
)


@torch.inference_mode()
def layout_rows(repeats):
    """What the steps-first layout gains in one convolution (k3) and one norm, on one thread and on all cores.

    The forms of a layer are called in turn, so a busy machine slows all alike. On one thread the time is the
    thread's CPU time, which waiting for a core does not lengthen; on more it is wall time.
    """
    rows = []
    for threads in sorted({1, usable_cores()}):
        torch.set_num_threads(threads)
        clock = time.thread_time if threads == 1 else time.perf_counter
        for inputs, outputs, steps in SHAPES:
            conv, ours = nn.Conv1d(inputs, outputs, 3, padding=1), TemporalConv(inputs, outputs)
            norm = nn.LayerNorm(outputs)
            first, last = torch.randn(1, inputs, steps), torch.randn(1, steps, inputs)
            result, steps_first = torch.randn(1, outputs, steps), torch.randn(1, steps, outputs)
            calls = {
                "conv1d": lambda: conv(first),
                "conv1d between transposes": lambda: conv(last.transpose(1, 2)).transpose(1, 2).contiguous(),
                "steps first": lambda: ours(last),
                "norm written out": lambda: written_out(result),
                "norm, steps first": lambda: norm(steps_first),
            }
            samples = {name: [] for name in calls}
            for _ in range(repeats + 2):
                for name, call in calls.items():
                    start = clock()
                    call()
                    samples[name].append(clock() - start)
            seconds = {name: statistics.median(values[2:]) for name, values in samples.items()}
            rows.append(
                row(
                    what="layout",
                    precision="float32",
                    steps=steps,
                    inputs=inputs,
                    outputs=outputs,
                    threads_used=threads,
                    gmac_per_s=3 * inputs * outputs * steps / seconds["steps first"] / 1e9,
                    conv1d_over_ours=seconds["conv1d"] / seconds["steps first"],
                    transposed_conv1d_over_ours=seconds["conv1d between transposes"] / seconds["steps first"],
                    norm_over_ours=seconds["norm written out"] / seconds["norm, steps first"],
                    load=os.getloadavg()[0],
                )
            )
    return rows


def written_out(x):
    """Layer norm over the channels of (B, C, T), as code that keeps channels first writes it."""
    x = x - x.mean(1, keepdim=True)
    return x / torch.sqrt((x * x).mean(1, keepdim=True) + 1e-5)


def nms_rows(repeats):
    """Soft-NMS with voting of 2,000 candidates of 20 classes, on one core."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 2304, 2000)
    segments = np.stack([start, start + rng.lognormal(3, 1, 2000)], 1)
    scores, labels = rng.random(2000) ** 3, rng.integers(K, size=2000)
    seconds = median_seconds(lambda: soft_nms(segments, scores, labels, voting_tiou=0.7), 5 * repeats)
    return [row(what="soft-NMS with voting, 2,000 candidates of 20 classes, one core", seconds=seconds)]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, nothing compiled")
    parts = ["forward", "compiled", "cuda", "training", "nms", "layout"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    arguments = parser.parse_args()
    repeats = 5 if arguments.quick else 15
    rows = []
    layout = layout_rows(repeats) if "layout" in arguments.parts else []
    if "nms" in arguments.parts:
        torch.set_num_threads(1)
        rows += nms_rows(repeats)
    torch.set_num_threads(usable_cores())
    if "forward" in arguments.parts:
        rows += forward_rows(repeats, (torch.float32, torch.bfloat16))
    if "compiled" in arguments.parts and not arguments.quick:
        rows += compiled_rows(repeats)
    if "cuda" in arguments.parts and torch.cuda.is_available():
        rows += cuda_rows(repeats)
    if "training" in arguments.parts:
        rows += training_rows(repeats)
    for name, measured in (("speed", rows), ("layout", layout)):
        if measured and not arguments.quick:
            table = pd.DataFrame(measured).assign(**provenance(threads=usable_cores()))
            write_csv(table, Layout().experiments, name)
    print(f"{device_name()}; torch {torch.__version__}")


if __name__ == "__main__":
    if not KEEP_FREED.keys() <= os.environ.keys():  # glibc reads these settings when a process starts
        raise SystemExit(subprocess.run([sys.executable, *sys.argv], env=child_environment()).returncode)
    main()
