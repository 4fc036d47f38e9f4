"""One feature file: `.npy`, `.npz`, `.pt`, `.h5` or `.csv`, time-major or channel-major.

Reading executes nothing, opens no other file, and limits the size of unpacked data.
"""

import pickle
import zipfile
from pathlib import Path

import numpy as np

from tal_lib.data.limits import check_npy, check_size, check_zip, npy_header
from tal_lib.errors import TalError

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".csv")
FLOAT32 = 4  # bytes
REMEDY = "Extract or copy the file again."


def check_features(features: np.ndarray, *, dim: int, where: object, first: int = 0) -> np.ndarray:
    """Features as float32 (T, dim). `TalError`, naming `where`, for a wrong shape, NaN or infinity.

    first: number of the first step, for the error.
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != dim:
        raise TalError(
            f"features of shape {features.shape}, expected (T, {dim})",
            where=where,
            remedy="Extract them again, or state their width in the feature spec.",
        )
    if len(features) == 0:
        raise TalError("features have no steps", where=where, remedy="Extract them again.")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are refused below
        features = np.ascontiguousarray(features, dtype=np.float32)
    if not np.isfinite(features).all():
        step = first + int(np.argmax(~np.isfinite(features).all(axis=1)))
        raise TalError(
            f"features are NaN or infinite, first at step {step}",
            where=where,
            remedy="Extract them again, or replace those values.",
        )
    return features


def read_feature_file(path: str | Path, dim: int) -> np.ndarray:
    """Features (T, dim), float32, of one file. A (dim, T) array is transposed; a (dim, dim) array is not.

    Containers (`.npz`, `.h5`, a dict in `.pt`) must hold one array, or an array called `features` or `feats`.

    Raises:
        TalError: the file is missing, truncated or unreadable; wrong shape; NaN or infinite values; or an
            array far larger than its file.
    """
    return check_features(_time_first(read_array(path), dim), dim=dim, where=path)


def read_feature_part(path: str | Path, dim: int, first: int, last: int) -> np.ndarray:
    """Steps `first` to `last` (excluded) of a feature file: (last - first, dim), float32.

    Of a `.npy` file only these steps are read; other files are read whole. The result equals
    `read_feature_file(path, dim)[first:last]`, but only these steps are checked. Errors name the step in the
    file.
    """
    if Path(path).suffix.lower() != ".npy":
        return read_feature_file(path, dim)[first:last]
    array = _read(path, lambda path: _npy_steps(path, dim, first, last))
    return check_features(array, dim=dim, where=path, first=first)


def feature_steps(path: str | Path, dim: int) -> int:
    """Number of steps of a feature file. Of a `.npy` file only the header is read."""
    if Path(path).suffix.lower() != ".npy":
        return len(read_feature_file(path, dim))
    (shape, _, _), by_time = _read(path, lambda path: _npy_layout(path, dim))
    return shape[0] if by_time else shape[1]


def _time_first(array, dim):
    """(T, dim) of a file's array, which may be (dim, T), or a single step."""
    if array.ndim == 1 and array.shape[0] == dim:
        array = array[None]
    if array.ndim == 2 and array.shape[1] != dim and array.shape[0] == dim:
        array = array.T
    return array


def read_array(path: str | Path) -> np.ndarray:
    """The array of a feature file as stored, without axes of size 1. Errors as in `read_feature_file`."""
    array = np.asarray(_read(path, lambda path: _READERS[path.suffix.lower()](path)))
    _check_numbers(array.dtype, path)
    check_size(
        FLOAT32 * array.size, path, "its array"
    )  # a strided view of one number needs no space in a file
    return array.reshape(_without_ones(array.shape))


def _check_numbers(dtype, path):
    if dtype.kind not in "fiu":
        raise TalError(f"holds {dtype} values, not numbers", where=path, remedy=REMEDY)


def _without_ones(shape):
    return tuple(size for size in shape if size != 1 or len(shape) <= 2)


def _read(path, reader):
    """`reader(path)`. Whatever it raises becomes a `TalError`."""
    path = Path(path)
    if not path.is_file():
        raise TalError("feature file not found", where=path, remedy=REMEDY)
    try:
        return reader(path)
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
            remedy=REMEDY,
        ) from None
    except Exception as error:  # errors of the zip or HDF5 library on damaged files
        raise TalError(f"cannot be read ({type(error).__name__})", where=path, remedy=REMEDY) from None


def is_ambiguous(path: str | Path, dim: int) -> bool:
    """Whether a feature file has as many steps as columns, so that its shape does not show which axis is
    time."""
    if Path(path).suffix.lower() == ".npy":  # reads the header only
        with open(path, "rb") as file:
            shape = tuple(size for size in check_npy(file, Path(path).stat().st_size, path) if size != 1)
    else:
        shape = read_array(path).shape
    return shape == (dim, dim)


def _one_array(mapping, path):
    """The array of a container. It is not read yet if the container reads on demand."""
    names = list(mapping.keys())
    for name in ("features", "feats"):
        if name in names:
            return name
    if len(names) != 1:
        raise TalError(
            f"holds {len(names)} arrays ({', '.join(map(str, names[:5]))})",
            where=path,
            remedy="Name the right one `features`.",
        )
    return names[0]


def _read_npy(path):
    with open(path, "rb") as file:
        check_npy(file, path.stat().st_size, path)
    return np.load(path, allow_pickle=False)


def _npy_layout(path, dim):
    """Header of a `.npy` file without axes of size 1, and whether its first axis is time."""
    with open(path, "rb") as file:
        shape, columns_first, dtype = npy_header(file, path.stat().st_size, path)
        start = file.tell()
    _check_numbers(dtype, path)
    given, shape = shape, _without_ones(shape)
    shape = (1, dim) if shape == (dim,) else shape
    if len(shape) != 2 or dim not in shape or 0 in shape:  # words of the error as for the whole file
        check_features(np.broadcast_to(np.float32(0), _without_ones(given)), dim=dim, where=path)
    return (shape, (columns_first, dtype), start), shape[1] == dim


def _npy_steps(path, dim, first, last):
    """Steps of a `.npy` file, read without the rest: (last - first, dim), of the file's type.

    The bytes are read, not mapped: a file that is cut while it is mapped would kill the process.
    """
    (shape, (columns_first, dtype), start), by_time = _npy_layout(path, dim)
    steps = shape[0] if by_time else shape[1]
    first, last = min(first, steps), min(last, steps)
    contiguous = by_time != columns_first  # the numbers of a step lie side by side
    rows, begin, row_length = (1, first * dim, dim * steps) if contiguous else (dim, first, steps)
    wanted = np.empty((last - first, dim) if contiguous else (dim, last - first), dtype)
    size = wanted.nbytes // rows
    view = wanted.reshape(-1).view(np.uint8).data if wanted.size else memoryview(b"")
    with open(path, "rb", buffering=0) as file:
        for row in range(rows if wanted.size else 0):
            file.seek(start + dtype.itemsize * (row * row_length + begin))
            _fill(file, view[row * size : (row + 1) * size])
    return wanted if contiguous else wanted.T


def _fill(file, view):
    """Read into a buffer until it is full. `EOFError` if the file ends before."""
    while len(view):
        count = file.readinto(view)
        if not count:
            raise EOFError("the file ends before its array")
        view = view[count:]


def _read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        check_zip(archive.zip, path)
        name = _one_array(archive, path)
        members = archive.zip.namelist()
        member = f"{name}.npy" if f"{name}.npy" in members else name
        with archive.zip.open(member) as file:
            check_npy(file, archive.zip.getinfo(member).file_size, path)
        return archive[name]


def _read_pt(path):
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensor = content[_one_array(content, path)] if isinstance(content, dict) else content
    if isinstance(tensor, np.ndarray):
        return tensor
    if not isinstance(tensor, torch.Tensor):  # a small file may hold a list of endless values
        raise TalError(f"holds a {type(tensor).__name__}, not a tensor", where=path, remedy=REMEDY)
    check_size(FLOAT32 * tensor.numel(), path, "its tensor")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _read_h5(path):
    import h5py

    with h5py.File(path, "r") as file:
        name = _one_array(file, path)
        dataset = file[name]
        link = file.get(name, getlink=True)
        if not isinstance(dataset, h5py.Dataset):
            raise TalError(f"{name} is an HDF5 group, not an array", where=path, remedy=REMEDY)
        elsewhere = dataset.file.filename != file.filename  # through a link to a link
        if isinstance(link, h5py.ExternalLink) or elsewhere or dataset.external or dataset.is_virtual:
            raise TalError(
                f"{name} lies in another file", where=path, remedy="Write the array itself into this file."
            )
        check_size(
            dataset.size * max(FLOAT32, dataset.dtype.itemsize),  # pyright: ignore[reportOptionalOperand]
            path,
            "its array",
        )
        return dataset[()]


def _read_csv(path):
    import pandas as pd

    table = pd.read_csv(path, header=None)
    if table.iloc[0].map(lambda value: isinstance(value, str)).any():  # a header line
        table = pd.read_csv(path)
    return table.to_numpy()


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".csv": _read_csv,
}


def resize(features: np.ndarray, steps: int) -> np.ndarray:
    """Features (T, D) resampled to (steps, D) by linear interpolation between step centres."""
    at = np.clip((np.arange(steps) + 0.5) * len(features) / steps - 0.5, 0, len(features) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(features) - 1)
    share = (at - low)[:, None]
    return ((1 - share) * features[low] + share * features[high]).astype(np.float32)
