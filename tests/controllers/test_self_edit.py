"""Laws of edits of self-attention."""

from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import mutual_attention, self_injection
from p2p_bench.controllers.self_edit import (
    EVERY_LAYER,
    NO_SELF_EDIT,
    SelfEdit,
    image_queries,
    injection,
    join,
    layer_range,
    mutual,
    override,
)

SITES = [
    Site(f"{level} {layer} {layers}", "self", level, "up", 2, 8, layer, layers)
    for level in (0, 1, 2, 5)
    for layers in (1, 7, 16, 20)
    for layer in range(layers)
]
"""Any network has sites like these."""

# Strategies give recipes and tests make the edits: type checks draw random items, which strategies must not.
Layer = tuple[bool, int, int]
LayerInjection = tuple[str, bool, int, int]
Recipe = list[tuple[str, float] | Layer | LayerInjection]

sixteenths = st.tuples(*[st.integers(0, 16)] * 2).filter(lambda ends: ends[0] < ends[1])
by_share = sixteenths.map(lambda ends: (True, *ends))
by_index = sixteenths.map(lambda ends: (False, *ends))
injections = st.sampled_from([("inject", fraction) for fraction in (1.0, 0.5, 0.3, 0.25, 0.06)])


def recipes(
    layers: st.SearchStrategy[Layer], *more: st.SearchStrategy[LayerInjection]
) -> st.SearchStrategy[Recipe]:
    """Edits that are laid one over the other; none at all is no edit."""
    return st.lists(st.one_of(injections, layers, *more), max_size=3)


def with_layers(layers: st.SearchStrategy[Layer]) -> st.SearchStrategy[Recipe]:
    """The same, and injection at some layers of all sizes."""
    return recipes(layers, layers.map(lambda one: ("at", *one)))


def made(recipe: Recipe) -> SelfEdit:
    result = NO_SELF_EDIT
    for part in recipe:
        if part[0] == "inject":
            result = override(result, injection(part[1]))
            continue
        by_share, start, stop = part[-3:]
        scale = 1 / 16 if by_share else 1.0
        layers = layer_range(start * scale, stop * scale, bool(by_share))
        result = override(result, injection(1.0, layers) if part[0] == "at" else mutual(layers))
    return result


def same_everywhere(a: SelfEdit, b: SelfEdit) -> bool:
    return all(a.terms(site) == b.terms(site) for site in SITES)


def test_single_edits() -> None:
    last = Site("x", "self", 1, "up", 2, 8, layer=15, layers=16)
    tenth = Site("x", "self", 1, "up", 2, 8, layer=10, layers=16)
    ninth = Site("x", "self", 1, "up", 2, 8, layer=9, layers=16)
    assert injection(0.5).terms(last) == self_injection()
    assert injection(0.49).terms(last) is None
    for layers in (layer_range(0.625, 1.0, True), layer_range(10.0, float("inf"), False)):
        assert [mutual(layers).terms(site) for site in (ninth, tenth, last)] == [
            None,
            *[mutual_attention()] * 2,
        ]


@given(with_layers(by_share), with_layers(by_share))
@settings(deadline=None)
def test_edits_are_equal_exactly_where_they_do_the_same_by_share(one: Recipe, other: Recipe) -> None:
    a, b = made(one), made(other)
    assert (a == b) == same_everywhere(a, b)
    assert hash(a) == hash(b) or a != b


@given(with_layers(by_index), with_layers(by_index))
@settings(deadline=None)
def test_edits_are_equal_exactly_where_they_do_the_same_by_index(one: Recipe, other: Recipe) -> None:
    a, b = made(one), made(other)
    assert (a == b) == same_everywhere(a, b)


@given(*[recipes(st.one_of(by_share, by_index))] * 2)
@settings(deadline=None)
def test_the_second_edit_counts_where_it_edits(one: Recipe, other: Recipe) -> None:
    a, b = made(one), made(other)
    both = override(a, b)
    for site in SITES:
        assert both.terms(site) == (b.terms(site) or a.terms(site))


@given(*[with_layers(by_share)] * 3)
@settings(deadline=None)
def test_overriding_with_injection_at_layers_is_associative(one: Recipe, two: Recipe, three: Recipe) -> None:
    a, b, c = made(one), made(two), made(three)
    assert override(override(a, b), c) == override(a, override(b, c))
    assert override(a, a) == a
    both = override(a, b)
    for site in SITES:
        assert both.terms(site) == (b.terms(site) or a.terms(site))


@given(*[recipes(st.one_of(by_share, by_index))] * 3)
@settings(deadline=None)
def test_overriding_is_associative_and_has_a_unit(one: Recipe, two: Recipe, three: Recipe) -> None:
    a, b, c = made(one), made(two), made(three)
    assert override(override(a, b), c) == override(a, override(b, c))
    assert override(a, NO_SELF_EDIT) == override(NO_SELF_EDIT, a) == a
    assert override(a, a) == a


def test_ranges_that_meet_are_joined() -> None:
    parts = [layer_range(a, b, True) for a, b in ((0.5, 1.0), (0.0, 0.25), (0.25, 0.5))]
    assert join(join(parts[0], parts[1]), parts[2]) == EVERY_LAYER
    assert layer_range(0.0, float("inf"), as_share=False) == EVERY_LAYER
    assert str(EVERY_LAYER) == "all layers"
    assert str(join(layer_range(2.0, 4.0, False), layer_range(0.5, 0.75, True))) == (
        "layers 2..3 and layers from 0.5 to 0.75 of all"
    )
    assert str(layer_range(3.0, float("inf"), False)) == "layers 3.."


def test_layers_that_the_sources_queries_leave_alone_keep_what_was_done_before() -> None:
    """Of a transformer in which the image attends to itself alone, as in Stable Diffusion 3.5 medium."""
    alone, joint = Site("a", "self", 1, "block", 2, 8), Site("j", "cross", 1, "block", 2, 8, joint=True)
    queries = image_queries(EVERY_LAYER)
    for made, expected in (
        (queries, ("own", "queries")),
        (override(injection(1.0), queries), ("injected", "queries")),
        (override(queries, injection(1.0)), ("injected", "injected")),
    ):
        assert (made.pixels(alone), made.pixels(joint)) == expected
