"""A prior made ready, and one pass of it over documents: probabilities, or an edit's decisions.

Every number depends on its document only. A window lies in a row of its own, whose length follows from the window's;
blocks of rows and chunks of the head's rows have fixed shapes; and no row of a product depends on the others.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig, Numbers, Rule
from lm.editing.decide import Decisions, decide
from lm.editing.documents import TokenizedDocument, drawable
from lm.editing.layout import Block, blocks
from lm.editing.prune import Bound, make_bound, may_reach
from lm.errors import InputError
from lm.evaluation.lanes import in_lanes
from lm.evaluation.scoring import Scorer, prepare, states
from lm.generation.sampling import document_words
from lm.model.config import Compute
from lm.model.decoder import from_arrays, named
from lm.model.matmul import matmul
from lm.model.sharding import BATCH, batch_sharding, replicated, shardings
from lm.weights.load import Pretrained

Array = jax.Array

CONTEXT = 1024  # longest window by default
POSITIONS = {"cpu": 256}  # of a block on each device; few, as what the last block of a length lacks is padding
ROWS = {"cpu": 256}  # of the head at a time, on each device
MANY_POSITIONS, MANY_ROWS = 16384, 1024  # on devices that need much at a time to be busy
BOUND = 2048  # columns of the head that the bound looks at: the first ids, which tokenizers give to frequent tokens


@dataclasses.dataclass(frozen=True)
class Prior:
    """A model made ready for many passes.

    Attributes:
        scorer: its arrays.
        tokenizer: of the model.
        name: as it was asked for.
        sha256: of the weight files' content.
        context: longest window, tokens.
        positions: of a block of windows on each device.
        rows: of the head at a time, on all devices.
        drawable: which ids may be drawn, bool, (V,).
        bound: that rules positions out.
        devices: which share the rows of a block.
        mesh: of these and of those that share the parameters; None for one device.
    """

    scorer: Scorer
    tokenizer: Tokenizer
    name: str
    sha256: str
    context: int
    positions: int
    rows: int
    drawable: Array
    bound: Bound
    devices: int
    mesh: Mesh | None

    @property
    def compute(self) -> Compute:
        """Type of the factors of the products."""
        return self.scorer.config.compute


class Tokens(NamedTuple):
    """C tokens of any documents.

    Attributes:
        token: ids, int32, (C,).
        editable: bool, (C,).
        words: of `lm.generation.sampling.document_words`, of each one's document, uint32, (C, 2).
        position: in its document, int32, (C,).
    """

    token: Any
    editable: Any
    words: Any
    position: Any


def prepare_prior(
    pretrained: Pretrained,
    *,
    compute: Compute = "bfloat16",
    context: int | None = None,
    positions: int | None = None,
    mesh: Mesh | None = None,
) -> Prior:
    """Return a prior made ready.

    Args:
        pretrained: the model and its tokenizer.
        compute: type of the factors of the products.
        context: longest window in tokens; by default the model's, at most `CONTEXT`.
        positions: of a block of windows, on each device that takes a share of them.
        mesh: of devices, over which windows and parameters are shared out; by default the first one has all.

    Raises:
        InputError: a context that the model does not have.
    """
    model, devices = pretrained.model, 1
    longest = model.config.context
    context = min(longest, CONTEXT) if context is None else context
    if not 2 <= context <= longest:
        raise InputError(f"a context of {context} tokens does not fit the prior; use 2 to {longest}")
    if mesh is not None:
        where, devices = shardings(model.config, mesh), int(np.prod([mesh.shape[axis] for axis in BATCH]))
        model = from_arrays(
            model.config, {name: jax.device_put(array, where[name]) for name, array in named(model).items()}
        )
    scorer = prepare(model, compute)
    vocabulary = model.config.vocabulary
    allowed = drawable(pretrained.tokenizer, vocabulary)
    return Prior(
        scorer,
        pretrained.tokenizer,
        pretrained.name,
        pretrained.sha256,
        context,
        positions or POSITIONS.get(jax.default_backend(), MANY_POSITIONS),
        ROWS.get(jax.default_backend(), MANY_ROWS) * devices,
        jnp.asarray(allowed) if mesh is None else jax.device_put(allowed, replicated(mesh)),
        make_bound(scorer.head, jnp.arange(min(vocabulary, BOUND))),
        devices,
        mesh,
    )


@partial(jax.jit, static_argnames=("compute", "rule"))
def _decide(
    head_DxV: Array,
    drawable_V: Array,
    states_CxD: Array,
    tokens: Tokens,
    numbers: Numbers,
    *,
    compute: Compute,
    rule: Rule,
) -> Decisions:
    logits = matmul(states_CxD, head_DxV, compute)
    return decide(logits, tokens.token, tokens.editable, drawable_V, tokens.words, tokens.position, numbers, rule=rule)


@partial(jax.jit, static_argnames="compute")
def _probability(head_DxV: Array, states_CxD: Array, token_C: Array, *, compute: Compute) -> Array:
    logits = matmul(states_CxD, head_DxV, compute)
    chosen = jnp.take_along_axis(logits, token_C[:, None], axis=1)[:, 0]
    return jnp.minimum(jnp.exp(chosen - jax.nn.logsumexp(logits, axis=1)), 1.0)


_may_reach = jax.jit(may_reach, static_argnames="compute")


def decisions(
    prior: Prior, documents: Sequence[TokenizedDocument], config: EditConfig, *, full: bool | Sequence[bool] = False
) -> list[Decisions]:
    """Return what an edit does to each document, NumPy arrays aligned with its tokens.

    Args:
        prior: of `prepare_prior`.
        documents: with the prior's ids.
        config: of the edit.
        full: give probability and entropy everywhere, also where the edit does not need them; for all documents, or
            for each one.

    Raises:
        InputError: ids that the prior does not have, a probability that is no number.
    """
    whole = np.broadcast_to(np.asarray(full, bool), len(documents))
    scorer, numbers, rule, compute = prior.scorer, config.numbers, config.rule, prior.compute

    def function(states_CxD: Array, tokens: Tokens) -> Decisions:
        return _decide(scorer.head, prior.drawable, states_CxD, tokens, numbers, compute=compute, rule=rule)

    def wanted(states_NxD: Array, token_N: Array) -> Array:
        return _may_reach(prior.bound, scorer.head, states_NxD, token_N, numbers.threshold, compute=compute)

    found = [
        Decisions(
            np.full(len(one.tokens), np.nan, np.float32),
            np.zeros(len(one.tokens), bool),
            np.zeros(len(one.tokens), bool),
            one.tokens.astype(np.int32),
            np.full(len(one.tokens), np.nan, np.float32),
            np.full(len(one.tokens), np.nan, np.float32),
        )
        for one in documents
    ]
    for number, place, made in over_tokens(prior, documents, function, wanted if config.prunable else None, whole):
        _check(documents[number], made.probability)
        for into, part in zip(found[number], made, strict=True):
            into[place] = part
    return found


def probabilities(prior: Prior, documents: Sequence[TokenizedDocument]) -> list[np.ndarray]:
    """Return P of every token of each document, float32, shape (M,); arguments and errors as of `decisions`."""

    def function(states_CxD: Array, tokens: Tokens) -> Array:
        return _probability(prior.scorer.head, states_CxD, tokens.token, compute=prior.compute)

    found = [np.zeros(len(one.tokens), np.float32) for one in documents]
    for number, place, made in over_tokens(prior, documents, function):
        _check(documents[number], made)
        found[number][place] = made
    return found


def over_tokens(
    prior: Prior,
    documents: Sequence[TokenizedDocument],
    function: Callable[[Array, Tokens], Any],
    wanted: Callable[[Array, Array], Array] | None = None,
    whole: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray, Any]]:
    """Apply a function to the prior's states before the tokens of documents.

    Args:
        prior: of `prepare_prior`.
        documents: with the prior's ids.
        function: of normalised states (C, D) and their `Tokens`, C always the same; jitted; returns arrays with C in
            front.
        wanted: of states (N, D) and token ids (N,), jitted: to which of them the function is applied, bool, (N,); to
            all by default.
        whole: documents to all of whose tokens it is applied nevertheless, bool, one each; none by default.

    Yields:
        A document's number, positions in it, and the function's results for these; each position at most once.

    Raises:
        InputError: ids that the prior does not have.
    """
    for document in documents:
        largest = int(document.tokens.max(initial=0))
        if largest >= prior.scorer.config.vocabulary:
            raise InputError(
                f"{document.key} has the id {largest} and the prior only {prior.scorer.config.vocabulary}; "
                "tokenize with the prior's tokenizer"
            )
    words = document_words([one.key for one in documents])
    queue: list[tuple[np.ndarray, ...]] = []  # document, position, state, token, editable

    def flush(least: int) -> Iterator[tuple[int, np.ndarray, Any]]:
        while queue and sum(len(part[0]) for part in queue) >= least:
            columns = [np.concatenate(column) for column in zip(*queue, strict=True)]
            chosen = np.minimum(np.arange(prior.rows), len(columns[0]) - 1)  # the last one fills a chunk up
            document, position, state, token, editable = (column[chosen] for column in columns)
            tokens = Tokens(token, editable, words[document], position.astype(np.int32))
            made = jax.tree.map(np.asarray, function(*_placed(prior, (state, tokens))))
            number = min(prior.rows, len(columns[0]))
            queue[:] = [tuple(column[number:] for column in columns)] if len(columns[0]) > number else []
            for one in np.unique(document[:number]):
                mine = np.flatnonzero(document[:number] == one)
                yield int(one), position[mine], jax.tree.map(lambda array, mine=mine: array[mine], made)

    for block, state, kept in _passes(
        prior, documents, wanted, np.zeros(len(documents), bool) if whole is None else whole
    ):
        row, column = np.nonzero(kept)
        document, position = block.document[row], block.begin[row] + column
        rows = state.reshape(*kept.shape, -1)[row, column]
        queue.append((document, position, rows, block.targets[row, column], block.editable[row, column]))
        yield from flush(prior.rows)
    yield from flush(1)


def _passes(
    prior: Prior,
    documents: Sequence[TokenizedDocument],
    wanted: Callable[[Array, Array], Array] | None,
    whole: np.ndarray,
) -> Iterator[tuple[Block, np.ndarray, np.ndarray]]:
    """Yield blocks with their states, shape (N, D), and which targets are wanted, shape (B, T)."""

    def kept(block: Block, found: np.ndarray | None) -> np.ndarray:
        column = np.arange(block.inputs.shape[1])
        scored = (column >= block.scored[:, :1]) & (column < block.scored[:, 1:])
        if found is None:
            return scored
        return scored & (found.reshape(scored.shape) | whole[block.document][:, None])

    def function(block: Block) -> tuple[Array, Array | None]:
        inputs, targets = _placed(prior, (block.inputs, block.targets.reshape(-1)))
        made = states(prior.scorer, inputs)
        return made, None if wanted is None or whole[block.document].all() else wanted(made, targets)

    cut = blocks(documents, prior.tokenizer.end, prior.context, prior.positions, prior.devices)
    for block, (made, found) in in_lanes(cut, function, None if prior.mesh is None else 1):
        yield block, made, kept(block, found)


def _placed(prior: Prior, arrays: Any) -> Any:
    return arrays if prior.mesh is None else jax.device_put(arrays, batch_sharding(prior.mesh))


def _check(document: TokenizedDocument, probability: np.ndarray) -> None:
    if not np.isfinite(probability).all():
        raise InputError(
            f"the prior gives {document.key} a probability that is no number; its weights are damaged or overflow, "
            "fetch or train it again"
        )
