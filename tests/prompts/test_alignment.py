import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.errors import PromptError
from p2p_bench.prompts.alignment import phrase_map, refinement_map, replacement_map, with_source
from p2p_bench.prompts.words import TokenizedPrompt, columns_of, tokenize
from tests.attention.rig import tokenizer
from tests.oracle import refinement_mapper, script_mapper, swap_mapper
from tests.prompts.tiny_tokenizer import PIECES

words = st.sampled_from([*PIECES])
same_length = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[st.lists(words, min_size=n, max_size=n).map(" ".join)] * 2)
)
any_length = st.tuples(*[st.lists(words, min_size=1, max_size=6).map(" ".join)] * 2)


def pair(source: str, target: str) -> tuple[TokenizedPrompt, TokenizedPrompt]:
    return tokenize(source, tokenizer()), tokenize(target, tokenizer())


@given(same_length, st.booleans())
@settings(deadline=None, max_examples=50)
def test_replacement_is_the_released_walk(prompts: tuple[str, str], as_released: bool) -> None:
    expected = swap_mapper(*prompts, tokenizer(), 24, as_released)
    assert torch.equal(replacement_map(*pair(*prompts), as_released), expected)


@given(same_length)
@settings(deadline=None, max_examples=50)
def test_replacement_keeps_the_mass_of_every_word(prompts: tuple[str, str]) -> None:
    source, target = pair(*prompts)
    M = replacement_map(source, target)
    for old, new in zip(source.words, target.words, strict=True):
        rows, columns = list(old.span), list(new.span)
        torch.testing.assert_close(M[rows][:, columns].sum(1), torch.ones(len(rows), dtype=torch.float64))
        assert M[rows].sum() == pytest.approx(len(rows))
        assert M[:, columns].sum() == pytest.approx(len(rows))


@given(words.map(lambda word: f"a {word} on grass"))
@settings(deadline=None, max_examples=50)
def test_a_prompt_replaced_by_itself_is_left_alone(prompt: str) -> None:
    assert torch.equal(replacement_map(*pair(prompt, prompt)), torch.eye(24, dtype=torch.float64))


def test_a_swap_of_unequal_token_counts() -> None:
    # source: begin 0, a 1, circle 2, on 3, grass 4, end 5; target: striped 2 3 4, on 5, grass 6, end 7
    source, target = pair("a circle on grass", "a striped on grass")
    M = replacement_map(source, target)
    assert M[2, 2:5].tolist() == [1 / 3] * 3
    assert (M[3, 5], M[4, 6], M[5, 7]) == (1, 1, 1)
    assert M[:, 5].sum() == 1
    released = replacement_map(source, target, as_released=True)
    assert torch.equal(released[:, :5], M[:, :5])
    # The slip: after the last swapped word column j gets source column j, "on" the end of the source.
    assert torch.equal(released[5:, 5:], torch.eye(24, dtype=torch.float64)[5:, 5:])
    assert not released[3].any()


def test_words_of_another_case_are_swapped_as_released() -> None:
    """The slip comes after the last word that is written differently, here "Grass"."""
    prompts = "a circle on Grass and", "a striped on grass and"
    released = replacement_map(*pair(*prompts), as_released=True)
    assert torch.equal(released, swap_mapper(*prompts, tokenizer(), 24, True))
    assert (released[3, 5], released[4, 6], released[7, 7]) == (1, 1, 1)  # on, grass; then j to j


def test_the_slip_needs_unequal_token_counts() -> None:
    source, target = pair("a red circle on grass", "a blue circle on sand")
    M = replacement_map(source, target)
    assert torch.equal(M, replacement_map(source, target, as_released=True))


def test_unequal_word_counts_are_refused_for_replacement() -> None:
    with pytest.raises(PromptError, match="'a red circle' has 3, 'a circle' has 2; use refine"):
        replacement_map(*pair("a red circle", "a circle"))


@given(any_length)
@settings(deadline=None, max_examples=50)
def test_refinement_is_the_released_alignment(prompts: tuple[str, str]) -> None:
    source, target = pair(*prompts)
    mapper, alphas = refinement_mapper(source.encoded, target.encoded, 24)
    P, aligned = refinement_map(source, target, as_released=True)
    assert torch.equal(aligned, alphas)
    assert torch.equal(P, torch.eye(24, dtype=torch.float64)[:, mapper] * alphas)


@given(any_length)
@settings(deadline=None, max_examples=50)
def test_refinement_pairs_equal_tokens_in_order(prompts: tuple[str, str]) -> None:
    source, target = pair(*prompts)
    P, aligned = refinement_map(source, target)
    pairs = P[:, : len(target.encoded)].nonzero()
    assert all(source.ids[i] == target.ids[j] for i, j in pairs.tolist())
    order = P.T[: len(target.encoded)].nonzero()[:, 1]
    assert (order.diff() > 0).all()
    kept = torch.arange(24) >= len(source.encoded)
    assert torch.equal(aligned[len(target.encoded) :] == 1, kept[len(target.encoded) :])


def test_new_words_have_no_source() -> None:
    P, aligned = refinement_map(*pair("a circle on grass", "a red circle on grass"))
    assert aligned.nonzero().flatten().tolist() == [0, 1, *range(3, 24)]
    assert P[2, 3] == 1  # circle
    assert P[5, 6] == 1  # end


def test_padding_of_a_shorter_target_takes_columns_of_source_words_only_as_released() -> None:
    source, target = pair("a red circle on grass", "a circle")
    assert (len(source.encoded), len(target.encoded)) == (7, 4)
    assert source.words[3].columns == (4,)
    eye = torch.eye(24, dtype=torch.float64)
    released, _ = refinement_map(source, target, as_released=True)
    assert torch.equal(released[:, 4:], eye[:, 4:])
    P, aligned = refinement_map(source, target)
    assert torch.equal(P[:, :4], released[:, :4])
    assert not P[:, 4:7].any()
    assert torch.equal(P[:, 7:], eye[:, 7:])
    assert aligned.tolist() == [1] * 4 + [0] * 3 + [1] * 17


SCRIPTS = {
    "phrases of unequal length": (
        {"red circle": "small blue square"},
        False,
        [("a", "a"), ("red circle", "small blue square"), ("on", "on"), ("grass", "grass")],
    ),
    "a new word besides": (
        {"circle": "hexagon"},
        False,
        [("a red", "a red"), ("", "striped"), ("circle", "hexagon"), ("on grass", "on grass")],
    ),
    "words that are not named keep their own columns": (
        {"circle": "square"},
        False,
        [("a", "a"), ("red", ""), ("", "blue"), ("circle", "square"), ("on grass", "on grass")],
    ),
    "aligned, word by word": (
        None,
        True,
        [("a", "a"), ("red", "blue"), ("circle", "hexagon"), ("on grass", "on grass")],
    ),
    "aligned, as a phrase": (
        None,
        True,
        [("a", "a"), ("red circle", "striped orange square"), ("on grass", "on grass")],
    ),
    "aligned, with words added and dropped": (
        None,
        True,
        [("a", "a"), ("red", ""), ("circle", "circle"), ("on", "on"), ("", "the"), ("grass", "grass")],
    ),
    "named words anchor the rest": (
        {"circle": "bear"},
        True,
        [("a", "a"), ("red", "striped orange"), ("circle", "bear"), ("on", "in"), ("grass", "fog")],
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_phrases_are_swapped_as_written_by_hand(name: str) -> None:
    phrases, swap_rest, script = SCRIPTS[name]
    texts = [" ".join(part for part in side if part) for side in zip(*script, strict=True)]
    M, aligned = phrase_map(*pair(*texts), phrases, swap_rest)
    mapper, alphas = script_mapper(script, tokenizer(), 24)
    assert torch.equal(M, mapper)
    assert torch.equal(aligned, alphas)


def test_phrases_may_change_places() -> None:
    source, target = pair("a cat and a dog", "a bear and a circle")
    M, _ = phrase_map(source, target, {"cat": "circle", "dog": "bear"})
    assert (M[2, 5], M[5, 2]) == (1, 1)
    assert M.sum() == 24


@given(same_length, st.booleans())
@settings(deadline=None, max_examples=50)
def test_phrase_map_of_one_phrase_each_keeps_its_mass(prompts: tuple[str, str], swap_rest: bool) -> None:
    source, target = pair(*prompts)
    M, aligned = phrase_map(source, target, {prompts[0]: prompts[1]}, swap_rest)
    rows, columns = [list(range(1, prompt.num_tokens + 1)) for prompt in (source, target)]
    torch.testing.assert_close(M[rows][:, columns].sum(1), torch.ones(len(rows), dtype=torch.float64))
    assert aligned.all()


@given(any_length)
@settings(deadline=None, max_examples=50)
def test_aligned_swap_has_a_source_or_own_maps_for_every_word(prompts: tuple[str, str]) -> None:
    source, target = pair(*prompts)
    M, aligned = phrase_map(source, target, swap_rest=True)
    words = slice(1, target.num_tokens + 1)
    assert torch.equal(M.any(0)[words], aligned[words].bool())
    assert torch.equal(phrase_map(source, source, swap_rest=True)[0], torch.eye(24, dtype=torch.float64))


@pytest.mark.parametrize(
    ("prompts", "phrases", "message"),
    [
        (("a cat", "a dog"), {"bear": "dog"}, "'bear' is not in the prompt 'a cat'"),
        (("a cat", "a dog"), {"cat": "bear"}, "'bear' is not in the prompt 'a dog'"),
        (("a cat and a cat", "a dog"), {"cat": "dog"}, "'cat' occurs 2 times in .*'dog' 1 times"),
        (
            ("a red cat", "a dog"),
            {"red cat": "dog", "cat": "dog"},
            "word 'cat' of 'a red cat' belongs to two",
        ),
    ],
)
def test_phrases_that_cannot_be_swapped_are_refused(
    prompts: tuple[str, str], phrases: dict[str, str], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        phrase_map(*pair(*prompts), phrases)


def place(matrix: torch.Tensor, old: tuple[TokenizedPrompt, str], new: tuple[TokenizedPrompt, str]) -> float:
    """What the first column of one word gives to that of another; "." is the last token."""
    i, j = (prompt.num_tokens if word == "." else columns_of(prompt, word)[0] for prompt, word in (old, new))
    return float(matrix[i, j])


MAPS = {
    "replace": lambda s, t: replacement_map(s, t),
    "align": lambda s, t: phrase_map(s, t, swap_rest=True)[0],
    "words": lambda s, t: phrase_map(s, t, {"cat": "dog"})[0],
    "refine": lambda s, t: refinement_map(s, t)[0],
}


@pytest.mark.parametrize("name", MAPS)
def test_a_full_stop_goes_to_a_full_stop_and_leaves_its_word_alone(name: str) -> None:
    source, target = pair("a cat, on grass.", "a dog, on grass.")
    M = MAPS[name](source, target)
    assert place(M, (source, "grass"), (target, "grass")) == 1
    assert place(M, (source, "."), (target, ".")) == 1
    comma = 3
    assert M[comma, comma] == (name != "refine")


@pytest.mark.parametrize("name", MAPS)
def test_a_full_stop_of_one_side_is_no_swap(name: str) -> None:
    for stops in (("", "."), (".", "")):
        source, target = pair(*(text + stop for text, stop in zip(("a cat", "a dog"), stops, strict=True)))
        source, target = pair(f"{source.text} on grass{stops[0]}", f"{target.text} on grass{stops[1]}")
        M = MAPS[name](source, target)
        assert place(M, (source, "grass"), (target, "grass")) == 1
        assert M[:, columns_of(target, "grass")[0]].sum() == 1
        if stops[1]:
            assert not M[:, target.num_tokens].any(), "a new full stop keeps its own map"
        end = source.num_tokens + 1, target.num_tokens + 1
        assert M[end] == 1


def test_a_new_full_stop_keeps_its_own_map_under_replacement() -> None:
    source, target = pair("a cat on grass", "a dog on grass.")
    aligned = with_source(replacement_map(source, target), target)
    assert aligned.eq(0).nonzero().flatten().tolist() == [target.num_tokens]
    released = replacement_map(source, target, as_released=True)
    assert released[columns_of(source, "grass")[0], target.num_tokens] == 0.5, "as released: half and half"


def test_punctuation_within_a_phrase_belongs_to_it() -> None:
    source, target = pair("a red, small cat on grass", "a blue, small dog on grass")
    M, aligned = phrase_map(source, target, {"red small cat": "blue small dog"})
    assert torch.equal(M, torch.eye(24, dtype=torch.float64))
    assert aligned.all()


def test_pieces_are_no_words_unless_as_released() -> None:
    """Of "dots dotted" the refinement to "dotted" keeps the second word; the released one mixes both."""
    source, target = pair("dots dotted", "dotted")
    P, _ = refinement_map(source, target)
    kept = columns_of(source, "dotted")
    assert all(P[i, j] == 1 for i, j in zip(kept, columns_of(target, "dotted"), strict=True))
