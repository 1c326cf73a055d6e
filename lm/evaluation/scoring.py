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
from flax import nnx

from lm.data.corpus import Corpus
from lm.data.packing import Windows
from lm.errors import InputError
from lm.evaluation.windows import Block, blocks
from lm.model.config import Compute, ModelConfig
from lm.model.decoder import Decoder, from_arrays, named
from lm.model.matmul import matmul
from lm.model.parameters import is_matrix

Array = jax.Array

LOGITS = 2**24  # numbers in memory at a time: 64 MB


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model made ready for many passes.

    Attributes:
        config: of the model.
        graph: what a jitted function takes as a static argument; merged with `state`, it is the model.
        state: arrays, the blocks' matrices in the type of the products.
        head: matrix of the head, (D, V), in the type of the products.
    """

    config: ModelConfig
    graph: Any
    state: Any
    head: Array


def prepare(model: Decoder, compute: Compute | None = None) -> Scorer:
    """Return a model ready to score: its matrices cast, and the head transposed, once instead of in every pass.

    Args:
        model: it stays as it is.
        compute: type of the factors of the products; the model's own by default.
    """
    config = dataclasses.replace(model.config, compute=compute or model.config.compute)
    arrays = {
        name: array.astype(config.compute) if name.startswith("blocks.") and is_matrix(name, config) else array
        for name, array in named(model).items()
    }
    graph, state = nnx.split(from_arrays(config, arrays))
    return Scorer(config, graph, state, model.head_weight().astype(config.compute))


def positions() -> int:
    """Return how many positions a block has: enough to keep the device busy, few enough for a CPU's caches."""
    return 2048 if jax.default_backend() == "cpu" else 16384


def states(graph: Any, state: Any, inputs_BxT: Array, segments_BxT: Array) -> Array:
    """Return the normalised states of packed windows, float32, shape (N, D); to call within a jitted function."""
    return nnx.merge(graph, state).hidden(inputs_BxT, segments_BxT)


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


@partial(jax.jit, static_argnums=0)
def _log_probability(
    graph: Any, state: Any, head_DxV: Array, inputs_BxT: Array, targets_BxT: Array, segments_BxT: Array
) -> Array:
    compute = nnx.merge(graph, state).config.compute
    states_NxD = states(graph, state, inputs_BxT, segments_BxT)
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


def over_windows(
    model: Decoder, windows: Windows, function: Callable[..., tuple[Array, ...]], *arrays: np.ndarray
) -> list[np.ndarray]:
    """Apply function(graph, state, inputs, targets, *rows of arrays) to windows, one a row, block by block.

    Args:
        model: to pass, split.
        windows: N of them, T positions each.
        function: jitted, graph static; returns arrays with the rows in front.
        *arrays: more arguments, N in front.

    Returns:
        The function's results for all windows, N in front.
    """
    graph, state = nnx.split(model)
    N, T = windows.inputs.shape
    rows = max(1, positions() // T)
    parts: list[list[np.ndarray]] = []
    for start in range(0, N, rows):
        # Every block has the same shape: the last one is filled up with copies of the last window.
        chosen = np.minimum(np.arange(start, start + rows), N - 1)
        made = function(graph, state, windows.inputs[chosen], windows.targets[chosen], *(a[chosen] for a in arrays))
        parts.append([np.asarray(array)[: N - start] for array in made])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


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
        return _log_probability(scorer.graph, scorer.state, scorer.head, block.inputs, block.targets, block.segments)

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
