"""The words of a checkpoint are a property of its directory."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest

import p2p_bench as p2p
from p2p_bench.errors import P2PError
from p2p_bench.models import UNetCheckpoint, world_checkpoint
from p2p_bench.models.vocabulary import VOCABULARY_FILE, never_seen, never_seen_message, write_vocabulary
from p2p_bench.world.scenes.captions import CAPTION_WORDS
from tests.models.tiny import tiny_checkpoint, tiny_model


def test_the_world_knows_the_words_of_its_captions() -> None:
    spec = world_checkpoint().spec()
    assert spec.vocabulary == frozenset(CAPTION_WORDS)
    assert never_seen(spec, ["a photo of a cat", "A Dog on grass."]) == ("cat", "dog")
    message = never_seen_message(spec, ("cat", "cirle"))
    assert message.startswith("model 'world' was never trained on 'cat', 'cirle' (did you mean 'circle'?)")
    assert f"it knows {len(CAPTION_WORDS)} words: a, and, black, " in message
    assert "model=local model.path=DIR" in message


def test_a_checkpoint_without_a_list_says_nothing(tmp_path: Path) -> None:
    spec = tiny_checkpoint().spec()
    assert spec.vocabulary is None
    assert never_seen(spec, ["a zebra"]) == ()
    folder = shutil.copytree(tiny_checkpoint().path, tmp_path / "model")
    write_vocabulary(folder, ["cat", "a", "a"])
    listed = UNetCheckpoint(folder, "listed").spec()
    assert listed.vocabulary == {"a", "cat"}
    assert listed.checksum == spec.checksum, "it decides no number"
    for text in ("[]", '{"words": []}', '{"words": [1]}', "{"):
        (folder / VOCABULARY_FILE).write_text(text)
        with pytest.raises(P2PError, match="model 'listed'"):
            UNetCheckpoint(folder, "listed").spec()


def test_an_edit_warns_of_words_that_the_model_never_saw(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    known = dataclasses.replace(
        model, spec=dataclasses.replace(model.spec, vocabulary=frozenset(["a", "red", "cat"]))
    )
    with caplog.at_level(logging.WARNING, "p2p_bench"):
        p2p.edit(model, "a red zebra", "a blue zebra", steps=1)
        p2p.edit(known, "a cat", "a red cat", steps=1)
        assert not caplog.records
        p2p.edit(known, "a zebra", ["a red zebra", "a dog"], steps=1)
    (record,) = caplog.records
    assert "was never trained on 'zebra', 'dog'" in record.getMessage()
