"""What models share that know their classes by name: the names' vectors, read by a frozen text encoder."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.class_text import PROMPTS, check_encoder, class_vectors, text_dim
from tal_lib.validation import Checked, require


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(Checked):
    """Options of every model that reads names."""

    text: str = "words"  # encoder, see tal_lib/data/class_text.py
    prompts: tuple[str, ...] = PROMPTS  # sentences around the name, averaged

    def check(self):
        super().check()
        check_encoder(self.text)
        require(
            len(self.prompts) > 0,
            "prompts: the list is empty",
            "Give at least one sentence with {} for the name.",
        )
        for prompt in self.prompts:
            require(
                prompt.replace("{}", "", 1).count("{") == 0
                and prompt.count("{}") == 1
                and prompt.count("}") == 1,
                f"prompts: {prompt!r} does not hold {{}} once",
                "Write {} where the name belongs, and no other braces.",
            )


class ReadsNames:
    """Mixin for a detector whose classes have texts: `text` (K, E) holds their unit vectors, random until
    named."""

    def begin_text(self: Any) -> int:
        """Create the buffer; E."""
        dim = text_dim(self.config.text)
        vectors = torch.randn(self.num_classes, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("text", F.normalize(vectors, dim=-1))
        return dim

    def name_classes(self: Any, names: tuple[str, ...]) -> None:
        """Take other classes, by name; their number may change."""
        names = tuple(names)
        if names == self.class_names:
            return
        self.text = torch.from_numpy(class_vectors(names, self.config.text, tuple(self.config.prompts))).to(
            self.text
        )
        self.class_names, self.num_classes = names, len(names)
        self.spec = self.spec | {"num_classes": len(names)} if self.spec else self.spec


class TextSimilarity(nn.Module):
    """Logits as scaled cosines between steps and texts: (B, T, E) and (K, E) or (B, K, E) → (B, T, K).

    scale: of the cosine, learned if `learned`; bias: added to every logit, learned, if given.
    """

    def __init__(self, scale: float, *, learned: bool, bias: float | None = None):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log(), requires_grad=learned)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def forward(self, steps: Tensor, texts: Tensor) -> Tensor:
        cosine = F.normalize(steps, dim=-1) @ F.normalize(texts, dim=-1).transpose(-1, -2)
        logits = cosine * self.log_scale.exp()
        return logits if self.bias is None else logits + self.bias
