"""What a row says although it is `ok`: unknown words, cut prompts, values that are missing."""

import json
import math
from dataclasses import replace

import torch

from p2p_bench.bench.notes import edit_notes, warn_of_unknown_words
from p2p_bench.bench.tally import missing_values, note_counts
from p2p_bench.controllers import ByEdit, Compose, LocalBlend, NoControl, Replace, paper, pie
from p2p_bench.metrics.base import EditView, MetricColumn, Undefined, evaluate
from p2p_bench.prompts.words import tokenize
from p2p_bench.types import EditPair
from tests.models.tiny import tiny_checkpoint

CHECKPOINT = tiny_checkpoint()
WEIGHTED = EditPair("w", "a cat in fog", ("a cat in fog",), word_weights={"fog": 2.0})
LONG = "a red cat and a blue dog on the soft green grass and a cat a star"


class Partly:
    """Scores one edit of two."""

    columns = (MetricColumn("whole", True), MetricColumn("partly", True))

    def check(self):
        """Needs nothing."""

    def __call__(self, views):
        """Undefined where the target is long."""
        return [{"whole": 1.0, "partly": self.value(view)} for view in views]

    def value(self, view):
        """The value of one view."""
        return Undefined("too long") if len(view.target_prompt) > 20 else 2.0


def test_notes_of_an_edit():
    spec = CHECKPOINT.spec()
    assert edit_notes(spec, WEIGHTED, 0, ByEdit()) == ""
    assert "word weights are not used" in edit_notes(spec, WEIGHTED, 0, Replace())
    assert "word weights are not used" in edit_notes(spec, WEIGHTED, 0, NoControl())
    prompts = [tokenize(text, CHECKPOINT.tokenizer(), truncate=True) for text in ("a cat", LONG)]
    notes = edit_notes(spec, EditPair("a", "a cat", (LONG,)), 0, ByEdit(), prompts)
    assert notes == "target prompt cut after 'a'"
    prompts = [tokenize(text, CHECKPOINT.tokenizer()) for text in ("a cat", "a \u732b")]
    notes = edit_notes(spec, EditPair("a", "a cat", ("a \u732b",)), 0, ByEdit(), prompts)
    assert notes == "the tokenizer has no token for '\u732b' of the target prompt"


def test_blend_words_that_a_control_passes_by_leave_a_note():
    told = "the pair's blend words are not used by this controller"
    blended = EditPair("b", "a cat in fog", ("a dog in fog",), blend_words=(("cat",), ("dog",)))
    spec = CHECKPOINT.spec()
    for reads in (
        LocalBlend(ByEdit()),
        pie(),
        paper(),
        Compose([Replace(), LocalBlend(ByEdit())]),
        NoControl(),
    ):
        assert edit_notes(spec, blended, 0, reads) == ""
    mask = torch.ones(4, 4)
    for passes in (ByEdit(), Replace(), LocalBlend(Replace(), words="fog"), LocalBlend(Replace(), mask=mask)):
        assert edit_notes(spec, blended, 0, passes) == told
    for silent in (replace(blended, blend_words=((), ())), replace(blended, scene={})):
        assert edit_notes(spec, silent, 0, ByEdit()) == ""


def test_an_undefined_value_is_nan_with_its_reason():
    pictures = torch.rand(2, 3, 4, 4)
    views = [EditView(*pictures, "a cat", target) for target in ("a dog", "a dog that is very fluffy")]
    short, long = evaluate({"partly": Partly()}, views)
    assert short == {"whole": 1.0, "partly": 2.0}
    assert math.isnan(long["partly"])
    assert long["partly"].reason == "too long"


def test_missing_values_and_notes_are_counted():
    rows = [
        {"missing": json.dumps({"x": "too long", "y": "too long"}), "notes": "one; two"},
        {"missing": json.dumps({"x": "too long"}), "notes": "two"},
        {"missing": json.dumps({"x": "empty"}), "notes": ""},
        {"missing": "", "notes": ""},
        {"missing": None, "notes": None},
        {},
    ]
    assert missing_values(rows) == {"x": {"too long": 2, "empty": 1}, "y": {"too long": 1}}
    assert note_counts(rows) == {"two": 2, "one": 1}


def test_nobody_warns_of_words_where_none_are_known(caplog):
    warn_of_unknown_words(CHECKPOINT.spec(), [EditPair("a", "a zebra", ("a zebu",))])
    assert not caplog.records
