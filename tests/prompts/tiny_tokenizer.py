"""A small tokenizer in CLIP's format, with words of one and of several tokens."""

import json
from pathlib import Path

from transformers import CLIPTokenizer

WORDS = """
a an the in on of and with red blue green fog snow dog cat bear circle square star grass sand
"""
PIECES = {
    **dict.fromkeys(WORDS.split(), 1),
    "orange": 2,
    "hexagon": 2,
    "striped": 3,
    "watercolor": 3,
}
"""Number of tokens of every word; any other word has a token per letter."""


def build_tokenizer(folder: Path, width: int = 24) -> CLIPTokenizer:
    """Write vocab.json and merges.txt for `PIECES` and load them."""
    merges: list[tuple[str, str]] = []
    for word, pieces in PIECES.items():
        while len(parts := _split(word, merges)) > pieces:
            merges.append((parts[0], parts[1]))
    letters = [chr(code) for code in range(33, 127)]
    symbols = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=width)


def _split(word: str, merges: list[tuple[str, str]]) -> list[str]:
    parts = [*word[:-1], word[-1] + "</w>"]
    for a, b in merges:
        place = 0
        while place < len(parts) - 1:
            if (parts[place], parts[place + 1]) == (a, b):
                parts[place : place + 2] = [a + b]
            place += 1
    return parts
