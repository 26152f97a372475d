"""Maps of prompts by the word pieces that CLIP was published with, with all that people write."""

import gzip
import json
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from p2p_bench.prompts.alignment import refinement_map, replacement_map
from p2p_bench.prompts.changes import unchanged_places
from p2p_bench.prompts.words import TokenizedPrompt, tokenize
from tests.oracle import refinement_mapper, swap_mapper

_MERGES = 48_894
"""Lines of the published file that are merges, behind its first line."""

TEXT = """
cat cat, Cat dog a the in red-haired man's caf\u00e9 3D 50% $5 C++ don't "quoted" (paren) and/or e.g. 1,000
I'm na\u00efve \u732b \u8d64\u3044\u732b \U0001f44d\U0001f3fb \U0001f469\u200d\U0001f680 ... \u2014
ultra-HD \u00df \ufb01ne \u0939\u093f\u0928\u094d\u0926\u0940 a\u0301 _under_ **b** photorealistic
watercolor lasagna
"""
WRITTEN = TEXT.split()
words = st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=8)
"""Words of a prompt."""


@cache
def clip() -> CLIPTokenizer:
    """CLIP's tokenizer, from the merges that open_clip carries."""
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode().split("\n")[1 : 1 + _MERGES]
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + place) for place in range(256 - len(printed)))
    letters = [*map(chr, printed), *others]
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(one.split()) for one in merges)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        known = {symbol: number for number, symbol in enumerate(symbols)}
        Path(folder, "vocab.json").write_text(json.dumps(known))
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def read(words: list[str]) -> TokenizedPrompt:
    return tokenize(" ".join(words), clip(), truncate=True)


def test_its_tokens_are_the_published_ones() -> None:
    assert clip()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@given(words, words)
@settings(deadline=None, max_examples=60)
def test_unchanged_words_keep_their_maps_and_new_ones_their_own(old: list[str], new: list[str]) -> None:
    source, target = read(old), read(new)
    P, aligned = refinement_map(source, target)
    kept = unchanged_places(source, target)
    for i, j in kept:
        rows, columns = list(source.words[i].columns), list(target.words[j].columns)
        assert torch.allclose(P[rows][:, columns].sum(), P[:, columns].sum())
        assert torch.allclose(P[rows][:, columns].sum(1), torch.ones(len(rows), dtype=torch.float64))
    changed = [word for place, word in enumerate(target.words) if place not in {j for _, j in kept}]
    assert not aligned[[column for word in changed for column in word.columns]].any()
    assert P[source.end, target.end] == P[0, 0] == 1


@given(words, st.data())
@settings(deadline=None, max_examples=60)
def test_as_released_they_are_the_released_maps(old: list[str], data: st.DataObject) -> None:
    new = [data.draw(st.sampled_from([word, *WRITTEN])) for word in old]
    source, target = read(old), read(new)
    mapper, alphas = refinement_mapper(source.encoded, target.encoded, 77)
    P, aligned = refinement_map(source, target, as_released=True)
    assert torch.equal(aligned, alphas)
    assert torch.equal(P, torch.eye(77, dtype=torch.float64)[:, mapper] * alphas)
    expected = swap_mapper(source.text, target.text, clip(), 77, as_released=True)
    assert torch.equal(replacement_map(source, target, as_released=True), expected)
