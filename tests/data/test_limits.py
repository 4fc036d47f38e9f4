"""Small files that stand for gigabytes: refused by name before they are unpacked."""

import gzip
import io
import resource
import struct
import zipfile

import h5py
import numpy as np
import pytest
import torch

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import hapt
from tal_lib.data.features import read_feature_file
from tal_lib.data.limits import VARIABLE, largest_unpacked
from tal_lib.data.subsets import _read_list

DIM = 2048
ROWS = 2**19  # × DIM × 4 bytes: 4 GiB
CHUNK = b"\0" * 2**20


def npy_header(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npy_that_claims(path, shape=(10**12, DIM)):
    path.write_bytes(npy_header(shape) + CHUNK)


def npz_bomb(path):
    """4 GiB of zeros in some MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            member.write(npy_header((ROWS, DIM)))
            for _ in range(64):  # of 4,096: the header declares the rest
                member.write(CHUNK)
    _declare(path, 4 * ROWS * DIM)


def _declare(path, size):
    """Write `size` into a zip directory as the unpacked size of the last member, in bytes."""
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", min(size, 2**32 - 2))
    path.write_bytes(raw)


def npz_false_header(path):
    """An honest size in the archive, a false one in the array's header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", npy_header((10**12, DIM)) + CHUNK)


def h5_bomb(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (ROWS, DIM), "f4", chunks=(1024, DIM), compression="gzip")


def pt_bomb(path):
    """One number, shown as many by strides of zero."""
    torch.save(torch.zeros(1).expand(ROWS, DIM), path)


def pt_zip_bomb(path):
    torch.save(torch.zeros(4, DIM), path)
    _declare(path, 2**32 - 2)


BOMBS = {
    "f.npy": (npy_that_claims, "its header declares an array of"),
    "g.npy": (lambda path: npy_that_claims(path, (-1, DIM)), "cannot be read"),
    "f.npz": (
        npz_bomb,
        r"the archive would need 4\.0 GiB, although the file has .* MiB.*TAL_LARGEST_GIB=4 would allow",
    ),
    "g.npz": (npz_false_header, "its header declares an array of"),
    "f.h5": (h5_bomb, r"its array would need 4\.0 GiB"),
    "f.pt": (pt_bomb, r"its tensor would need 4\.0 GiB"),
    "g.pt": (pt_zip_bomb, "the archive would need|cannot be read"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_feature_files_that_stand_for_gigabytes(tmp_path, name):
    make, message = BOMBS[name]
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 8 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TalError, match=f"{name}: {message}"):
        read_feature_file(tmp_path / name, DIM)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB: a quarter of a GiB


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "f.npz", features=np.zeros((3000, 8), np.float32))
    assert len(read_feature_file(tmp_path / "f.npz", 8)) == 3000
    monkeypatch.setenv(VARIABLE, "0.00005")  # 54 KB
    with pytest.raises(TalError, match="f.npz: the archive would need"):
        read_feature_file(tmp_path / "f.npz", 8)
    for text in ("much", "-1", "0", "nan", "inf"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(TalError, match=f"{VARIABLE}={text} is not a number of GiB"):
            largest_unpacked()


def test_files_that_are_large_themselves_are_read(tmp_path, monkeypatch):
    """No limit on what lies uncompressed on the user's disk."""
    monkeypatch.setenv(VARIABLE, "0.00001")
    x = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    for name, save in (
        ("f.npy", lambda path: np.save(path, x)),
        ("f.npz", lambda path: np.savez(path, x)),
        ("f.pt", lambda path: torch.save(torch.from_numpy(x), path)),
        ("f.h5", lambda path: h5py.File(path, "w").create_dataset("x", data=x).file.close()),
    ):
        save(tmp_path / name)
        assert np.array_equal(read_feature_file(tmp_path / name, 8), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int64])
def test_numbers_of_other_types(tmp_path, dtype):
    x = np.arange(24).reshape(3, 8).astype(dtype)
    np.save(tmp_path / "f.npy", x)
    read = read_feature_file(tmp_path / "f.npy", 8)
    assert read.dtype == np.float32 and np.array_equal(read, x)


def test_bfloat16_of_torch(tmp_path):
    torch.save([[0.0] * 8] * 3, tmp_path / "list.pt")
    with pytest.raises(TalError, match="list.pt: holds a list, not a tensor"):
        read_feature_file(tmp_path / "list.pt", 8)
    torch.save(torch.arange(24).reshape(3, 8).bfloat16().requires_grad_(), tmp_path / "f.pt")
    assert read_feature_file(tmp_path / "f.pt", 8)[2, 7] == 23


def test_hdf5_does_not_lead_to_other_files(tmp_path):
    """External links, external storage and virtual sets would read any file into features."""
    (tmp_path / "secret").write_bytes(bytes(32))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((4, 8), np.float32)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "features")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        storage = [(str(tmp_path / "secret"), 0, 32)]
        file.create_dataset("features", (4, 8), "u1", external=storage)
    layout = h5py.VirtualLayout((4, 8), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "features", (4, 8))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("features", layout)
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "features")
        file["features"] = h5py.SoftLink("/x")
    for name in ("link.h5", "raw.h5", "virtual.h5", "soft.h5"):
        with pytest.raises(TalError, match=f"{name}: features lies in another file"):
            read_feature_file(tmp_path / name, 8)
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("features")
    with pytest.raises(TalError, match="group.h5: features is an HDF5 group"):
        read_feature_file(tmp_path / "group.h5", 8)


def hapt_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("RawData/labels.txt", b"1 1 1 1 2\n")
    _declare(path, 2**32 - 2)


def outer_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("HAPT Data Set.zip", CHUNK)
    _declare(path, 2**32 - 2)


def encrypted(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("RawData/labels.txt", b"1 1 1 1 2\n")
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def unknown_method(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("RawData/labels.txt", b"1 1 1 1 2\n")
    raw = bytearray(path.read_bytes())
    raw[8] = 99
    raw[raw.rindex(b"PK\x01\x02") + 10] = 99
    path.write_bytes(raw)


ARCHIVES = {
    "bomb": (hapt_bomb, "the archive would need 4.0 GiB"),
    "outer": (outer_bomb, "the archive would need 4.0 GiB"),
    "encrypted": (encrypted, "RawData/labels.txt cannot be read"),
    "method": (unknown_method, "RawData/labels.txt cannot be read"),
    "text": (lambda path: path.write_text("hello"), "not a zip archive"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip archive"),
    "other": (lambda path: zipfile.ZipFile(path, "w").close(), "RawData/labels.txt is missing"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "nothing": (lambda path: None, "file not found"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_fetch_names_the_file_that_was_given(tmp_path, capsys, name):
    make, message = ARCHIVES[name]
    make(tmp_path / f"{name}.zip")
    root = tmp_path / "root"
    assert main(["data", "fetch", "hapt", "--root", str(root), "--from", str(tmp_path / f"{name}.zip")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tal: {tmp_path / name}.zip: {message}") and error.count("\n") == 1
    assert not list(root.glob("hapt/*")) and not list(root.glob("hapt/.*"))  # nothing half-fetched is left


@pytest.mark.parametrize("name", ["bomb", "text", "empty"])
def test_an_archive_in_place_is_named_too(tmp_path, name):
    (tmp_path / "hapt").mkdir()
    ARCHIVES[name][0](tmp_path / "hapt" / "hapt.zip")
    with pytest.raises(TalError, match=f"hapt.zip: {ARCHIVES[name][1]}"):
        hapt.load(tmp_path)


def test_published_lists_within_limits(tmp_path):
    (tmp_path / "l.txt.gz").write_bytes(gzip.compress(CHUNK)[:-4])
    with pytest.raises(TalError, match="l.txt.gz: cannot be read"):
        _read_list(tmp_path, "l.txt")
    with pytest.raises(TalError, match="published list not found"):
        _read_list(tmp_path, "none.txt")
