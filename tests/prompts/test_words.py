from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from p2p_bench.errors import PromptError
from p2p_bench.prompts.words import columns_of, split_words, tokenize
from tests.attention.rig import tokenizer
from tests.prompts.tiny_tokenizer import PIECES, build_tokenizer

words = st.sampled_from([*PIECES, "zebra"])
before, after = st.sampled_from(["", '"', "("]), st.sampled_from(["", ",", ".", "!)", '"'])
pieces = st.tuples(before, words, after).map("".join)
prompts = (
    st.lists(pieces, min_size=1, max_size=3)
    .map(" ".join)
    .filter(lambda prompt: len(tokenizer()(prompt).input_ids) <= tokenizer().model_max_length)
)


def text_of(columns: tuple[int, ...], prompt: str) -> str:
    """The letters of some text columns, read back from the tokens themselves."""
    clip: CLIPTokenizer = tokenizer()
    ids = tokenize(prompt, clip).ids
    return "".join(clip.convert_ids_to_tokens([ids[column] for column in columns])).replace("</w>", "")


def test_the_tokenizer_has_words_of_one_and_of_several_tokens() -> None:
    for word, pieces in PIECES.items():
        assert len(tokenizer()(word).input_ids) == pieces + 2, word


def test_columns_begin_after_the_start_token() -> None:
    prompt = tokenize("a striped circle", tokenizer())
    assert [word.columns for word in prompt.words] == [(1,), (2, 3, 4), (5,)]
    assert prompt.num_tokens == 5
    assert prompt.width == 24
    assert prompt.encoded == tuple(tokenizer()("a striped circle").input_ids)
    assert prompt.ids[7:] == (tokenizer().pad_token_id,) * 17


@given(prompts)
@settings(deadline=None, max_examples=50)
def test_columns_spell_their_words(prompt: str) -> None:
    found = tokenize(prompt, tokenizer())
    assert [word.text for word in found.words] == prompt.split()
    assert [column for word in found.words for column in word.span] == list(range(1, found.num_tokens + 1))
    for word in found.words:
        assert text_of(word.span, prompt) == word.text
        assert text_of(word.columns, prompt) == word.bare
        assert word.bare.isalpha()


def test_punctuation_and_case_around_a_word_do_not_hide_it() -> None:
    prompt = tokenize('A red (Circle), on "grass".', tokenizer())
    assert text_of(columns_of(prompt, "circle"), prompt.text) == "circle"
    assert text_of(columns_of(prompt, "Grass,"), prompt.text) == "grass"
    assert columns_of(prompt, "a") == (1,)


def test_pictures_of_another_shade_are_other_words() -> None:
    # what is behind the letters was punctuation, so that the prompts had no word that differs
    light, dark = (split_words(f"a \U0001f44d{shade}!") for shade in ("\U0001f3fb", "\U0001f3ff"))
    assert light[1].bare == "\U0001f44d\U0001f3fb" != dark[1].bare
    assert split_words("2^ ^")[0].bare == "2"


def test_phrases_and_repeated_words() -> None:
    prompt = tokenize("a red striped circle and a red star", tokenizer())
    assert columns_of(prompt, "red") == (2, 9)
    assert columns_of(prompt, "striped circle") == (3, 4, 5, 6)
    with pytest.raises(PromptError, match="'circle striped' is not in the prompt"):
        columns_of(prompt, "circle striped")


def test_a_missing_word_names_the_prompt_and_the_nearest_word() -> None:
    prompt = tokenize("a striped circle", tokenizer())
    message = r"'stripes' is not in the prompt 'a striped circle'. Did you mean 'striped'"
    with pytest.raises(PromptError, match=message):
        columns_of(prompt, "stripes")
    with pytest.raises(PromptError, match="'' is not in the prompt"):
        columns_of(prompt, "")


def test_empty_prompts() -> None:
    for empty in ("", "  "):
        with pytest.raises(PromptError, match="empty prompt"):
            tokenize(empty, tokenizer())
        assert tokenize(empty, tokenizer(), allow_empty=True).words == ()


def test_a_prompt_may_fill_the_model_and_not_a_token_more() -> None:
    full = " ".join(["red"] * 22)
    assert tokenize(full, tokenizer()).num_tokens == 22
    message = r"is 1 token too long: it has 23, the model takes 22; .* truncate=True .* run\.truncate=true"
    with pytest.raises(PromptError, match=message):
        tokenize(full + " red", tokenizer())
    with pytest.raises(PromptError, match="is 3 tokens too long"):
        tokenize(full + " striped", tokenizer())


@pytest.mark.parametrize("text", ["a red circle<|endoftext|>", "a <|endoftext|> circle", "<|startoftext|> a"])
def test_marks_of_the_tokenizer_are_no_text(text: str) -> None:
    # as tokens they end the text or pad it: the edit of "a circle" into "a circle<|endoftext|>" was none
    with pytest.raises(PromptError, match=r"target prompt .* holds '<\|(end|start)oftext\|>'.* leave it out"):
        tokenize(text, tokenizer(), role="target prompt", truncate=True)


def test_a_sign_that_also_pads_is_text(tmp_path: Path) -> None:
    padded = build_tokenizer(tmp_path)
    padded.pad_token = "!"  # as in Stable Diffusion 2
    assert tokenize("a red circle!", padded).num_tokens == 4


def test_words_that_the_tokenizer_cannot_read_are_told() -> None:
    assert tokenize("a red \u732b and an \u732b on \u96ea.", tokenizer()).unread == ("\u732b", "\u96ea")
    assert tokenize("a zebra, on sand ...", tokenizer()).unread == ()


def test_truncation_keeps_the_words_that_are_left() -> None:
    prompt = tokenize(" ".join(["red"] * 20 + ["striped", "circle"]), tokenizer(), truncate=True)
    assert prompt.truncated
    assert prompt.num_tokens == 22
    assert len(prompt.ids) == 24
    assert prompt.ids[-1] == tokenizer().eos_token_id
    assert columns_of(prompt, "red") == tuple(range(1, 21))
    for word in ("striped", "circle"):  # two of the three tokens of "striped" are left
        with pytest.raises(PromptError, match=rf"'{word}' is not in the prompt .* \(it was truncated\)"):
            columns_of(prompt, word)


def test_words_are_cut_at_the_prompts_own_tokens() -> None:
    class Gluing:
        """Begins and ends with 0; letters are tokens, but "a b" is one."""

        model_max_length = 8

        def __call__(self, text: str, **kwargs: object) -> object:
            ids = [0, *map(ord, text.replace("a b", "#").replace(" ", "")), 0]
            return type("Encoded", (), {"input_ids": ids})

    assert [word.columns for word in tokenize("x yz", Gluing()).words] == [(1,), (2, 3)]
    with pytest.raises(PromptError, match="word 'a' in prompt 'x a b' run into the next word"):
        tokenize("x a b", Gluing())
