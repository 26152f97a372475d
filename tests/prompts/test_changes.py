"""The one notion of changed words."""

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.errors import PromptError
from p2p_bench.models import world_checkpoint
from p2p_bench.prompts.changes import changed_words, common_places, keeps_places
from p2p_bench.prompts.words import TokenizedPrompt, columns_of, split_words, tokenize, unknown_words
from tests.attention.rig import tokenizer


@cache
def world_prompt(text: str) -> TokenizedPrompt:
    """A prompt as the embedded world reads it: its tokenizer spells any letter in bytes."""
    return tokenize(text, world_checkpoint().tokenizer())


def pair(source: str, target: str) -> tuple[TokenizedPrompt, TokenizedPrompt]:
    return tokenize(source, tokenizer()), tokenize(target, tokenizer())


@pytest.mark.parametrize(
    ("source", "target", "removed", "added"),
    [
        (
            "a red circle and a blue square",
            "a blue circle and a red square",
            ("red", "blue"),
            ("blue", "red"),
        ),
        ("a cat on grass", 'A "cat" on grass.', (), ()),
        ("a red circle", "a circle red", ("red",), ("red",)),
        ("a cat and a cat", "a dog and a dog", ("cat",), ("dog",)),
        ("red green blue", "green blue fog", ("red",), ("fog",)),
    ],
)
def test_changed_words(source: str, target: str, removed: tuple, added: tuple) -> None:
    assert changed_words(*pair(source, target)) == (removed, added)


def test_a_swap_by_position_is_no_edit_of_words_that_move() -> None:
    assert keeps_places(*pair("a red circle and a blue square", "a blue circle and a red square"))
    assert keeps_places(*pair("fog a", "a a")), "as many words as can be keep their places"
    assert not keeps_places(*pair("a red circle on grass", "a circle on grass red"))
    assert not keeps_places(*pair("a circle", "a red circle"))


@given(*[st.lists(st.sampled_from("abc"), max_size=6)] * 2)
@settings(deadline=None, max_examples=100)
def test_common_places_are_in_order_and_of_equal_items(source: list[str], target: list[str]) -> None:
    places = common_places(source, target)
    assert all(source[i] == target[j] for i, j in places)
    for side in zip(*places, strict=True):
        assert list(side) == sorted(set(side))
    assert len(places) >= sum(a == b for a, b in zip(source, target, strict=False))
    assert len(common_places(target, source)) == len(places)


def test_letters_are_composed_and_keep_their_marks() -> None:
    composed = "a café, in fog"
    apart = unicodedata.normalize("NFD", composed)
    assert apart != composed
    assert world_prompt(apart) == world_prompt(composed)
    assert columns_of(world_prompt(composed), "cafe\u0301") == world_prompt(composed).words[1].columns
    # A vowel sign is no letter of its own and has no composed form.
    assert [word.bare for word in split_words("«हिन्दी», ni\u00f1o!")] == ["हिन्दी", "niño"]
    assert [word.bare for word in split_words("a 🐱.")] == ["a", "🐱"]


def test_apostrophes_match() -> None:
    straight, curly = world_prompt("the cat's red star"), world_prompt("the cat\u2019s red star")
    assert changed_words(straight, curly) == ((), ())
    assert columns_of(straight, "cat\u2019s") == straight.words[1].columns
    assert columns_of(curly, "cat's") == curly.words[1].columns
    assert changed_words(straight, world_prompt("the cats red star"))[1] == ("cats",)


def test_a_word_that_is_cut_through_is_not_there() -> None:
    text = " ".join(["red"] * 21 + ["orange,", "dog"])
    prompt = tokenize(text, tokenizer(), truncate=True)
    assert prompt.num_tokens == 22
    assert [word.bare for word in prompt.words] == ["red"] * 21
    with pytest.raises(PromptError, match=r"'orange' is not in the prompt .* \(it was truncated\)"):
        columns_of(prompt, "orange")


def test_unknown_words() -> None:
    known = {"a", "photo", "of", "circle"}
    assert unknown_words("A photo of a Cat, a cat and -- a circle.", known) == ("cat", "and")
    assert unknown_words("a photo of a cat", None) == ()


def test_a_prompt_that_is_too_long_for_its_unknown_words_says_so() -> None:
    text = "a photograph of a woman with long hair"
    with pytest.raises(PromptError, match="never trained on 'photograph', 'woman', 'long' and spells"):
        tokenize(text, tokenizer(), vocabulary={"a", "of", "with", "hair"})
    with pytest.raises(PromptError) as caught:
        tokenize(text, tokenizer())
    assert "trained" not in str(caught.value)
