"""Cost and accuracy of inference on whole recordings and on windows of them."""

import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tal_lib.cost.isolated import isolated
from tal_lib.cost.meters import peak_memory
from tal_lib.data import collate, load_benchmark, make_item
from tal_lib.evaluation import mean_average_precision
from tal_lib.models.parts.windowed import InWindows
from tal_lib.process.memory import keep_freed
from tal_lib.training import detect_all, load_model


def window_costs(
    checkpoint: str | Path,
    benchmark: str,
    choices: list[tuple[int, int]],
    *,
    rounds: int = 3,
    threads: int = 1,
) -> list[dict]:
    """Accuracy and cost of a trained model on the test recordings, for every (window, overlap) in steps.

    Window 0 is the whole recording. Time includes network, decoding and NMS. The choices take turns on each
    recording, and the median of `rounds` counts. Rows: `window, overlap, avg_map (%), seconds_per_hour,
    peak_memory_bytes` (of the longest recording).
    """
    return isolated(
        _measure,
        f"{Path(checkpoint).name} in windows",
        threads,
        checkpoint=str(checkpoint),
        benchmark=benchmark,
        choices=[list(choice) for choice in choices],
        rounds=rounds,
    )


def _measure(checkpoint, benchmark, choices, rounds, threads):
    torch.set_num_threads(threads)
    data, trained = load_benchmark(benchmark), load_model(checkpoint)
    models = [
        InWindows(trained.model, window, overlap) if window else trained.model for window, overlap in choices
    ]
    recordings = data.recordings("test")
    truth, hours = data.annotations("test"), sum(map(data.duration, recordings)) / 3600
    batches = [collate([make_item(data, recording, trained.stream)]) for recording in recordings]
    longest = max(batches, key=lambda batch: batch.features.shape[2])
    # before memory is measured: what the libraries allocate once would count for the first choice
    trained.model.detect(replace(longest, features=longest.features[..., :64], mask=longest.mask[:, :64]))
    peaks = [peak_memory(partial(model.detect, longest), "cpu") for model in models]
    keep_freed(max(peaks))
    seconds = [[[] for _ in batches] for _ in models]
    for _ in range(rounds):
        for index, batch in enumerate(batches):
            for samples, model in zip(seconds, models):
                start = time.perf_counter()
                model.detect(batch)
                samples[index].append(time.perf_counter() - start)
    return [
        {
            "window": window,
            "overlap": overlap,
            "peak_memory_bytes": peak,
            "seconds_per_hour": sum(map(statistics.median, samples)) / hours,
            "avg_map": 100
            * float(
                mean_average_precision(
                    truth,
                    detect_all(model, data, recordings, stream=trained.stream, device="cpu"),
                    data.tious,
                ).mean()
            ),
        }
        for (window, overlap), model, samples, peak in zip(choices, models, seconds, peaks)
    ]
