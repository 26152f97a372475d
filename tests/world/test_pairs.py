"""World pairs: reproducible, legal, with exact answers."""

import json

import pytest

from p2p_bench.resources import resource_path
from p2p_bench.world.scenes import Scene, caption, held_out
from p2p_bench.world.scenes.pairs import CATEGORIES, demo_pairs, make_pairs


def test_the_shipped_file_is_what_the_function_makes() -> None:
    lines = resource_path("datasets", "world_pairs", "demo.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = demo_pairs()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(pair.to_dict())) for pair in pairs]
    assert len(pairs) >= 40
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert sum(pair.real for pair in pairs) == 12
    assert {pair.category for pair in pairs} == set(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_pairs_differ_in_what_their_category_says(category: str) -> None:
    for pair in make_pairs(12, seed=3, real=True, categories=(category,)):
        source, target = pair.source_prompt.split(), pair.target_prompt.split()
        assert pair.source_prompt == caption(pair.scene)
        for item in (*pair.scene.objects, *pair.answer().objects):
            assert not held_out(item.shape, item.colour, item.pattern)
        assert pair.answer() != pair.scene
        if category.startswith("swap"):
            assert len(source) == len(target)
            assert sum(a != b for a, b in zip(source, target, strict=True)) == 1
        elif category == "reweight":
            assert source == target
            assert set(pair.word_weights) <= set(target)
            assert pair.word_weights
        else:
            assert len(target) > len(source)
            assert [w for w in target if w in source] != []
            assert pair.target_prompt == caption(pair.answer())
        if pair.blend_words is not None:
            assert set(pair.blend_words[0]) <= set(source)
            assert set(pair.blend_words[1]) <= set(target)


def test_pairs_depend_on_their_seed_and_survive_json() -> None:
    assert make_pairs(7, seed=1) == make_pairs(7, seed=1)
    assert make_pairs(7, seed=1) != make_pairs(7, seed=2)
    pair = make_pairs(1, seed=1)[0]
    assert Scene.from_dict(json.loads(json.dumps(pair.to_dict()))["scene"]) == pair.scene


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'swap_colour'"):
        make_pairs(1, seed=0, categories=("swap_color",))
    with pytest.raises(ValueError, match="empty"):
        make_pairs(1, seed=0, categories=())
