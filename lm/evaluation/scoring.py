"""One pass of a model over packed windows: their states, then the logits of a few columns of the head at a time.

Every block of one row length has one shape, so nothing recompiles. A window sees nothing of its neighbours in a
row (masked weights are exactly zero), but where it lies decides the order of some sums: the log-probabilities of
a document in other company differ by rounding (with float32 products within the 2.4e-4 nats that the tests allow).
"""

import dataclasses
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lm.data.corpus import Corpus
from lm.errors import InputError
from lm.evaluation.lanes import in_lanes
from lm.evaluation.windows import Block, blocks
from lm.model.attention import causal_attention
from lm.model.config import Compute, ModelConfig
from lm.model.cutting import layer, part
from lm.model.decoder import Block as DecoderBlock
from lm.model.decoder import Decoder, named
from lm.model.decoder import positions as places
from lm.model.matmul import matmul
from lm.model.packed import takes_packed
from lm.model.parameters import is_matrix
from lm.model.sharding import for_rows, placed

Array = jax.Array

COLUMNS = 4096  # of the head at a time: of 1024 to 8192 the fastest at 1024 positions


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model made ready for many passes.

    Attributes:
        config: of the model.
        blocks: parameters of each block by name, matrices in the type of the products; elsewhere than on a CPU a
            single entry, of all blocks, stacked.
        rest: the other parameters by name, as the model has them, without the head's.
        head: matrix of the head, (D, V), in the type of the products.
        stream: see `lm.model.decoder.Decoder`.
    """

    config: ModelConfig
    blocks: tuple[dict[str, Array], ...]
    rest: dict[str, Array]
    head: Array
    stream: NamedSharding | None


def prepare(model: Decoder, compute: Compute | None = None) -> Scorer:
    """Return a model ready to score: its matrices cast, and the head transposed, once instead of in every pass.

    Args:
        model: it stays as it is.
        compute: type of the factors of the products; the model's own by default.
    """
    config = dataclasses.replace(model.config, compute=compute or model.config.compute)
    found, rest = named(model), {}
    apart = jax.default_backend() == "cpu"
    blocks: list[dict[str, Array]] = [{} for _ in range(config.layers if apart else 1)]
    for name, array in found.items():
        if not name.startswith("blocks."):
            rest |= {name: array} if name != "unembedding" else {}
            continue
        dtype = config.compute if is_matrix(name, config) else str(array.dtype)
        for number, block in enumerate(blocks):
            block[name.removeprefix("blocks.")] = layer(array, number, dtype) if apart else array.astype(dtype)
    return Scorer(config, tuple(blocks), rest, model.head_weight().astype(config.compute), model.stream)


def positions(config: ModelConfig) -> int:
    """Return how many positions a block has: enough to keep the device busy, few enough for a CPU's caches."""
    return 512 if jax.default_backend() == "cpu" else many_positions(config)


def many_positions(config: ModelConfig) -> int:
    """Return how many positions a block has on an accelerator: fewer for a wide model.

    Some of what it does takes as long for few positions as for many, and what the last block of a length lacks is
    padding.
    """
    return 2 ** min(16, max(15, (2**27 // config.width).bit_length() - 1))


@partial(jax.jit, static_argnums=(0, 1))
def _begin(
    config: ModelConfig,
    stream: NamedSharding | None,
    rest: dict[str, Array],
    inputs_BxT: Array,
    segments_BxT: Array | None,
) -> Any:
    model, (B, T) = Decoder(config, rest), inputs_BxT.shape
    place = jnp.broadcast_to(jnp.arange(T), (B, T)) if segments_BxT is None else places(segments_BxT)
    return placed(model.embed(inputs_BxT, place), for_rows(stream, B)), model.angles(place)


@partial(jax.jit, static_argnums=(0, 1), static_argnames="shape", donate_argnums=3)
def _through_block(
    config: ModelConfig,
    stream: NamedSharding | None,
    arrays: dict[str, Array],
    x_NxD: Array,
    cos_sin: tuple[Array, Array] | None,
    segments_BxT: Array | None,
    *,
    shape: tuple[int, int],
) -> Array:
    block, stream = DecoderBlock(config, arrays), for_rows(stream, shape[0])
    q, k, v = block.project(x_NxD, cos_sin, shape)
    return placed(block.finish(x_NxD, causal_attention(q, k, v, segments_BxT, stream=stream)), stream)


@partial(jax.jit, static_argnums=0)
def _normed(config: ModelConfig, rest: dict[str, Array], x_NxD: Array) -> Array:
    return Decoder(config, rest).norm(x_NxD, "norm")


def _looped(
    config: ModelConfig,
    stream: NamedSharding | None,
    most: int | None,
    rest: dict[str, Array],
    stacked: dict[str, Array],
    inputs_BxT: Array,
    segments_BxT: Array | None,
) -> Array:
    blocks = {f"blocks.{name}": array for name, array in stacked.items()}
    return Decoder(config, rest | blocks, stream).hidden(inputs_BxT, segments_BxT, most)


# Measured with SmolLM2 on an H200, 8 % faster together: cuBLAS adds a product to the residual stream in one go, which
# XLA's own products, which it would else try, do not; it tries cuBLAS's ways only of products whose factors are cut
# from the stacked arrays beforehand; and products of the same states become one, whatever their size.
OPTIONS: dict[str, dict[str, Any]] = {
    "gpu": {
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_enable_dynamic_slice_fusion": False,
        "xla_gpu_dot_merger_threshold_mb": 4096,
    }
}


@cache
def _loop(backend: str) -> Any:
    return jax.jit(_looped, static_argnums=(0, 1, 2), compiler_options=OPTIONS.get(backend))


def states(scorer: Scorer, inputs_BxT: Any, segments_BxT: Any = None, most: int | None = None) -> Array:
    """Return the normalised states of windows, float32, shape (N, D).

    On a CPU the blocks are called one after the other: each shape is compiled for one of them, not for all, and none is
    cut from stacked arrays. An accelerator, which is faster than calls can be made, loops over them in one program.

    Args:
        scorer: of `prepare`.
        inputs_BxT: ids.
        segments_BxT: see `Decoder.hidden`; None: one window a row.
        most: see `Decoder.hidden`.
    """
    if (backend := jax.default_backend()) != "cpu":
        given = scorer.config, scorer.stream, most
        return _loop(backend)(*given, scorer.rest, scorer.blocks[0], inputs_BxT, segments_BxT)
    given, shape = (scorer.config, scorer.stream), inputs_BxT.shape
    x_NxD, cos_sin = _begin(*given, scorer.rest, inputs_BxT, segments_BxT)
    for arrays in scorer.blocks:
        x_NxD = _through_block(*given, arrays, x_NxD, cos_sin, segments_BxT, shape=shape)
    return _normed(scorer.config, scorer.rest, x_NxD)


@partial(jax.jit, static_argnames="compute")
def chosen_log_probabilities(states_NxD: Array, head_DxV: Array, target_N: Array, *, compute: Compute) -> Array:
    """Return the log-probability of a token each, nats, float32, shape (N,), `COLUMNS` of the head at a time.

    The columns' logits stay in a CPU's caches, and no (N, V) array is made.

    Args:
        states_NxD: float32.
        head_DxV: of a `Scorer`.
        target_N: ids.
        compute: type of the factors of the product.
    """
    N, V = len(states_NxD), head_DxV.shape[1]
    C = min(COLUMNS, V)
    x = states_NxD.astype(compute)

    def add(sums: tuple[Array, Array, Array], first: Array) -> tuple[tuple[Array, Array, Array], None]:
        top, total, chosen = sums
        # The last columns are cut from the end of the head; those of them that came before do not count again.
        start = jnp.minimum(first, V - C)
        logits = matmul(x, part(head_DxV, start, C, 1), compute)
        logits = jnp.where(start + jnp.arange(C) >= first, logits, -jnp.inf)
        higher = jnp.maximum(top, jnp.max(logits, axis=1))
        total = total * jnp.exp(top - higher) + jnp.sum(jnp.exp(logits - higher[:, None]), axis=1)
        found = jnp.take_along_axis(logits, jnp.clip(target_N - start, 0, C - 1)[:, None], axis=1)[:, 0]
        return (higher, total, jnp.where((target_N >= first) & (target_N < first + C), found, chosen)), None

    nothing = jnp.full(N, -jnp.inf), jnp.zeros(N), jnp.zeros(N)
    (top, total, chosen), _ = jax.lax.scan(add, nothing, jnp.arange(0, V, C))
    return chosen - top - jnp.log(total)


def scores(
    scorer: Scorer, corpus: Corpus, end: int, stride: int | None = None, context: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, block by block, where tokens are in a corpus and log P(token | earlier tokens of its document).

    Every token comes once, in any order; the memory does not grow with the corpus.

    Args:
        scorer: of `prepare`.
        corpus: documents.
        end: end-of-text id, the context of a document's first token.
        stride: see `lm.evaluation.windows.blocks`.
        context: longest window, in tokens; the model's by default.

    Yields:
        Positions in the corpus' `tokens`, int64, and nats, float32, shapes (S,).

    Raises:
        InputError: a context or stride that does not fit, ids that the model does not have, a probability that is
            no number.
    """
    longest, vocabulary = scorer.config.context, scorer.config.vocabulary
    context = longest if context is None else context
    if context > longest:
        raise InputError(f"a context of {context} tokens exceeds the model's {longest}; use at most that")

    def score(block: Block) -> Array:
        largest = max(int(block.targets.max()), int(block.inputs.max()))
        if largest >= vocabulary:
            raise InputError(
                f"the corpus has the id {largest} and the model only {vocabulary}; tokenize with the model's tokenizer"
            )
        states_NxD = states(scorer, block.inputs, block.segments, block.most)
        found_N = chosen_log_probabilities(
            states_NxD, scorer.head, block.targets.reshape(-1), compute=scorer.config.compute
        )
        return found_N.reshape(block.targets.shape)

    config = scorer.config
    counted = takes_packed(config.compute, config.head_size)
    cut = blocks(corpus, end, context, positions(config), stride, counted=counted)
    for block, made in in_lanes(cut, score, None if scorer.stream is None else 1):
        kept = block.place >= 0
        place, found = block.place[kept], made[kept]
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            document = int(np.searchsorted(corpus.starts, place[wrong[0]], side="right")) - 1
            raise InputError(
                f"the model gives {corpus.ids[document]} a probability that is no number; its weights are damaged or "
                "overflow, fetch or train it again"
            )
        yield place, found


def log_probabilities(model: Decoder | Scorer, corpus: Corpus, end: int, context: int | None = None) -> np.ndarray:
    """Return log P(token | earlier tokens of its document) of every token, in nats, float32, shape (M,).

    Args:
        model: the prior.
        corpus: M tokens.
        end: end-of-text id, the context of a document's first token.
        context: longest window, in tokens; the model's by default.

    Raises:
        InputError: as `scores`.
    """
    result = np.full(len(corpus.tokens), np.nan, np.float32)
    scorer = model if isinstance(model, Scorer) else prepare(model)
    for place, found in scores(scorer, corpus, end, context=context):
        result[place] = found
    return result
