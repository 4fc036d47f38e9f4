"""Clusters that a sweep starts itself: workers on this machine, and Slurm jobs."""

from collections.abc import Sequence
from logging import ERROR
from pathlib import Path
from typing import Any

import yaml

from tal_lib.errors import TalError
from tal_lib.sweeps.gpus import count_gpus
from tal_lib.sweeps.grid import Cell

SEE = "docs/cluster.md has an example."


def workers_here(number: str, certificates, need_gpu: Sequence[Cell]) -> Any:
    """N workers on this machine, each with one process and one thread. One has the GPU if cells need it.

    Args:
        number: N, as text; need_gpu: the cells that need a GPU.

    Raises:
        TalError: not a number, or cells need a GPU and there is none here.
    """
    from distributed import LocalCluster

    if not number.isdigit() or int(number) < 1:
        raise TalError(f"cluster local:{number}", remedy="Give the number of workers: local:2.")
    if need_gpu and not count_gpus():
        raise TalError(
            f"cluster local:{number}: {len(need_gpu)} cells of the grid need a GPU (the first is "
            f"{need_gpu[0].notebook.stem} {need_gpu[0].label()}), and there is no CUDA GPU here",
            remedy="Name a cluster with a GPU, or leave these cells out with --only.",
        )
    cluster: Any = LocalCluster(
        n_workers=1 if need_gpu else int(number),
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,  # pyright: ignore[reportArgumentType]
        silence_logs=ERROR,
        resources={"GPU": 1} if need_gpu else None,
        **_encrypted(certificates),
    )
    if need_gpu:  # the other workers have no GPU, so that one cell at a time is on it
        cluster.new_spec["options"] = cluster.new_spec["options"] | {"resources": None}
        cluster.scale(int(number))
    return cluster


def _encrypted(certificates):
    """Options of a cluster that requires certificates; empty without certificates."""
    return {} if certificates is None else {"security": certificates, "protocol": "tls://"}


def read_description(path: str | Path) -> dict:
    """Read a Slurm cluster from a YAML file.

    Its entries are `jobs`, `gpu`, and the arguments of `dask_jobqueue.SLURMCluster`.
    """
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TalError("cluster file not found", where=path, remedy=SEE) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise TalError(f"not valid YAML ({type(error).__name__})", where=path, remedy=SEE) from None
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise TalError("not a cluster description: no names and values in it", where=path, remedy=SEE)
    options = {"jobs": 1, "gpu": False, "processes": 1, "worker_extra_args": []} | options
    for name, kind in (("jobs", int), ("gpu", bool), ("processes", int), ("worker_extra_args", list)):
        if type(options[name]) is not kind:
            raise TalError(f"{name}: {options[name]!r} is not {kind.__name__}", where=path, remedy=SEE)
    return options


def slurm_jobs(path: str, certificates) -> Any:
    """Workers as Slurm jobs.

    Args:
        path: of the cluster's description.

    Raises:
        TalError: it is no description of a cluster, or dask-jobqueue is not installed.
    """
    options = read_description(path)
    jobs, gpu = options.pop("jobs"), options.pop("gpu")
    try:
        from dask_jobqueue import SLURMCluster  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise TalError(
            "sweeps on Slurm need dask-jobqueue", remedy="In the clone: pip install -e '.[cluster]'"
        ) from None
    if gpu:
        options["worker_extra_args"] = [*options["worker_extra_args"], "--resources", "GPU=1"]
    try:
        cluster = SLURMCluster(**_encrypted(certificates) | options)
    except (TypeError, ValueError) as error:
        raise TalError(f"not a cluster description ({error})", where=path, remedy=SEE) from None
    cluster.scale(jobs=jobs)
    return cluster
