"""`tal data prepare`: a seeded subset of a published dataset's files, through its publisher's client.

Credentials come from the clients' configuration (`~/.kaggle/kaggle.json`, `hf auth login`). Existing files
are not fetched again.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from tal_lib.disk import disk_is_full, no_folder
from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.video.frames import SUFFIXES, Reader
from tal_lib.writing import claim, listed

HUBS = ("kaggle:", "hf:")


@dataclass(frozen=True)
class Origin:
    """A source of files. `names` lists them; `fetch` returns the local path of one file."""

    names: Callable[[], list[str]]
    fetch: Callable[[str], Path]


def kaggle(dataset: str) -> Origin:
    """A Kaggle dataset, `owner/name`, by kagglehub."""
    try:
        import kagglehub
    except ImportError:
        raise TalError(
            "kagglehub is not installed", remedy="In the clone: pip install -e '.[data]'"
        ) from None
    fetched = {}

    def names():  # kagglehub fetches the whole dataset and caches it
        root = Path(_asked(lambda: kagglehub.dataset_download(dataset), dataset))
        fetched.update(
            {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
        )
        return list(fetched)

    return Origin(names, lambda name: fetched[name])


def hugging_face(repository: str) -> Origin:
    """A dataset repository of the Hugging Face hub, `owner/name`, file by file."""
    try:
        import huggingface_hub
    except ImportError:
        raise TalError(
            "huggingface_hub is not installed", remedy="In the clone: pip install -e '.[data]'"
        ) from None
    return Origin(
        lambda: _asked(
            lambda: huggingface_hub.HfApi().list_repo_files(repository, repo_type="dataset"), repository
        ),
        lambda name: Path(
            _asked(lambda: huggingface_hub.hf_hub_download(repository, name, repo_type="dataset"), repository)
        ),
    )


def local(folder: str | Path) -> Origin:
    """A folder of this machine."""
    folder = Path(folder)
    if not folder.is_dir():
        raise no_folder(folder)
    return Origin(
        lambda: [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()],
        lambda name: folder / name,
    )


def origin(where: str) -> Origin:
    """`kaggle:OWNER/NAME`, `hf:OWNER/NAME`, or a folder."""
    kind, _, name = where.partition(":")
    if where.startswith(HUBS):
        if name.count("/") != 1 or not all(name.split("/")):
            raise TalError(f"{name!r} is not OWNER/NAME", remedy=f"Write {kind}:owner/name.")
        return kaggle(name) if kind == "kaggle" else hugging_face(name)
    return local(where)


def _asked(call, subject):
    try:
        return call()
    except Exception as error:  # every client raises different errors
        raise TalError(
            f"not reachable ({type(error).__name__}: {(str(error).strip() or '?').splitlines()[0][:200]})",
            where=subject,
            remedy="Check the name, the connection and the client's credentials.",
        ) from None


def file_names(names: list[str]) -> dict[str, str]:
    """Path in an origin → file name in one folder.

    If several files have the same name, the folder names are put before it: `a/x.mp4` becomes `a_x.mp4`.
    Names that differ only in case count as the same, because some file systems do not keep them apart.

    Raises:
        TalError: two files would still have the same name.
    """
    counts = Counter(Path(name).name.casefold() for name in names)
    called = {
        name: "_".join(Path(name).parts) if counts[Path(name).name.casefold()] > 1 else Path(name).name
        for name in names
    }
    counts = Counter(map(str.casefold, called.values()))
    for name, short in called.items():
        if counts[short.casefold()] > 1:
            raise TalError(f"two files would be called {short}", where=name, remedy="Rename one of them.")
    return called


def prepare(
    where: str,
    out: str | Path,
    *,
    count: int | None = None,
    seed: int = 0,
    suffixes: tuple[str, ...] = SUFFIXES,
    progress: bool = True,
) -> pd.DataFrame:
    """Copy files of an origin into `out`: all, or a random subset of `count` files drawn with `seed`.

    A larger count keeps the files of a smaller count. Files with the same name in different folders get names
    that contain their folders. Each video is opened to check that it has pictures.

    Returns:
        one row per file: `file, problem, new`. A file that cannot be fetched or read has a problem and is
            left out. The other files are still copied.

    Raises:
        TalError: the origin cannot be reached, has no such files, or contains `out`; or `out` has other files
            with these names.
    """
    source, out = origin(where), Path(out)
    names = sorted(name for name in source.names() if Path(name).suffix.lower() in suffixes)
    if not names:
        raise TalError(
            f"no {', '.join(suffixes)} in it", where=where, remedy="Name the kind of files with --kind."
        )
    if not where.startswith(HUBS) and out.resolve().is_relative_to(Path(where).resolve()):
        raise TalError(
            "lies in the folder that files are taken from", where=out, remedy="Name another folder."
        )
    called = file_names(names)
    random.Random(seed).shuffle(names)
    missing = [name for name in names[:count] if not listed(out / called[name])]
    claim(out, [called[name] for name in missing])
    rows = []
    for name in tqdm(names[:count], unit="file", disable=not progress, mininterval=1):
        target = out / called[name]
        row = {"file": target.name, "problem": "", "new": False}
        if name in missing:
            try:
                path = source.fetch(name)
                if target.suffix.lower() in SUFFIXES:
                    Reader(path, 1.0)
                with atomic_path(target) as temporary:
                    shutil.copyfile(path, temporary)
                row["new"] = True
            except (TalError, OSError) as error:
                if disk_is_full(out, str(error), failed_without_reason=False):
                    raise
                row["problem"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows)
