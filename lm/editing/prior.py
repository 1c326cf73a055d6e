"""A prior made ready, and one pass of it over documents: probabilities, or an edit's decisions.

Every number depends on its document only. A window lies in a row of its own, or in one whose other windows change no
bit of it (`lm.model.packed`); a row's length follows from the window's; blocks of rows and chunks of the head's rows
have fixed shapes; and no row of a product depends on the others.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lm.data.readers import Unit
from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig, Numbers, Rule
from lm.editing.decide import Decisions, decide
from lm.editing.documents import TokenizedDocument, drawable, inside
from lm.editing.layout import Block, blocks
from lm.editing.prune import Bound, make_bound, may_reach
from lm.errors import InputError
from lm.evaluation.lanes import in_lanes
from lm.evaluation.scoring import Scorer, many_positions, prepare, states
from lm.generation.sampling import document_words
from lm.model.config import Compute
from lm.model.decoder import Decoder, named
from lm.model.matmul import matmul
from lm.model.packed import takes_packed
from lm.model.sharding import batch_sharding, batch_shares, replicated, shardings, stream_sharding
from lm.weights.load import Pretrained

Array = jax.Array

CONTEXT = 1024  # longest window by default
POSITIONS = {"cpu": 256}  # of a block on each device; few, as what the last block of a length lacks is padding
ROWS = {"cpu": 256}  # of the head at a time, on each device
MANY_ROWS = 2048  # on devices that need much at a time to be busy
PARTS = {"cpu": 8}  # lengths of rows to a doubling
FEW_PARTS = 2  # where a shape takes long to compile and little padding is cheap
AHEAD = 2  # chunks that an accelerator is given before the host waits for one
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
        parts: lengths of rows to a doubling; None: rows hold several windows.
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
    parts: int | None
    drawable: Array
    bound: Bound
    devices: int
    mesh: Mesh | None

    @property
    def compute(self) -> Compute:
        """Type of the factors of the products."""
        return self.scorer.config.compute

    @cached_property
    def inside(self) -> dict[Unit, np.ndarray]:
        """Which ids may be drawn and changed inside a unit, bool, (V,): of `lm.editing.documents.inside`."""
        vocabulary = self.scorer.config.vocabulary
        return {unit: inside(self.tokenizer, vocabulary, unit) for unit in get_args(Unit)}


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
        where, devices = shardings(model.config, mesh), batch_shares(mesh)
        arrays = {name: jax.device_put(array, where[name]) for name, array in named(model).items()}
        model = Decoder(model.config, arrays, stream_sharding(mesh))
    scorer = prepare(model, compute)
    config, backend = scorer.config, jax.default_backend()
    vocabulary = config.vocabulary
    several = mesh is None and takes_packed(config.compute, config.head_size)
    allowed = drawable(pretrained.tokenizer, vocabulary)
    return Prior(
        scorer,
        pretrained.tokenizer,
        pretrained.name,
        pretrained.sha256,
        context,
        positions or POSITIONS.get(backend) or many_positions(config),
        ROWS.get(backend, MANY_ROWS) * devices,
        None if several else PARTS.get(backend, FEW_PARTS),
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


def within(
    prior: Prior, documents: Sequence[TokenizedDocument], config: EditConfig
) -> tuple[Array, Sequence[TokenizedDocument]]:
    """Return which ids may be drawn, bool, (V,), and the documents, editable where their unit stays in one piece."""
    if config.unit == "file":
        return prior.drawable, documents
    kept = prior.inside[config.unit]
    inner = [dataclasses.replace(one, editable=one.editable & kept[one.tokens]) for one in documents]
    return prior.drawable & kept, inner


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
    allowed, documents = within(prior, documents, config)

    def function(states_CxD: Array, tokens: Tokens) -> Decisions:
        return _decide(scorer.head, allowed, states_CxD, tokens, numbers, compute=compute, rule=rule)

    def wanted(states_NxD: Array, token_N: Array) -> Array:
        return _may_reach(prior.bound, scorer.head, states_NxD, token_N, numbers.threshold, compute=compute)

    token = _joined(documents)
    number, none = np.full((3, len(token)), np.nan, np.float32), np.zeros((2, len(token)), bool)
    found = Decisions(number[0], none[0], none[1], token, number[1], number[2])
    for place, made in over_tokens(prior, documents, function, wanted if config.prunable else None, whole):
        _check(documents, place, made.probability)
        for into, part in zip(found, made, strict=True):
            into[place] = part
    return [Decisions(*parts) for parts in zip(*(apart(column, documents) for column in found), strict=True)]


def probabilities(prior: Prior, documents: Sequence[TokenizedDocument]) -> list[np.ndarray]:
    """Return P of every token of each document, float32, shape (M,); arguments and errors as of `decisions`."""

    def function(states_CxD: Array, tokens: Tokens) -> Array:
        return _probability(prior.scorer.head, states_CxD, tokens.token, compute=prior.compute)

    found = np.zeros(len(_joined(documents)), np.float32)
    for place, made in over_tokens(prior, documents, function):
        _check(documents, place, made)
        found[place] = made
    return apart(found, documents)


def apart(column: np.ndarray, documents: Sequence[TokenizedDocument]) -> list[np.ndarray]:
    """Return the parts of a column over the tokens of all documents, one after the other, that are each one's."""
    return np.split(column, _starts(documents)[1:-1]) if documents else []


def _joined(documents: Sequence[TokenizedDocument]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *(one.tokens for one in documents)]).astype(np.int32)


def _starts(documents: Sequence[TokenizedDocument]) -> np.ndarray:
    return np.cumsum([0, *(len(one.tokens) for one in documents)])


class _Chosen(NamedTuple):
    """S tokens to which a function is to be applied: columns of length S.

    Attributes:
        state: what the prior's states before them are, (S, D) on the host, or their rows in a block's, (S,).
        document: number of each one's.
        position: in its document.
        token: ids.
        editable: bool.
    """

    state: np.ndarray
    document: np.ndarray
    position: np.ndarray
    token: np.ndarray
    editable: np.ndarray

    def part(self, begin: int, end: int | None) -> "_Chosen":
        return _Chosen(*(column[begin:end] for column in self))


def over_tokens(
    prior: Prior,
    documents: Sequence[TokenizedDocument],
    function: Callable[[Array, Tokens], Any],
    wanted: Callable[[Array, Array], Array] | None = None,
    whole: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Any]]:
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
        Places in the documents' tokens, one document after the other (see `apart`), and the function's results for
        these; each place at most once.

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
    words, starts = document_words([one.key for one in documents]), _starts(documents)
    passes = _passes(prior, documents, wanted, np.zeros(len(documents), bool) if whole is None else whole)
    on_host = jax.default_backend() == "cpu"
    chunks = _host_chunks if on_host else _device_chunks
    # An accelerator goes on with the next blocks while the host waits for an earlier chunk.
    ahead: deque[tuple[_Chosen, Any]] = deque()

    def finished() -> tuple[np.ndarray, Any]:
        chosen, made = ahead.popleft()
        number = len(chosen.token)
        return starts[chosen.document] + chosen.position, jax.tree.map(lambda array: np.asarray(array)[:number], made)

    for states_CxD, chosen in chunks(prior, passes):
        filled = np.minimum(np.arange(prior.rows), len(chosen.token) - 1)  # the last one fills a chunk up
        tokens = Tokens(
            chosen.token[filled],
            chosen.editable[filled],
            words[chosen.document[filled]],
            chosen.position[filled],
        )
        ahead.append((chosen, function(*_placed(prior, (states_CxD, tokens)))))
        if len(ahead) > (0 if on_host else AHEAD):
            yield finished()
    while ahead:
        yield finished()


def _host_chunks(prior: Prior, passes: Iterator[tuple[Array, _Chosen]]) -> Iterator[tuple[np.ndarray, _Chosen]]:
    """Yield full chunks, of tokens of several blocks, and at the end what is left: a CPU's time goes by rows."""
    waiting: list[_Chosen] = []

    def take(least: int) -> Iterator[tuple[np.ndarray, _Chosen]]:
        while waiting and sum(len(one.token) for one in waiting) >= least:
            columns = _Chosen(*(np.concatenate(column) for column in zip(*waiting, strict=True)))
            rest = columns.part(prior.rows, None)
            waiting[:] = [rest] if len(rest.token) else []
            chosen = columns.part(0, prior.rows)
            yield chosen.state[np.minimum(np.arange(prior.rows), len(chosen.token) - 1)], chosen

    for states_NxD, chosen in passes:
        waiting.append(chosen._replace(state=np.asarray(states_NxD)[chosen.state]))
        yield from take(prior.rows)
    yield from take(1)


def _device_chunks(prior: Prior, passes: Iterator[tuple[Array, _Chosen]]) -> Iterator[tuple[Array, _Chosen]]:
    """Yield the chunks of each block, the last partly filled: the states never leave the accelerator."""
    for states_NxD, chosen in passes:
        for begin in range(0, len(chosen.token), prior.rows):
            part = chosen.part(begin, begin + prior.rows)
            filled = np.minimum(np.arange(prior.rows), len(part.token) - 1)
            yield _rows(states_NxD, part.state[filled].astype(np.int32)), part


@jax.jit
def _rows(states_NxD: Array, row_C: Array) -> Array:
    return jnp.take(states_NxD, row_C, axis=0)


def _passes(
    prior: Prior,
    documents: Sequence[TokenizedDocument],
    wanted: Callable[[Array, Array], Array] | None,
    whole: np.ndarray,
) -> Iterator[tuple[Array, _Chosen]]:
    """Yield the states of each block, shape (N, D), and which of its targets are wanted, by rows of the states."""

    def chosen(block: Block, found: np.ndarray | None) -> _Chosen:
        kept = block.scored.reshape(-1)
        if found is not None:
            kept = kept & (found | whole[block.document.reshape(-1)])
        row = np.flatnonzero(kept)
        columns = (block.document, block.position, block.targets, block.editable)
        return _Chosen(row, *(column.reshape(-1)[row] for column in columns))

    def function(block: Block) -> tuple[Array, Array | None]:
        inputs, targets = _placed(prior, (block.inputs, block.targets.reshape(-1)))
        made = states(prior.scorer, inputs, block.segments, block.most)
        if wanted is None or whole[block.document[block.scored]].all():
            return made, None
        return made, wanted(made, targets)

    def fetch(made: tuple[Array, Array | None]) -> tuple[Array, np.ndarray | None]:
        return made[0], None if made[1] is None else np.asarray(made[1])

    cut = blocks(documents, prior.tokenizer.end, prior.context, prior.positions, prior.devices, parts=prior.parts)
    for block, (made, found) in in_lanes(cut, function, None if prior.mesh is None else 1, fetch):
        yield made, chosen(block, found)


def _placed(prior: Prior, arrays: Any) -> Any:
    return arrays if prior.mesh is None else jax.device_put(arrays, batch_sharding(prior.mesh))


def _check(documents: Sequence[TokenizedDocument], place: np.ndarray, probability: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(probability))
    if len(wrong):
        document = int(np.searchsorted(_starts(documents), place[wrong[0]], side="right")) - 1
        raise InputError(
            f"the prior gives {documents[document].key} a probability that is no number; its weights are damaged or "
            "overflow, fetch or train it again"
        )
