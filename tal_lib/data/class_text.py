"""Class names as vectors: a frozen text encoder reads the names, so that unseen classes can be detected by
name.

    words      every word has a fixed random vector, and a second one for its position in the name; no
        download. Names that share words are similar. This suffices if class names combine attributes
        (`synthetic`).
    glove      mean of the words' GloVe vectors (Pennington et al., EMNLP 2014; 6B tokens, 50 columns), from a
        package. A plain baseline: the order of words does not count.
    clip       CLIP's text tower. `minilm`, `mpnet`: sentence encoders. Weights come from the Hugging Face hub
        and stay in its cache; those of `minilm` come from a package where it is installed.
    clip:WHERE, sentence:WHERE   any other model of these kinds; WHERE is a hub name or a folder.

Vectors of downloaded encoders are cached in `$TAL_CACHE` (or ~/.cache/tal) by encoder, prompts and names.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache

import numpy as np

from tal_lib.data import shipped
from tal_lib.errors import TalError, short
from tal_lib.files import atomic_path, cache_root, digest
from tal_lib.validation import require

WORDS_DIM = 64
ENCODERS = {  # name: (kind, where on the hub or in which package, dimensions)
    "glove": ("glove", shipped.GLOVE.module, 50),
    "clip": ("clip", "openai/clip-vit-base-patch32", 512),
    "clip-l14": ("clip", "openai/clip-vit-large-patch14", 768),
    "minilm": ("sentence", "sentence-transformers/all-MiniLM-L6-v2", 384),
    "mpnet": ("sentence", "sentence-transformers/all-mpnet-base-v2", 768),
}
PROMPTS = ("a video of action {}",)


def words_of(name: str) -> list[str]:
    """Words of a class name, in lower case. Splits `WALKING_UP`, `CleanAndJerk` and `lift ball` alike."""
    name = unicodedata.normalize("NFC", name)
    plain = "".join(map(_plain, name))  # of the same length
    spans = [match.span() for match in re.finditer(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", plain)]
    return [name[first:last].lower() for first, last in spans] or [name.lower()]


def _plain(character):
    """`A` or `a` in place of a letter outside ASCII (or a mark on one); other characters as they are."""
    if character.isascii() or unicodedata.category(character)[0] not in "LM":
        return character
    return "A" if character.isupper() else "a"


def text_dim(encoder: str) -> int:
    """Length of an encoder's vectors."""
    if encoder == "words":
        return WORDS_DIM
    if encoder in ENCODERS:
        return ENCODERS[encoder][2]
    kind, where = _kind_and_place(encoder)
    config = _from_hub("AutoConfig", where)
    return (
        config.text_config.projection_dim
        if kind == "clip" and hasattr(config, "text_config")
        else (config.projection_dim if kind == "clip" else config.hidden_size)
    )


def check_encoder(encoder: str) -> None:
    """Raise `TalError`, with the known names, if an encoder's name is unknown. Nothing is loaded."""
    if encoder != "words":
        _kind_and_place(encoder)


def class_vectors(names, encoder: str = "words", prompts: tuple[str, ...] = PROMPTS) -> np.ndarray:
    """Unit vectors (K, E) of class names, float32.

    Args:
        encoder: see the top of this file.
        prompts: sentences with `{}` for the name. Their vectors are averaged. `words` and `glove` use the
            name alone.

    Raises:
        TalError: no name or no prompt, the encoder is unknown, its weights are neither cached nor reachable,
            two classes have the same text, or `glove` knows no word of a name.
    """
    names = tuple(names)
    require(bool(names), "no class names", "Give at least one class.")
    require(
        bool(prompts) and all("{}" in prompt for prompt in prompts),
        f"prompts: {short(list(prompts))}",
        "Give at least one sentence, each with {} for the class name.",
    )
    if encoder == "words":
        vectors = np.stack([_words_vector(name) for name in names])
    elif encoder == "glove":
        vectors = np.stack([_glove_vector(name) for name in names])
    else:
        path = (
            _cache_folder()
            / f"{digest('class text 2', list(_kind_and_place(encoder)), list(prompts), list(names))}.npy"
        )
        vectors = _read_cached(path, len(names))
        if vectors is None:
            texts = [prompt.format(" ".join(words_of(name))) for prompt in prompts for name in names]
            vectors = _unit(_encode(encoder, texts)).reshape(len(prompts), len(names), -1).mean(0)
            with atomic_path(path, state=True) as temporary:
                np.save(temporary, vectors)
    vectors = _unit(vectors)
    alike = np.argwhere(np.triu(vectors @ vectors.T > 1 - 1e-6, 1))
    if len(alike):
        a, b = alike[0]
        raise TalError(
            f"classes {names[a]!r} and {names[b]!r} have the same text",
            remedy="Choose words or minilm: glove ignores the order of words."
            if encoder == "glove"
            else "Give them different names.",
        )
    return vectors.astype(np.float32)


def _words_vector(name):
    parts = [_word(text) for place, word in enumerate(words_of(name)) for text in (word, f"{place} {word}")]
    return _unit(np.sum(parts, 0))


def _word(text):
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return _unit(np.random.default_rng(seed).standard_normal(WORDS_DIM))


@lru_cache(maxsize=1)
def _glove():
    """(number of each word, vectors (400,000, 50)); the file stays on disk."""
    import pyarrow.parquet

    folder = shipped.GLOVE.need("the text encoder glove")
    words = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    return {word: number for number, word in enumerate(words)}, np.load(
        folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False
    )


def _glove_vector(name):
    numbers, vectors = _glove()
    rows = [numbers[word] for word in words_of(name) if word in numbers]
    if not rows:
        raise TalError(
            f"the text encoder glove has no vector for any word of class {name!r}",
            remedy="Rename the class in English words, or choose another encoder.",
        )
    return _unit(vectors[rows].astype(np.float64).mean(0))


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _cache_folder():
    return cache_root() / "class_text"


def _read_cached(path, count):
    """Cached vectors. None if there are none or the file is damaged; it is then written again."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == count and np.isfinite(vectors).all() else None


def _kind_and_place(encoder):
    if encoder in ENCODERS:
        return ENCODERS[encoder][:2]
    kind, colon, where = encoder.partition(":")
    if kind not in ("clip", "sentence") or not colon or not where:
        raise TalError(
            f"no text encoder {short(encoder)}",
            remedy=f"Choose from words, {', '.join(ENCODERS)}, clip:WHERE or sentence:WHERE.",
        )
    return kind, where


def _from_hub(loader, where):
    """A part of a pretrained model, from the hub's cache, the hub or a folder."""
    try:
        import transformers
    except ImportError:
        raise TalError(
            "text encoders need the package transformers", remedy="In the clone: pip install -e '.[text]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    if where in shipped.HUB:
        where = str(shipped.HUB[where].path() or where)
    try:
        # a model's file may name a repository, whose code must not run
        return getattr(transformers, loader).from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise TalError(
            f"the text encoder's weights are neither cached nor reachable ({str(error).splitlines()[0]})",
            where=where,
            remedy=f"Fetch them once with a connection: `hf download {where}`"
            + (f", or from a package: `{shipped.HUB[where].install}`" if where in shipped.HUB else "")
            + "; or use the encoder `words`.",
        ) from None


def _encode(encoder, texts):
    """Vectors (N, E) of sentences."""
    import torch

    kind, where = _kind_and_place(encoder)
    tokenizer = _from_hub("AutoTokenizer", where)
    model = _from_hub("CLIPTextModelWithProjection" if kind == "clip" else "AutoModel", where).eval()
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**tokens)
        if kind == "clip":
            return outputs.text_embeds.numpy()
        keep = tokens["attention_mask"][..., None].float()  # sentence encoders: mean over tokens
        return ((outputs.last_hidden_state * keep).sum(1) / keep.sum(1)).numpy()
