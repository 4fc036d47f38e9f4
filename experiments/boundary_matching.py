"""BMN's boundary-matching layer, as published and as implemented here.

    python experiments/boundary_matching.py

The published form samples all proposals with one product with a dense (T, points · D · T) matrix. A
convolution over the points follows. Measured are median time and peak memory of the layer alone, for forward
and for forward with backward. The input is one window, and each measurement has a fresh process. Writes
results/experiments/boundary_matching.csv.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib.models.parts.sampling import BoundaryMatching, Sampling, positions_in, proposal_grid
from tal_lib.process.environment import child_environment
from tal_lib.provenance import provenance, usable_cores
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import write_csv

SIZES = {"ActivityNet (T = D = 100)": (100, 100), "THUMOS14 (T = 128, D = 64)": (128, 64)}
CHANNELS, OUTPUTS, POINTS = 128, 512, 32


class Published(nn.Module):
    """The dense published form, with channels first; (B, C, T) → (B, C', D, T)."""

    def __init__(self, steps, max_duration):
        super().__init__()
        grid = proposal_grid(steps, max_duration).transpose(0, 1)  # (D, T, 2)
        at = positions_in(grid, POINTS, 0.25)[..., None]
        matrix = (1 - (at - torch.arange(steps)).abs()).clamp(min=0) * (grid[..., 1] <= steps)[
            ..., None, None
        ]
        self.register_buffer("matrix", matrix.permute(3, 2, 0, 1).flatten(1).contiguous())
        self.conv, self.shape = nn.Conv3d(CHANNELS, OUTPUTS, (POINTS, 1, 1)), (POINTS, max_duration, steps)

    def forward(self, x):
        return self.conv((x @ self.matrix).unflatten(-1, self.shape)).squeeze(2)


def measure(form, steps, max_duration, backward, calls=7):
    """Seconds (of all calls but the first two) and peak memory (MB) of one form, measured in this process."""
    torch.set_num_threads(usable_cores())
    torch.manual_seed(0)
    if form == "published":
        layer, x = Published(steps, max_duration), torch.randn(1, CHANNELS, steps)
    else:
        layer = BoundaryMatching(
            CHANNELS, OUTPUTS, steps=steps, max_duration=max_duration, how=Sampling(points=POINTS)
        )
        x = torch.randn(1, steps, CHANNELS)
    buffer_bytes = sum(value.numel() * value.element_size() for value in layer.buffers())
    before, samples = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(calls):
        start = time.perf_counter()
        if backward:
            layer(x.requires_grad_()).square().mean().backward()
        else:
            with torch.inference_mode():
                layer(x)
        samples.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    seconds = statistics.median(samples[2:] or samples)
    return {"seconds": seconds, "peak_memory_mb": (grown + buffer_bytes) / 1e6}


def main():
    """Measure and print."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    rows = []
    for size, (steps, max_duration) in SIZES.items():
        for backward in (False, True):
            for form in ("published", "here"):
                done = subprocess.run(
                    [sys.executable, __file__, json.dumps([form, steps, max_duration, backward])],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=child_environment(),
                )
                rows.append(
                    {
                        "size": size,
                        "pass": "forward and backward" if backward else "forward",
                        "form": form,
                        **json.loads(done.stdout.splitlines()[-1]),
                    }
                )
    table = pd.DataFrame(rows)
    print(table.round(4).to_string(index=False))
    write_csv(table.assign(**provenance(threads=usable_cores())), Layout().experiments, "boundary_matching")


if __name__ == "__main__":
    main()
