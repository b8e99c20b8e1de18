"""Whole decoders of the native engine: they compute what the families are, however the work is cut up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native_engine import COMPILED
from reference_decoder import FAMILIES, ReferenceDecoder, drawn, shape_of

from medchat.inference.cpu_engine.decoder import KeyValueCache, NativeDecoder, Tokens
from medchat.inference.cpu_engine.decoder_shape import NativeShape, Positions
from medchat.inference.cpu_engine.decoder_weights import DecoderWeights, Floats, LowRank, Role
from medchat.inference.cpu_engine.library import VARIABLE, open_library
from medchat.inference.interrupt import GenerationCancelled

pytestmark = COMPILED
#: How far from float64 results may be, as a share of their spread: precise ones, and those with activations of 16 bits
#: and a float16 cache.
PRECISE, COARSE = 3e-5, 2e-2


class Text:
    """Some tokens: their states, turns and what they see."""

    def __init__(self, shape: NativeShape, count: int, seed: int = 3, text_end: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.shape, self.count = shape, count
        self.states = random.standard_normal((count, shape.width)).astype(np.float32)
        self.visible = np.maximum(np.arange(1, count + 1), text_end).astype(np.int32)
        angles = random.uniform(0, 7, (count, shape.head_width // 2))
        turns = shape.positions is Positions.ROTARY
        self.turns = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)) if turns else None

    def part(self, cache: KeyValueCache, first: int, last: int, wanted: int = 0) -> Tokens:
        cosines, sines = (None, None) if self.turns is None else (t[first:last] for t in self.turns)
        count = wanted or last - first
        return Tokens(cache, self.states[first:last], first, self.visible[first:last], cosines, sines, count)

    def whole(self, decoder: NativeDecoder, **how: Any) -> Floats:
        return decoder.read([self.part(decoder.new_cache(), 0, self.count)], **how)


SHAPES: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"heads": 6, "key_heads": 1, "head_width": 64, "width": 17, "inner_width": 33}),
    ("bloom", {"heads": 1, "key_heads": 1, "head_width": 3, "layers": 1}),
    ("bloom", {"residual_from_norm": True, "inner_width": 1}),
    ("chatglm", {"heads": 2, "key_heads": 2, "head_width": 128, "width": 256}),
]


@pytest.mark.parametrize(("family", "changes"), SHAPES)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_decoder_computes_what_its_family_is(family: str, changes: dict[str, Any], bits: int) -> None:
    decoder = drawn(shape_of(family, **changes), bits)
    # Beyond one chunk of the cache; the first tokens see some behind them, as ChatGLM's text does.
    text = Text(decoder.shape, 70, text_end=9)
    wanted = ReferenceDecoder(decoder).read(text.states, text.visible, text.turns)
    found = text.whole(decoder)
    assert np.abs(found - wanted).max() < PRECISE * wanted.std()
    assert not np.array_equal(found, text.whole(drawn(decoder.shape, bits, seed=1)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rank", [1, 8])
def test_a_decoder_adds_what_adapters_of_any_rank_add(family: str, rank: int) -> None:
    # Of more tokens than pass through a layer together, and matrices of more rows than one block.
    shape = shape_of(family, layers=1, head_width=4, inner_width=24)
    decoder = drawn(shape, 4, rank=rank)
    text = Text(shape, 520, text_end=9)
    wanted = ReferenceDecoder(decoder).read(text.states, text.visible, text.turns)
    found = text.whole(decoder)
    assert np.abs(found - wanted).max() < PRECISE * wanted.std()
    assert np.abs(found - text.whole(drawn(shape, 4))).max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_that_is_not_precise_is_near_and_one_without_head_gives_states(family: str) -> None:
    decoder = drawn(shape_of(family, precise=False), head_rows=0)
    text = Text(decoder.shape, 20)
    wanted = ReferenceDecoder(decoder).read(text.states, text.visible, text.turns)
    found = text.whole(decoder)
    assert found.shape == (20, decoder.shape.width)
    assert PRECISE < np.abs(found - wanted).max() / wanted.std() < COARSE


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precise", [False, True])
def test_instruction_sets_and_threads_change_no_bit(
    family: str, precise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = drawn(shape_of(family, precise=precise), 4, rank=0 if precise else 5)
    text = Text(decoder.shape, 70, text_end=9)
    wanted = text.whole(decoder)
    for instructions in open_library().usable:
        monkeypatch.setenv(VARIABLE, instructions)
        for threads in (1, 3):
            assert np.array_equal(text.whole(decoder, threads=threads), wanted), (instructions, threads)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [1, 5, 64, 69])
def test_a_sequence_read_in_parts_gives_the_bits_of_one_read_whole(family: str, cut: int) -> None:
    decoder = drawn(shape_of(family), rank=3)
    text = Text(decoder.shape, 70)
    cache = decoder.new_cache()
    parts = [decoder.read([text.part(cache, *ends)]) for ends in ((0, cut), (cut, 70))]
    assert np.array_equal(np.concatenate(parts), text.whole(decoder))


@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_read_together_get_the_bits_that_each_gets_alone(family: str) -> None:
    decoder = drawn(shape_of(family, precise=False), rank=3)
    texts = [Text(decoder.shape, 66 + 3 * seed, seed) for seed in range(5)]
    caches = [decoder.new_cache() for _ in texts]
    for text, cache in zip(texts, caches, strict=True):
        decoder.read([text.part(cache, 0, 60)])
    parts = [text.part(cache, 60, text.count) for text, cache in zip(texts, caches, strict=True)]
    together = decoder.read(parts, threads=2)
    alone = np.concatenate([text.whole(decoder)[60:] for text in texts])
    assert np.array_equal(together, alone)


def test_what_was_read_beyond_a_place_is_forgotten_when_others_go_there() -> None:
    decoder = drawn(shape_of("llama"))
    text, other = Text(decoder.shape, 70), Text(decoder.shape, 70, seed=4)
    cache = decoder.new_cache()
    decoder.read([text.part(cache, 0, 50)])
    decoder.read([other.part(cache, 50, 70)])
    assert np.array_equal(decoder.read([text.part(cache, 50, 70)]), text.whole(decoder)[50:])


@pytest.mark.parametrize("length", [20, 64, 65])
def test_copies_of_a_cache_go_on_apart_each_as_if_it_had_read_all_alone(length: int) -> None:
    decoder = drawn(shape_of("llama"))
    text, *others = (Text(decoder.shape, 90, seed) for seed in (3, 4, 5))
    cache = decoder.new_cache()
    decoder.read([text.part(cache, 0, length)])
    copies = [cache.copy() for _ in others]
    together = [
        other.part(copy, length, length + 3 * number)
        for number, (other, copy) in enumerate(zip(others, copies, strict=True), start=1)
    ]
    found = decoder.read([*together, text.part(cache, length, 90)])
    assert np.array_equal(found[9:], text.whole(decoder)[length:])
    for number, other in enumerate(others, start=1):
        alone = decoder.new_cache()
        decoder.read([text.part(alone, 0, length)])
        wanted = decoder.read([other.part(alone, length, length + 3 * number)])
        assert np.array_equal(found[3 * number - 3 :][: 3 * number], wanted)
    del cache
    assert len(decoder.read([others[0].part(copies[0], length + 3, 90)])) == 87 - length


def test_only_the_wanted_results_are_computed() -> None:
    decoder = drawn(shape_of("bloom"))
    text = Text(decoder.shape, 10)
    found = decoder.read([text.part(decoder.new_cache(), 0, 10, wanted=3)])
    assert np.array_equal(found, text.whole(decoder)[-3:])


def test_keys_and_values_that_were_not_computed_are_seen_like_others() -> None:
    decoder = drawn(shape_of("chatglm"))
    shape, text = decoder.shape, Text(decoder.shape, 6)
    sizes = (2, shape.layers, shape.key_heads, shape.head_width)
    found = []
    for prefix in (np.zeros(sizes, np.float32), np.ones(sizes, np.float32)):
        cache = decoder.new_cache()
        decoder.store(cache, 0, *prefix)
        part = text.part(cache, 0, 6)
        found.append(
            decoder.read([Tokens(cache, part.embeddings, 1, part.visible + 1, part.cosines, part.sines)])
        )
    assert not np.array_equal(*found)
    assert not np.array_equal(found[0], text.whole(decoder)[-1:])


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cancel_ends_the_reading_and_leaves_what_was_read(threads: int) -> None:
    decoder = drawn(shape_of("llama"))
    text, cache = Text(decoder.shape, 70), decoder.new_cache()
    decoder.read([text.part(cache, 0, 50)])
    with pytest.raises(GenerationCancelled):
        decoder.read([text.part(cache, 50, 70)], threads=threads, cancelled=lambda: True)
    found = decoder.read([text.part(cache, 50, 70)], cancelled=lambda: False)
    assert np.array_equal(found, text.whole(decoder)[50:])


def test_an_interrupt_while_it_is_asked_comes_out() -> None:
    decoder = drawn(shape_of("llama"))

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Text(decoder.shape, 3).whole(decoder, cancelled=interrupt)


# ---------------------------------------------------------------- what is refused before any pointer is made


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 0},
        {"layers": 2**20},
        {"width": -1},
        {"width": 2**31},
        {"heads": 3, "key_heads": 2},
        {"head_width": 257},
        {"head_width": 7},
        {"rotary_parts": 0},
        {"norm_epsilon": float("nan")},
        {"residual_scale": float("inf")},
        {"key_heads": 0},
    ],
)
def test_a_shape_that_no_decoder_has_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        shape_of("llama", **changes)


@pytest.mark.parametrize("other", [{"inner_width": 73}, {"layers": 1}, {"heads": 6}, {"width": 41}])
def test_weights_of_another_shape_are_refused(other: dict[str, Any]) -> None:
    weights = drawn(shape_of("llama")).weights
    with pytest.raises(ValueError):
        NativeDecoder(shape_of("llama", **other), weights)


def test_vectors_of_another_length_or_type_are_refused() -> None:
    decoder = drawn(shape_of("bloom"))
    own = decoder.weights
    for slopes in (None, np.ones(3, np.float32), np.ones(4, np.float64), np.ones(8, np.float32)[::2]):
        with pytest.raises(ValueError):
            NativeDecoder(
                decoder.shape,
                DecoderWeights(own.layers, own.final_norm, own.head, slopes),  # type: ignore[arg-type]
            )


def filled(*shape: int, value: float = 1.0) -> Floats:
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (filled(0, 40), filled(0, 50)),
        (filled(3, 41), filled(3, 50)),
        (filled(3, 40), filled(3, 49)),
        (filled(3, 40), filled(2, 50)),
        (filled(6, 40)[::2], filled(3, 50)),
        (filled(3, 40), filled(50, 3).T),
        (filled(40), filled(50)),
        (filled(), filled()),
        (filled(3, 40).astype(np.float64), filled(3, 50)),
        (filled(3, 40, value=np.nan), filled(3, 50)),
        (filled(3, 40), filled(3, 50, value=np.inf)),
        (filled(2**16 + 1, 40), filled(2**16 + 1, 50)),
    ],
)
@pytest.mark.parametrize("of_head", [True, False])
def test_an_adapter_of_another_shape_or_that_is_not_finite_is_refused(
    down: Floats, up: Floats, of_head: bool
) -> None:
    weights, hostile = drawn(shape := shape_of("llama", inner_width=50)).weights, LowRank(down, up)
    layer = weights.layers[1]
    gate = replace(layer.linears[Role.GATE], low_rank=hostile)
    layers = (weights.layers[0], replace(layer, linears={**layer.linears, Role.GATE: gate}))
    changes: dict[str, Any] = {"head_low_rank": hostile} if of_head else {"layers": layers}
    with pytest.raises(ValueError, match=r"rank|float|finite"):
        NativeDecoder(shape, replace(weights, **changes))


def test_an_adapter_of_a_head_that_is_not_there_is_refused() -> None:
    weights = drawn(shape := shape_of("llama"), rank=1).weights
    with pytest.raises(ValueError, match="without a head"):
        NativeDecoder(shape, replace(weights, head=None))


def changed(**changes: Any) -> Callable[[Tokens], Tokens]:
    def change(part: Tokens) -> Tokens:
        names = ("cache", "embeddings", "first_place", "visible", "cosines", "sines", "wanted")
        return Tokens(**{**{name: getattr(part, name) for name in names}, **changes})

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(embeddings=np.zeros((4, 41), np.float32)),
        changed(embeddings=np.zeros((0, 40), np.float32)),
        changed(visible=np.zeros(4, np.int32)),
        changed(visible=np.full(4, 9, np.int32)),
        changed(visible=np.arange(1, 4, dtype=np.int32)),
        changed(first_place=-1),
        changed(first_place=2**40),
        changed(cosines=None),
        changed(sines=np.zeros((4, 5), np.float32)),
        changed(wanted=0),
        changed(wanted=5),
    ],
)
def test_tokens_that_do_not_fit_are_refused(change: Callable[[Tokens], Tokens]) -> None:
    decoder = drawn(shape_of("llama"))
    part = Text(decoder.shape, 4).part(decoder.new_cache(), 0, 4)
    assert len(decoder.read([part])) == 4
    with pytest.raises(ValueError):
        decoder.read([change(part)])


def test_a_cache_of_another_decoder_and_one_that_is_named_twice_are_refused() -> None:
    decoder, other = drawn(shape_of("llama")), drawn(shape_of("llama"))
    text = Text(decoder.shape, 4)
    part = text.part(decoder.new_cache(), 0, 4)
    for parts, threads in (
        ([text.part(other.new_cache(), 0, 4)], 1),
        ([part, part], 1),
        ([], 1),
        ([part], 0),
    ):
        with pytest.raises(ValueError):
            decoder.read(parts, threads=threads)
