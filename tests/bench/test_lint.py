"""Pairs are checked with the tokenizer alone."""

import dataclasses

import pytest

from p2p_bench.bench.lint import lint_pairs, refuse_if_hopeless
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import ByEdit, InjectWords, LocalBlend, NoControl, Replace, Reweight, SelfAttention
from p2p_bench.errors import ErrorList
from p2p_bench.types import EditPair
from tests.models.tiny import tiny_checkpoint

NONE = Variant("none", NoControl(), "none")
REPLACE = Variant("swap", Replace(), "replace")
AUTO = Variant("auto", ByEdit(), "auto")


def lint(pairs, variants=(NONE, REPLACE, AUTO), vocabulary=None, **options):
    """Faults for the tiny model's tokenizer."""
    checkpoint = tiny_checkpoint()
    reader = dataclasses.replace(checkpoint.reader(), vocabulary=vocabulary and frozenset(vocabulary))
    return lint_pairs(pairs, variants, reader, checkpoint.spec(), steps=4, **options)


def test_good_pairs_have_no_faults():
    assert lint([EditPair("a", "a red cat", ("a blue cat", "a blue dog"), word_weights={})]) == {}


def test_a_fault_belongs_to_the_variant_that_cannot_make_the_edit():
    faults = lint([EditPair("a", "a cat", ("a dog", "a red cat"))])
    assert list(faults) == [("a", "swap", 1)]
    assert "variant 'swap': " in faults["a", "swap", 1]


def test_word_weights_concern_who_obeys_them():
    faults = lint([EditPair("a", "a cat", ("a dog",), word_weights={"fog": 2.0})])
    assert list(faults) == [("a", "auto", 0)]
    assert "'fog' is not in the prompt 'a dog'" in faults["a", "auto", 0]


def test_a_bad_source_concerns_all_and_a_bad_target_itself():
    long = "a cat and a dog " * 5
    faults = lint(
        [EditPair("a", long, ("a dog", "a cat")), EditPair("b", "a cat", ("a dog", long))], [NONE, AUTO]
    )
    assert list(faults) == [
        ("a", "none", 0), ("a", "none", 1), ("a", "auto", 0), ("a", "auto", 1),
        ("b", "none", 1), ("b", "auto", 1),
    ]  # fmt: skip
    assert faults["a", "none", 0].startswith("source prompt ")
    assert faults["b", "none", 1].startswith("target prompt ")
    assert lint([EditPair("a", long, ("a dog",))], [NONE], truncate=True) == {}


def test_missing_files_are_named(tmp_path):
    image = tmp_path / "image.png"
    pairs = [EditPair("a", "a cat", ("a dog",), image=image, mask=tmp_path / "mask.png")]
    assert "image.png is missing" in lint(pairs, [NONE])["a", "none", 0]
    image.touch()
    assert "mask.png is missing" in lint(pairs, [NONE])["a", "none", 0]


def test_a_variant_that_suits_no_pair_stops_the_run():
    pairs = [EditPair(f"p{number}", "a cat", ("a red cat",)) for number in range(14)]
    faults = lint(pairs)
    with pytest.raises(ErrorList) as caught:
        refuse_if_hopeless(pairs, [NONE, REPLACE], faults)
    assert len(caught.value.errors) == 11
    assert "pair 'p0', variant 'swap'" in str(caught.value)
    assert "and 4 more" in str(caught.value)
    refuse_if_hopeless(pairs, [NONE], faults)
    refuse_if_hopeless([*pairs, EditPair("good", "a cat", ("a dog",))], [NONE, REPLACE], faults)


HEAD = "a red cat and a blue dog on the soft green grass and "
"""Eleven of the fourteen tokens that the tiny model reads."""


def faults_of(pair, controller):
    """The fault of the only edit of a pair, cut; "" if there is none."""
    return lint([pair], [Variant("x", controller, "x")], truncate=True).get((pair.id, "x", 0), "")


@pytest.mark.parametrize("controller", [NoControl(), ByEdit(), Replace(), Reweight({"cat": 2.0})])
def test_a_difference_past_the_cut_is_no_edit(controller):
    lost = EditPair("a", HEAD + "a cat a cat", (HEAD + "a cat a star",), word_weights={"cat": 2.0})
    assert "differ only where they were cut: the model reads 14 tokens" in faults_of(lost, controller)
    kept = EditPair("a", HEAD + "a cat a cat", (HEAD.replace("cat", "star") + "a cat a star",))
    assert faults_of(kept, controller) == "" or "'cat' is not" in faults_of(kept, controller)
    same = EditPair("a", HEAD + "a cat a cat", (HEAD + "a cat a cat",), word_weights={"cat": 2.0})
    assert faults_of(same, controller) == "", "a pair that is meant to have equal prompts has lost nothing"


@pytest.mark.parametrize(
    "controller",
    [
        LocalBlend(ByEdit(), words="star"),
        Reweight({"star": 2.0}),
        Replace(words={"star": "star"}),
        InjectWords("star"),
        ByEdit({"default_": 0.8, "star": 0.2}),
        ByEdit(weights={"star": 2.0}),
    ],
)
def test_words_of_a_controller_are_not_cut_off(controller):
    pair = EditPair("a", HEAD + "a cat a star", ("the" + HEAD[1:] + "a cat a star",))
    assert "'star' is not in the prompt" in faults_of(pair, controller)
    assert "(it was truncated)" in faults_of(pair, controller)


def test_equal_prompts_need_something_that_edits():
    equal = EditPair("a", "a red cat", ("a red cat",))
    for controller in (NoControl(), ByEdit(), Replace(), SelfAttention(0.5), Reweight({"cat": 1.0})):
        assert "nothing is weighted, so there is nothing to edit" in faults_of(equal, controller)
    assert faults_of(equal, Reweight({"cat": 2.0})) == ""
    weighted = EditPair("a", "a red cat", ("a red cat",), word_weights={"cat": 2.0})
    assert faults_of(weighted, NoControl()) == "", "what re-weighting is compared with"


def test_prompts_that_are_read_alike_need_something_that_edits():
    for source, target in (("a red cat", "A  RED cat"), ("a red cat", "a red cat ")):
        assert "alike, so there is nothing to edit" in faults_of(EditPair("a", source, (target,)), ByEdit())
        assert faults_of(EditPair("a", source, (target,)), Reweight({"cat": 2.0})) == ""
    assert faults_of(EditPair("a", "a red cat", ("a red cat.",)), ByEdit()) == "", "punctuation is read"


def test_unknown_words_are_the_likely_cause_of_length():
    pair = EditPair("a", "a cat", ("a photorealistic elephant",))
    (reason,) = lint([pair], [NONE], vocabulary={"a", "cat"}).values()
    assert "never trained on 'photorealistic', 'elephant' and spells them out" in reason
