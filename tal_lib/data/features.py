"""Feature files: `.npy`, `.npz`, `.pt`, `.h5` or `.csv`, time-major or channel-major, one file or one a stream."""

import pickle
from pathlib import Path

import numpy as np

from tal_lib.data.benchmark import FeatureSpec, check_features
from tal_lib.errors import TalError

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".csv")


def read_feature_file(path: str | Path, dim: int) -> np.ndarray:
    """Features (T, dim), float32, of one file; a (dim, T) array is turned.

    Containers (`.npz`, `.h5`, a dict in `.pt`) must hold one array, or one called `features` or `feats`.

    Raises:
        TalError: missing, truncated or unreadable file, wrong shape, NaN or infinite values.
    """
    path = Path(path)
    remedy = "Extract or copy the file again."
    if not path.is_file():
        raise TalError("feature file not found", where=path, remedy=remedy)
    try:
        array = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise TalError(
            f"unknown kind of feature file {path.suffix!r}",
            where=path,
            remedy=f"Use one of {', '.join(SUFFIXES)}.",
        ) from None
    except TalError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise TalError(
            f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            where=path,
            remedy=remedy,
        ) from None
    except Exception as error:  # a zip or HDF5 library's own errors on damaged files
        raise TalError(f"cannot be read ({type(error).__name__})", where=path, remedy=remedy) from None
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise TalError(f"holds {array.dtype} values, not numbers", where=path, remedy=remedy)
    array = array.reshape([size for i, size in enumerate(array.shape) if size != 1 or array.ndim <= 2])
    if array.ndim == 1 and array.shape[0] == dim:
        array = array[None]  # a single step
    if array.ndim == 2 and array.shape[1] != dim and array.shape[0] == dim:
        array = array.T
    return check_features(array, dim=dim, where=path)


def _one_array(mapping, path):
    names = list(mapping.keys())
    for name in ("features", "feats"):
        if name in names:
            return np.asarray(mapping[name])
    if len(names) != 1:
        raise TalError(
            f"holds {len(names)} arrays ({', '.join(map(str, names[:5]))})",
            where=path,
            remedy="Name the right one `features`.",
        )
    return np.asarray(mapping[names[0]])


def _read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        return _one_array(archive, path)


def _read_pt(path):
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    return _one_array(content, path) if isinstance(content, dict) else content.numpy()


def _read_h5(path):
    import h5py

    with h5py.File(path, "r") as file:
        return _one_array(file, path)


def _read_csv(path):
    import pandas as pd

    table = pd.read_csv(path, header=None)
    if table.iloc[0].map(lambda value: isinstance(value, str)).any():  # a header line
        table = pd.read_csv(path)
    return table.to_numpy()


_READERS = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".csv": _read_csv,
}


def find_feature_file(folder: Path, recording: str) -> Path:
    """The file of a recording in a folder: `<recording><suffix>`, with or without ActivityNet's `v_` before it."""
    for name in (recording, f"v_{recording}"):
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise TalError(
        "feature file not found",
        where=f"{folder}, recording {recording}",
        remedy=f"Put {recording}.npy (or {', '.join(SUFFIXES[1:])}) there.",
    )


def load_features(folder: Path, recording: str, spec: FeatureSpec) -> np.ndarray:
    """Features (T, D) of a recording from `folder`.

    If `folder` has a subfolder a stream, their features are joined and cut to the shortest; else one file holds all.
    """
    if not all((folder / stream).is_dir() for stream in spec.streams):
        return read_feature_file(find_feature_file(folder, recording), spec.dim)
    parts = [
        read_feature_file(find_feature_file(folder / stream, recording), width)
        for stream, width in spec.streams.items()
    ]
    steps = min(map(len, parts))
    return np.hstack([part[:steps] for part in parts])


def resize(features: np.ndarray, steps: int) -> np.ndarray:
    """Features (T, D) resampled to (steps, D) by linear interpolation between step centres."""
    at = np.clip((np.arange(steps) + 0.5) * len(features) / steps - 0.5, 0, len(features) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(features) - 1)
    share = (at - low)[:, None]
    return ((1 - share) * features[low] + share * features[high]).astype(np.float32)
