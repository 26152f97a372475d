"""The tokenizer: learnt from captions, readable by CLIP's own class."""

from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

from p2p_bench.resources import resource_path
from p2p_bench.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    PATTERNS,
    SHAPES,
    STYLES,
    WEATHERS,
    caption,
    sample_scene,
)
from p2p_bench.world.training.tokenizer import MAX_TOKENS, learn_merges, write_tokenizer

WORDS = (*SHAPES, *COLOURS, *PATTERNS, *BACKGROUNDS, *STYLES, *WEATHERS)


@pytest.fixture(scope="module")
def shipped() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(
        resource_path("p2p_bench", "world", "weights", "pipeline", "tokenizer")
    )


def test_merges_join_the_most_frequent_pair_first() -> None:
    merges = learn_merges(["abab abab cd"], max_piece=4)
    assert merges[0] == ("a", "b")
    assert merges[-1] == ("c", "d</w>")
    assert learn_merges(["abab"], max_piece=2) == [("a", "b"), ("a", "b</w>")]


def test_the_end_token_is_the_last_and_pads(shipped: CLIPTokenizer) -> None:
    assert shipped.eos_token_id == len(shipped) - 1 == shipped.pad_token_id
    assert shipped.bos_token_id == len(shipped) - 2
    assert shipped.model_max_length == MAX_TOKENS
    ids = shipped("a red circle", padding="max_length").input_ids
    assert len(ids) == MAX_TOKENS
    assert ids[0] == shipped.bos_token_id
    assert ids[4] == shipped.eos_token_id


def test_some_words_take_several_tokens_and_captions_fit(shipped: CLIPTokenizer) -> None:
    counts = {word: len(shipped(word).input_ids) - 2 for word in WORDS}
    assert counts["circle"] == counts["red"] == 1
    assert sum(count > 1 for count in counts.values()) >= 4
    longest = "a vintage of a tangerine checkered triangle and a turquoise bordered crescent on grass in snow"
    assert len(shipped(longest).input_ids) <= MAX_TOKENS


def test_text_comes_back(shipped: CLIPTokenizer) -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        text = caption(sample_scene(seed, styled=0.5, weathered=0.5), rng)
        assert shipped.decode(shipped(text).input_ids, skip_special_tokens=True).strip() == text
    assert (
        shipped.decode(shipped("An Unseen word?").input_ids, skip_special_tokens=True).strip()
        == "an unseen word ?"
    )


def test_a_new_tokenizer_loads(tmp_path: Path) -> None:
    write_tokenizer(["a red circle on grass", "a blue circle on sand"], 5, tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a red circle") == ["a</w>", "red</w>", *tokenizer.tokenize("circle")]
    assert len(tokenizer.tokenize("circle")) == 2
    assert tokenizer.eos_token_id == len(tokenizer) - 1
