"""Decoding with a key-value cache, a batch of documents at a time.

Prompts are aligned at their ends: all end at the same place of the cache, and each step fills one place for all
rows. Where a token lies in the cache thus depends on its own document only, not on the others of its batch. The
loop over steps runs inside one compiled function. It writes to a short recent part of the cache, and only reads the
long part, which the recent one joins when it is full. When many rows have finished, the others go on in a smaller
batch. Each length of the cache and each size of a batch is a program of its own (`Sizes`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import InputError
from lm.generation.sampling import SamplingConfig, document_words, draw
from lm.model import onednn
from lm.model.attention import MASKED
from lm.model.cutting import layer
from lm.model.decoder import Block, Decoder, named
from lm.model.elementwise import activated
from lm.model.matmul import precision
from lm.model.packed import PADDING
from lm.model.parameters import is_matrix

Array = jax.Array
Finished = Literal["end", "length"]

FEWEST = 32  # rows below which a batch is not made smaller
PROMPTS = 16  # prompts fed at a time
STEP = 128  # the recent part of the cache has a multiple of so many places


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What suits a kind of machine.

    Attributes:
        rows: documents a batch.
        recent: places of the recent part of the cache at most, a multiple of `STEP`.
        recent_dtype: of it; None: as the rest of the cache.
        shrink: a batch goes on with this part of its rows as soon as no more are alive.
    """

    rows: int
    recent: int
    recent_dtype: str | None
    shrink: int

    def places(self, limit: int) -> int:
        """Return the places of the recent part for documents of so many tokens."""
        return min(self.recent, -(-limit // STEP) * STEP)


# A CPU would copy a bfloat16 array to change one place of it.
ON_CPU = Sizes(rows=128, recent=128, recent_dtype="float32", shrink=2)
# Faster than the steps can be started, and compiling is slow: few programs.
ON_ACCELERATOR = Sizes(rows=512, recent=512, recent_dtype=None, shrink=4)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of every document of a batch.

    Attributes:
        sampling: how tokens are drawn.
        limit: tokens a document has at most.
        stops: ids that end a document; they are not part of it, and it has at least one token before them.
        size: ids from this one on are never drawn (models round their vocabulary up).
    """

    sampling: SamplingConfig
    limit: int
    stops: tuple[int, ...]
    size: int


class Decoded(NamedTuple):
    """A document: its ids, int32, and whether a stop or the limit ended it."""

    tokens: np.ndarray
    finished: Finished


class Weights(NamedTuple):
    """A decoder as decoding reads it.

    Attributes:
        model: the decoder.
        blocks: its blocks apart, with fewer and larger matrices, in the type of the products.
        head: matrix of the head, transposed, (V, D), in the type of the products.
    """

    model: Decoder
    blocks: tuple["_Joined", ...]
    head: Array


class Running(NamedTuple):
    """Documents on their way, one a row.

    Attributes:
        keys: of each layer, (B, G, K, C), in the type of the products: prompts, and what has joined them.
        values: of each layer, (B, G, C, K), likewise.
        recent_keys: of each layer, (B, G, K, R), with R and the type of `Sizes`.
        recent_values: of each layer, (B, G, R, K), likewise.
        begin: place in the cache of each row's first token, (B,).
        words: of `document_words`, (B, 2).
        made: tokens drawn for every row that is alive, scalar; the last is not in the cache.
        joined: of these, how many are in the long part of the cache, scalar.
        alive: rows that go on, (B,).
        length: tokens of each row, (B,).
        stopped: rows that drew a stop, (B,).
        text: tokens drawn, (B, limit).
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    recent_keys: tuple[Array, ...]
    recent_values: tuple[Array, ...]
    begin: Array
    words: Array
    made: Array
    joined: Array
    alive: Array
    length: Array
    stopped: Array
    text: Array


class _Joined(Block):
    """A block with query, key and value, and gate and up, in one matrix each: fewer and larger products."""

    def project(self, x_NxD: Array, cos_sin: tuple[Array, Array] | None, rows: tuple[int, int]) -> tuple[Array, ...]:
        """Return queries, keys and values as `Block.project` does."""
        c = self.config
        x = self.norm(x_NxD, "attention_norm") if c.norm_place == "before" else x_NxD
        joined = self.linear(x, "joined", c.attention_bias != "none")
        parts = jnp.split(joined, (c.query_width, c.query_width + c.key_width), axis=1)
        return tuple(
            self.heads(name, y, cos_sin, rows) for name, y in zip(("query", "key", "value"), parts, strict=True)
        )

    def feed_forward(self, x_NxD: Array) -> Array:
        """Return what `Block.feed_forward` does."""
        c = self.config
        if not c.gated:
            return super().feed_forward(x_NxD)
        gate, up = jnp.split(self.linear(x_NxD, "gate_up", False), 2, axis=1)
        up = up + self.read("up_bias") if c.hidden_bias else up
        return self.linear(activated(c.activation, gate, None, up), "down", c.hidden_bias)


def sizes() -> Sizes:
    """Return what suits this machine."""
    return ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR


def prepare(model: Decoder) -> Weights:
    """Return the weights for decoding: the blocks apart, their matrices joined and cast once, not in every step."""
    c, found = model.config, named(model)
    blocks = []
    for number in range(c.layers):
        arrays = {}
        for name, array in found.items():
            if name.startswith("blocks."):
                dtype = c.compute if is_matrix(name, c) else str(array.dtype)
                arrays[name.removeprefix("blocks.")] = layer(array, number, dtype)
        joins = {"joined": ("query", "key", "value")} | ({"gate_up": ("gate", "up")} if c.gated else {})
        if c.attention_bias != "none":
            joins["joined_bias"] = ("query_bias", "key_bias", "value_bias")
        for name, parts in joins.items():
            arrays[name] = jnp.concatenate([arrays.pop(part) for part in parts], axis=-1)
        blocks.append(_Joined(c, arrays))
    head = (found["embedding"] if c.tied else found["unembedding"].T).astype(c.compute)
    return Weights(model, tuple(blocks), head)


def _logits(weights: Weights, x_BxD: Array) -> Array:
    normed = weights.model.norm(x_BxD, "norm").astype(weights.head.dtype)
    return jax.lax.dot_general(
        normed,
        weights.head,
        (((1,), (1,)), ((), ())),
        precision=precision(normed.dtype),
        preferred_element_type=jnp.float32,
    )


def _einsum(form: str, x: Array, y: Array) -> Array:
    return jnp.einsum(form, x, y, precision=precision(x.dtype), preferred_element_type=jnp.float32)


def _attend(q_BxHxK: Array, parts: Sequence[tuple[Array, Array, Array]]) -> Array:
    """Return attention of one query a row over the parts of its cache, in the type of the queries, (B, H, K).

    Args:
        q_BxHxK: queries.
        parts: keys (B, G, K, C), values (B, G, C, K), and which places may be seen, (B, C) or (C,).
    """
    B, H, K = q_BxHxK.shape
    scores = []
    for k, _, seen in parts:
        q = q_BxHxK.reshape(B, k.shape[1], -1, K).astype(k.dtype)
        # Contractions of the cache as it lies: a transpose would copy it.
        score = _einsum("bgrk,bgkc->bgrc", q, k) / math.sqrt(K)
        scores.append(jnp.where(seen[..., None, None, :], score, MASKED))
    top = functools.reduce(jnp.maximum, (jnp.max(score, axis=-1, keepdims=True) for score in scores))
    weights = [jnp.exp(score - top) for score in scores]
    total = sum(jnp.sum(weight, axis=-1, keepdims=True) for weight in weights)
    mixed: Any = sum(
        _einsum("bgrc,bgck->bgrk", weight.astype(v.dtype), v) for weight, (_, v, _) in zip(weights, parts, strict=True)
    )
    return (mixed / total).reshape(B, H, K).astype(q_BxHxK.dtype)


@jax.jit
def _prefill(weights: Weights, token_BxP: Array, begin_B: Array) -> tuple[Array, Any]:
    """Feed prompts; return the logits of what follows, and keys and values of each layer."""
    model, (B, P) = weights.model, token_BxP.shape
    segment = jnp.where(jnp.arange(P) >= begin_B[:, None], 0, PADDING)
    x_NxD, (k, v) = model.through(token_BxP, segment, collect=True)
    k_LxBxGxKxP, v_LxBxGxPxK = jnp.moveaxis(k, 2, 4), jnp.moveaxis(v, 2, 3)
    return _logits(weights, x_NxD.reshape(B, P, -1)[:, -1]), (tuple(k_LxBxGxKxP), tuple(v_LxBxGxPxK))


def _take(running: Running, request: Request, logits_BxV: Array, seed: Array) -> Running:
    """Draw the next token of every row and note which rows it ends."""
    made, alive = running.made, running.alive
    identity = jnp.arange(logits_BxV.shape[1])
    excluded = identity >= request.size
    stops = jnp.asarray(request.stops, jnp.int32)
    # A document is not empty: its first token is no stop.
    excluded |= (made == 0) & jnp.isin(identity, stops)
    position = jnp.full(len(alive), made)
    logits = jnp.where(excluded, -jnp.inf, logits_BxV)
    token = draw(logits, request.sampling, seed, running.words, position)
    stopped = alive & jnp.isin(token, stops)
    text = jax.lax.dynamic_update_slice(running.text, token[:, None], (0, made))
    return running._replace(
        made=made + 1,
        alive=alive & ~stopped & (made + 1 < request.limit),
        length=running.length + (alive & ~stopped),
        stopped=running.stopped | stopped,
        text=text,
    )


_take_first = jax.jit(_take, static_argnums=1)


def step(weights: Weights, running: Running) -> tuple[Array, Running]:
    """Feed the last token of each row; return the logits of the next, (B, V), and the cache with its place filled."""
    model, length = weights.model, running.values[0].shape[2]
    place = running.made - 1 - running.joined
    position_B = length + place - running.begin
    token_B = jax.lax.dynamic_slice_in_dim(running.text, running.made - 1, 1, axis=1)[:, 0]
    cos_sin = model.angles(position_B[:, None])
    recent = running.recent_values[0].shape[2]
    seen, seen_recent = jnp.arange(length) >= running.begin[:, None], jnp.arange(recent) <= place

    def put(old: Array, new: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), place, axis)

    recent_keys, recent_values = list(running.recent_keys), list(running.recent_values)
    x = model.embed(token_B, position_B)
    for n, block in enumerate(weights.blocks):
        q, k, v = block.project(x, cos_sin, (len(token_B), 1))
        recent_keys[n] = put(recent_keys[n], jnp.moveaxis(k, 1, 3), 3)
        recent_values[n] = put(recent_values[n], jnp.moveaxis(v, 1, 2), 2)
        parts = [(running.keys[n], running.values[n], seen), (recent_keys[n], recent_values[n], seen_recent)]
        x = block.finish(x, _attend(q[:, 0], parts))
    running = running._replace(recent_keys=tuple(recent_keys), recent_values=tuple(recent_values))
    return _logits(weights, x), running


@functools.partial(jax.jit, static_argnames="request", donate_argnames="running")
def _advance(
    weights: Weights, running: Running, until: Array, enough: Array, seed: Array, *, request: Request
) -> Running:
    """Draw tokens until `until` are made for the rows alive, or only `enough` rows are alive."""
    # The long part of the cache stays out of what the loop carries.
    long = {"keys": running.keys, "values": running.values}
    nothing: dict[str, tuple[Array, ...]] = {"keys": (), "values": ()}

    def going(running: Running) -> Array:
        return (running.made < until) & (jnp.sum(running.alive) > enough)

    def body(running: Running) -> Running:
        logits, running = step(weights, running._replace(**long))
        return _take(running, request, logits, seed)._replace(**nothing)

    return jax.lax.while_loop(going, body, running._replace(**nothing))._replace(**long)


@jax.jit
def _join(running: Running) -> Running:
    """Put the recent part of the cache behind the long one and begin a new one."""

    def joined(long: Sequence[Array], recent: Sequence[Array], axis: int) -> tuple[Array, ...]:
        return tuple(
            jnp.concatenate([one, other.astype(one.dtype)], axis) for one, other in zip(long, recent, strict=True)
        )

    return running._replace(
        keys=joined(running.keys, running.recent_keys, 3),
        values=joined(running.values, running.recent_values, 2),
        joined=running.joined + running.recent_values[0].shape[2],
    )


@jax.jit
def _choose(running: Running, rows: Array) -> Running:
    return jax.tree.map(lambda x: x if x.ndim == 0 else x[rows], running)


def decode(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    request: Request,
    seed: int,
    *,
    prompt_places: int,
    rows: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[Decoded]:
    """Continue a batch of prompts.

    The numbers that decide are keyed by (seed, name, position). Rows of fewer prompts than `rows` are filled by
    repeating the last.

    Args:
        weights: of `prepare`.
        prompts: ids, at least one and at most `prompt_places` of them; at most `rows` prompts.
        names: of the documents.
        request: what is asked of each.
        seed: of the randomness, from 0 to 2^32-1.
        prompt_places: places of the cache that are kept for prompts.
        rows: of the batch; those of `sizes` by default.
        progress: told now and then how many tokens were made since.

    Returns:
        For each prompt, what follows it.

    Raises:
        InputError: a prompt and the limit do not fit into the model's context.
    """
    longest = max(len(prompt) for prompt in prompts)
    if longest > prompt_places or longest + request.limit > weights.model.config.context + 1:
        raise InputError(
            f"a prompt of {longest} tokens and {request.limit} after it do not fit into a context of "
            f"{weights.model.config.context} with {prompt_places} places for prompts; lower the number of tokens "
            "(--tokens)"
        )
    rows = rows or sizes().rows
    shrink = sizes().shrink
    names = [*names, *[names[-1]] * (rows - len(prompts))]
    running = start(weights, [*prompts, *[prompts[-1]] * (rows - len(prompts))], names, request, seed, prompt_places)
    owner = np.where(np.arange(rows) < len(prompts), np.arange(rows), -1)  # document of each row
    found: dict[int, Decoded] = {}
    told = 0
    while True:
        alive = np.asarray(running.alive)
        lengths, stopped, text = (np.asarray(x) for x in (running.length, running.stopped, running.text))
        for row in np.flatnonzero(~alive & (owner >= 0)):
            tokens = text[row, : lengths[row]].copy()
            found[int(owner[row])] = Decoded(tokens, "end" if stopped[row] else "length")
        total = sum(len(one.tokens) for one in found.values()) + int(np.sum(lengths[alive & (owner >= 0)]))
        progress(total - told)
        told = total
        if len(found) == len(prompts):
            return [found[number] for number in range(len(prompts))]
        owner = np.where(alive, owner, -1)
        size = len(alive)
        while size > FEWEST and np.sum(alive) <= max(FEWEST, size // shrink):
            size = max(FEWEST, size // shrink)
        if size < len(alive):
            kept = np.argsort(~alive, kind="stable")[:size]
            running, owner = _choose(running, kept), owner[kept]
        running = advance(weights, running, request, seed)


@onednn.left_alone()
def start(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    request: Request,
    seed: int,
    prompt_places: int,
) -> Running:
    """Feed the prompts and draw the first token after each; arguments as of `decode`."""
    B, lengths = len(prompts), np.array([len(prompt) for prompt in prompts])
    begin = (prompt_places - lengths).astype(np.int32)
    tokens = np.zeros((B, prompt_places), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, begin[row] :] = prompt
    parts = [
        _prefill(weights, tokens[first : first + PROMPTS], begin[first : first + PROMPTS])
        for first in range(0, B, PROMPTS)
    ]
    logits, (keys, values) = jax.tree.map(lambda *some: jnp.concatenate(some), *parts)
    _, G, K, _ = keys[0].shape
    here = sizes()
    recent, dtype = here.places(request.limit), here.recent_dtype or keys[0].dtype
    running = Running(
        keys,
        values,
        recent_keys=tuple(jnp.zeros((B, G, K, recent), dtype) for _ in keys),
        recent_values=tuple(jnp.zeros((B, G, recent, K), dtype) for _ in keys),
        begin=jnp.asarray(begin),
        words=jnp.asarray(document_words(names)),
        made=jnp.int32(0),
        joined=jnp.int32(0),
        alive=jnp.ones(B, bool),
        length=jnp.zeros(B, jnp.int32),
        stopped=jnp.zeros(B, bool),
        text=jnp.zeros((B, request.limit), jnp.int32),
    )
    return _take_first(running, request, logits, np.uint32(seed))


@onednn.left_alone()
def advance(weights: Weights, running: Running, request: Request, seed: int) -> Running:
    """Draw tokens until the documents are finished, the recent part is full, or few go on and the batch can shrink."""
    joined, B, recent = int(running.joined), len(running.alive), running.recent_values[0].shape[2]
    if int(running.made) - 1 - joined == recent:
        running, joined = _join(running), joined + recent
    until = min(request.limit, joined + recent + 1)
    enough = max(FEWEST, B // sizes().shrink) if B > FEWEST else 0
    return _advance(weights, running, until, enough, np.uint32(seed), request=request)
