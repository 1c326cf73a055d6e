"""One pass of a model over packed windows: their states, then a few tokens' logits at a time.

Every block of one row length has one shape, so nothing recompiles. A window sees nothing of its neighbours in a
row (masked weights are exactly zero), but where it lies decides the order of some sums: the log-probabilities of
a document in other company differ by rounding (with float32 products within the 2.4e-4 nats that the tests allow).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.data.corpus import Corpus
from lm.errors import InputError
from lm.evaluation.windows import Block, blocks
from lm.model.attention import causal_attention
from lm.model.config import Compute, ModelConfig
from lm.model.decoder import Block as DecoderBlock
from lm.model.decoder import Decoder, named
from lm.model.decoder import positions as places
from lm.model.matmul import matmul
from lm.model.parameters import is_matrix

Array = jax.Array

LOGITS = 2**24  # numbers in memory at a time: 64 MB


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model made ready for many passes.

    Attributes:
        config: of the model.
        blocks: parameters of each block by name, matrices in the type of the products.
        rest: the other parameters by name, float32, without the head's.
        head: matrix of the head, (D, V), in the type of the products.
    """

    config: ModelConfig
    blocks: tuple[dict[str, Array], ...]
    rest: dict[str, Array]
    head: Array


def prepare(model: Decoder, compute: Compute | None = None) -> Scorer:
    """Return a model ready to score: its matrices cast, and the head transposed, once instead of in every pass.

    Args:
        model: it stays as it is.
        compute: type of the factors of the products; the model's own by default.
    """
    config = dataclasses.replace(model.config, compute=compute or model.config.compute)
    found, rest = named(model), {}
    blocks: list[dict[str, Array]] = [{} for _ in range(config.layers)]
    for name, array in found.items():
        if not name.startswith("blocks."):
            rest |= {name: array} if name != "unembedding" else {}
            continue
        dtype = config.compute if is_matrix(name, config) else str(array.dtype)
        for number, block in enumerate(blocks):
            block[name.removeprefix("blocks.")] = _layer(array, number, dtype)
    return Scorer(config, tuple(blocks), rest, model.head_weight().astype(config.compute))


@partial(jax.jit, static_argnames="dtype")
def _layer(stacked: Array, number: Array | int, dtype: str) -> Array:
    return jax.lax.dynamic_index_in_dim(stacked, number, keepdims=False).astype(dtype)


def positions() -> int:
    """Return how many positions a block has: enough to keep the device busy, few enough for a CPU's caches."""
    return 1024 if jax.default_backend() == "cpu" else 16384


@partial(jax.jit, static_argnums=0)
def _begin(config: ModelConfig, rest: dict[str, Array], inputs_BxT: Array, segments_BxT: Array | None) -> Any:
    model, (B, T) = Decoder(config, rest), inputs_BxT.shape
    place = jnp.broadcast_to(jnp.arange(T), (B, T)) if segments_BxT is None else places(segments_BxT)
    return model.embed(inputs_BxT, place), model.angles(place)


@partial(jax.jit, static_argnums=0, static_argnames="shape", donate_argnums=2)
def _through_block(
    config: ModelConfig,
    arrays: dict[str, Array],
    x_NxD: Array,
    cos_sin: tuple[Array, Array] | None,
    segments_BxT: Array | None,
    *,
    shape: tuple[int, int],
) -> Array:
    block = DecoderBlock(config, arrays)
    q, k, v = block.project(x_NxD, cos_sin, shape)
    return block.finish(x_NxD, causal_attention(q, k, v, segments_BxT))


@partial(jax.jit, static_argnums=0)
def _normed(config: ModelConfig, rest: dict[str, Array], x_NxD: Array) -> Array:
    return Decoder(config, rest).norm(x_NxD, "norm")


def states(scorer: Scorer, inputs_BxT: Any, segments_BxT: Any = None) -> Array:
    """Return the normalised states of windows, float32, shape (N, D).

    The blocks are called one after the other: each shape is compiled for one of them, not for all, and none is cut
    from stacked arrays.

    Args:
        scorer: of `prepare`.
        inputs_BxT: ids.
        segments_BxT: see `Decoder.hidden`; None: one window a row.
    """
    x_NxD, cos_sin = _begin(scorer.config, scorer.rest, inputs_BxT, segments_BxT)
    for arrays in scorer.blocks:
        x_NxD = _through_block(scorer.config, arrays, x_NxD, cos_sin, segments_BxT, shape=inputs_BxT.shape)
    return _normed(scorer.config, scorer.rest, x_NxD)


def over_logits(
    function: Callable[..., Any], states_NxD: Array, head_DxV: Array, compute: Compute, *arrays: Array
) -> Any:
    """Apply function(logits_CxV, *rows of arrays) to all tokens, C at a time; to call within a jitted function.

    Args:
        function: of float32 logits; returns arrays with C in front.
        states_NxD: float32.
        head_DxV: of a `Scorer`.
        compute: type of the factors of the product.
        *arrays: more arguments, N in front.

    Returns:
        The function's results with N in front.
    """
    N, V = len(states_NxD), head_DxV.shape[1]
    C = next(size for size in range(min(N, max(1, LOGITS // V)), 0, -1) if N % size == 0)

    def chunk(rows: tuple[Array, ...]) -> Any:
        return function(matmul(rows[0], head_DxV, compute), *rows[1:])

    cut = jax.tree.map(lambda array: array.reshape(-1, C, *array.shape[1:]), (states_NxD, *arrays))
    return jax.tree.map(lambda array: array.reshape(N, *array.shape[2:]), jax.lax.map(chunk, cut))


def _chosen(logits_CxV: Array, targets_C: Array) -> Array:
    chosen = jnp.take_along_axis(logits_CxV, targets_C[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(logits_CxV, axis=1)


@partial(jax.jit, static_argnames="compute")
def _log_probability(head_DxV: Array, states_NxD: Array, targets_BxT: Array, *, compute: Compute) -> Array:
    return over_logits(_chosen, states_NxD, head_DxV, compute, targets_BxT.reshape(-1)).reshape(targets_BxT.shape)


def over_blocks(cut: Iterable[Block], function: Callable[[Block], Any]) -> Iterator[tuple[Block, Any]]:
    """Yield each block with what a jitted function makes of it, as NumPy arrays.

    The next block is started before the last one's arrays are waited for, so that the device never waits for us.
    """
    last: tuple[Block, Any] | None = None
    for block in cut:
        made = function(block)
        if last is not None:
            yield last[0], jax.tree.map(np.asarray, last[1])
        last = block, made
    if last is not None:
        yield last[0], jax.tree.map(np.asarray, last[1])


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
        states_NxD = states(scorer, block.inputs, block.segments)
        return _log_probability(scorer.head, states_NxD, block.targets, compute=scorer.config.compute)

    for block, made in over_blocks(blocks(corpus, end, context, positions(), stride), score):
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


def log_probabilities(
    model: Decoder | Scorer, corpus: Corpus, end: int, stride: int | None = None, context: int | None = None
) -> np.ndarray:
    """Return log P(token | earlier tokens of its document) of every token, in nats, float32, shape (M,).

    Args:
        model: the prior.
        corpus: M tokens.
        end: end-of-text id, the context of a document's first token.
        stride: see `lm.evaluation.windows.blocks`.
        context: longest window, in tokens; the model's by default.

    Raises:
        InputError: as `scores`.
    """
    result = np.full(len(corpus.tokens), np.nan, np.float32)
    scorer = model if isinstance(model, Scorer) else prepare(model)
    for place, found in scores(scorer, corpus, end, stride, context):
        result[place] = found
    return result
