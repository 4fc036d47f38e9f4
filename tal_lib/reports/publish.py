"""`tal publish`: a model folder becomes a model repository of the user's on the Hugging Face Hub.

The folder is checked before anything is sent: its three files and nothing else, no pickle, weights that fit
the model, a card whose front matter the Hub understands. The token comes from `hf auth login` or `HF_TOKEN`;
it is never read or printed here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from tal_lib.errors import TalError, one_line
from tal_lib.reading import parse_yaml, read_text
from tal_lib.training import load_model
from tal_lib.training.checkpoints import CARD, FOLDER, is_model_folder
from tal_lib.validation import validate
from tal_lib.writing import LIST

KEPT = {".gitattributes"}  # made by the Hub in every repository
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
LONGEST_REPOSITORY = 96
_FRONT = re.compile(r"---\n(.*?)\n---\n", re.S)
_COLLECT = "Write it again with `tal collect`."


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", value):
        raise ValueError("a licence as the Hub names it, such as cc-by-4.0")
    return value


def _data_name(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value, re.ASCII):
        raise ValueError("the name of a data set, NAME or OWNER/NAME")
    return value


Word = Annotated[str, Field(min_length=1, max_length=96)]


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    """What the Hub reads of a card. Further fields are not checked."""

    license: Annotated[str, AfterValidator(_identifier)]
    tags: list[Word]
    datasets: list[Annotated[str, AfterValidator(_data_name)]]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A checked folder, and where it goes."""

    repo: str
    folder: Path
    files: tuple[Path, ...]
    title: str  # first heading of the card


def check(folder: str | Path, repo: str) -> Upload:
    """Check a model folder and the name of its repository. Nothing is sent.

    Raises:
        TalError: a file too many or too few, weights that do not load, a card or a name that the Hub refuses.
    """
    folder = Path(folder)
    name = repo.partition("/")[2]
    if not REPOSITORY.fullmatch(repo) or len(repo) > LONGEST_REPOSITORY or name.endswith(".git"):
        raise _no_repository(repo)
    if "--" in repo or ".." in repo:
        raise _no_repository(repo)
    if not folder.is_dir():
        raise TalError("no such folder", where=folder, remedy="Give a folder that `tal collect` wrote.")
    if not is_model_folder(folder):
        raise TalError("not a model folder", where=folder, remedy="Give a folder that `tal collect` wrote.")
    for path in sorted(folder.iterdir()):
        if path.name != LIST and (path.name not in FOLDER or path.is_symlink() or not path.is_file()):
            raise TalError(
                f"only {', '.join(FOLDER)} are published",
                where=path,
                remedy="Move it out of the folder.",
            )
    text = read_text(folder / CARD, what="model card", remedy=_COLLECT)
    check_card(text, folder / CARD)
    load_model(folder)
    heading = re.search(r"^# (.+)$", text, re.M)
    return Upload(
        repo=repo,
        folder=folder,
        files=tuple(folder / name for name in FOLDER),
        title=one_line(heading[1]) if heading else folder.name,
    )


def check_card(text: str, where: object) -> FrontMatter:
    """The front matter of a model card.

    Raises:
        TalError: none, or a field that the Hub needs is missing or of a wrong kind.
    """
    match = _FRONT.match(text)
    content: Any = parse_yaml(match[1], where=where) if match else None
    if not isinstance(content, dict):
        raise TalError("no front matter (YAML between two lines ---)", where=where, remedy=_COLLECT)
    known = {name: content[name] for name in ("license", "tags", "datasets") if name in content}
    return validate(FrontMatter, known, where=where, remedy=_COLLECT)


def publish(upload: Upload, *, private: bool = False, overwrite: bool = False, api: Any = None) -> str:
    """Upload a checked folder in one commit; returns the address of the commit.

    Args:
        private: make the repository private; overwrite: also into a repository that holds other files.
        api: a `huggingface_hub.HfApi`; None: one with the user's token.

    Raises:
        TalError: the client or a token is missing, the repository holds other files or is public where
            `private` is asked, or the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError:
        raise TalError(
            "huggingface_hub is not installed", remedy="In the clone: pip install -e '.[data]'"
        ) from None
    if api is None:
        if get_token() is None:
            raise TalError(
                "no token for the Hugging Face Hub",
                where=upload.repo,
                remedy="Run `hf auth login`, or set HF_TOKEN to a token with write access.",
            )
        api = HfApi()
    try:
        try:
            _check_existing(api.repo_info(upload.repo), upload, private, overwrite)
        except RepositoryNotFoundError:
            api.create_repo(upload.repo, private=private)
        commit = api.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            allow_patterns=list(FOLDER),
            commit_message=f"Upload {upload.title}",
        )
    except TalError:
        raise
    except Exception as error:  # the client raises errors of several libraries
        reason = (str(error).strip() or "?").splitlines()[0][:200]
        raise TalError(
            f"the Hub refused or is not reachable ({type(error).__name__}: {reason})",
            where=upload.repo,
            remedy="Check the name, the connection, and that the token may write there.",
        ) from None
    return commit.commit_url


def _check_existing(about, upload, private, overwrite):
    """Raise `TalError` if files of others would be replaced or mixed, or a private model become public."""
    if private and about.private is False:
        raise TalError(
            "the repository is public, and --private was asked for",
            where=upload.repo,
            remedy="Make it private in its settings, or name another one.",
        )
    others = sorted({part.rfilename for part in about.siblings or []} - set(FOLDER) - KEPT)
    if others and not overwrite:
        raise TalError(
            f"the repository holds other files: {', '.join(others[:3])}{', …' if len(others) > 3 else ''}",
            where=upload.repo,
            remedy="Name a new repository, or allow it with --overwrite: other files stay.",
        )


def _no_repository(repo):
    return TalError(
        f"{repo!r} is not USER/NAME",
        where="--repo",
        remedy=f"Use letters, digits, _ . -, at most {LONGEST_REPOSITORY} of them.",
    )
