"""Learns the byte-pair tokenizer of the captions and writes it in CLIP's format."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MAX_TOKENS = 24


def learn_merges(captions: Iterable[str], max_piece: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) of space-separated words.

    Args:
        captions: lower-case ASCII text.
        max_piece: most letters in a token; longer words stay in two or more tokens.

    Returns:
        Merges in the order learnt; ties go to the alphabetically first pair.
    """
    counts = Counter(word for text in captions for word in text.split())
    words = {word: (*word[:-1], word[-1] + WORD_END) for word in counts}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in words.items():
            for pair in itertools.pairwise(pieces):
                if len("".join(pair).removesuffix(WORD_END)) <= max_piece:
                    pairs[pair] += counts[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _merge(pieces, best) for word, pieces in words.items()}


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def write_tokenizer(captions: Iterable[str], max_piece: int, out_dir: Path) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    The vocabulary holds all bytes, all bytes at a word's end, the merges, and last the start and
    end tokens, so that the end token has the highest id (CLIP pools at the highest id).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(captions, max_piece)
    byte_symbols = sorted(ByteLevel.alphabet())
    symbols = [*byte_symbols, *(symbol + WORD_END for symbol in byte_symbols)]
    symbols += dict.fromkeys(left + right for left, right in merges)
    symbols = [*list(dict.fromkeys(symbols)), START, END]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
    }
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    _write_json(out_dir / "vocab.json", vocabulary)
    (out_dir / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(out_dir / "tokenizer_config.json", settings)
    _write_json(out_dir / "special_tokens_map.json", special)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
