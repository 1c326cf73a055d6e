"""Token-level editing: Algorithm 1 of the paper (arXiv 2412.14689, section 4.1).

For each position i of a document, with the prior's P(. | x_<i) from one pass over the *original* text: if
P(x_i | x_<i) >= p, x_i is redrawn from the k likeliest tokens at a temperature (the original among them, so a
redrawn token may be the same); else it stays. The first token of a document is never edited, as in the
authors' code, whose engine has no probability for it.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.data.corpus import Corpus
from lm.data.packing import windows
from lm.errors import InputError
from lm.evaluation.scoring import over_windows
from lm.generation.sampling import document_words, draw_candidate, uniforms
from lm.model.decoder import Decoder

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """How tokens are redrawn.

    Attributes:
        candidates: k, the likeliest tokens to draw from (k of the vocabulary: all of it).
        temperature: of the draw; the paper's is 1, its code's 1.5.
        strict: select P > p (the authors' code) instead of P >= p (the paper).
        seed: of the draws.
    """

    candidates: int = 8
    temperature: float = 1.0
    strict: bool = False
    seed: int = 0

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if self.candidates < 1 or not self.temperature > 0:
            raise InputError("candidates must be at least 1 and the temperature positive; change them")


class Decisions(NamedTuple):
    """What Algorithm 1 does at each position, arrays of one shape.

    Attributes:
        probability: of the original token under the prior, float32.
        draw: token that a redraw gives, int32.
        selected: whether the position is redrawn.
        token: the edited text.
    """

    probability: Array | np.ndarray
    draw: Array | np.ndarray
    selected: Array | np.ndarray
    token: Array | np.ndarray


@functools.partial(jax.jit, static_argnames=("candidates", "strict"))
def decide(
    logits_NxV: Array,
    token_N: Array,
    editable_N: Array,
    uniform_N: Array,
    threshold: Array | float,
    temperature: Array | float,
    *,
    candidates: int,
    strict: bool,
) -> Decisions:
    """Algorithm 1 for N positions: from tokens and the prior to decisions; pure.

    Args:
        logits_NxV: of the prior given the original text before each position, float32.
        token_N: original ids.
        editable_N: False where a token must stay whatever its probability.
        uniform_N: in [0, 1), the randomness of each position, float32.
        threshold: p; above 1 nothing is edited.
        temperature: of the draw.
        candidates: k.
        strict: select P > p instead of P >= p.
    """
    chosen = jnp.take_along_axis(logits_NxV, token_N[:, None], axis=1)[:, 0]
    probability = jnp.exp(chosen - jax.nn.logsumexp(logits_NxV, axis=1))
    above = probability > threshold if strict else probability >= threshold
    selected = above & editable_N
    draw = draw_candidate(logits_NxV, uniform_N, temperature, candidates)
    return Decisions(probability, draw, selected, jnp.where(selected, draw, token_N))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("candidates",))
def _propose(
    graph: Any,
    state: Any,
    inputs_BxT: Array,
    targets_BxT: Array,
    words_Bx2: Array,
    position_BxT: Array,
    seed_B: Array,
    temperature_B: Array,
    *,
    candidates: int,
) -> tuple[Array, Array]:
    model = nnx.merge(graph, state)
    T = inputs_BxT.shape[1]
    logits_NxV = model.head(model.hidden(inputs_BxT))
    # End-of-text is no token of a document: it is neither edited nor drawn.
    logits_NxV = logits_NxV.at[:, -1].set(-jnp.inf)
    uniform = uniforms(seed_B[0], jnp.repeat(words_Bx2, T, axis=0), position_BxT.reshape(-1))
    everywhere = jnp.ones(uniform.shape, bool)
    made = decide(
        logits_NxV,
        targets_BxT.reshape(-1),
        everywhere,
        uniform,
        0.0,
        temperature_B[0],
        candidates=candidates,
        strict=False,
    )
    return made.probability.reshape(-1, T), made.draw.reshape(-1, T)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """For every token of a corpus, its probability and the token that a redraw gives.

    Attributes:
        probability: P(x_i | x_<i) among tokens other than end-of-text, float32, shape (M,).
        draw: redrawn ids, int32, shape (M,).
        editable: False for the first token of each document, shape (M,).
    """

    probability: np.ndarray
    draw: np.ndarray
    editable: np.ndarray


def propose(model: Decoder, corpus: Corpus, end: int, config: EditConfig, stride: int | None = None) -> Proposal:
    """Make one pass of the prior over a corpus; the threshold is applied after it, by `apply`.

    The draw at a position is keyed by (seed, document id, position) and made whether or not it will be used,
    so that it depends neither on the threshold nor on what else is edited.

    Args:
        model: the prior; its last id is end-of-text.
        corpus: M tokens.
        end: end-of-text id.
        config: of the draws.
        stride: see `lm.data.packing.windows`; half a context by default, so that a token of a long document has at
            least half a window before it.

    Raises:
        InputError: more candidates than tokens to draw.
    """
    if config.candidates >= model.config.vocabulary:
        raise InputError(
            f"{config.candidates} candidates exceed the {model.config.vocabulary - 1} of the prior; use fewer"
        )
    cut = windows(corpus, end, model.config.context, stride or model.config.context // 2)
    first = np.max(cut.place, axis=1)  # any scored position names the document
    owner = np.searchsorted(corpus.starts, first, side="right") - 1
    words = document_words(corpus.ids)[owner]
    position = np.maximum(cut.place - corpus.starts[owner][:, None], 0).astype(np.int32)
    number = len(cut.inputs)
    function = functools.partial(_propose, candidates=config.candidates)
    probability, draw = over_windows(
        model,
        cut,
        function,
        words,
        position,
        np.full(number, config.seed, np.int32),
        np.full(number, config.temperature, np.float32),
    )
    scored, M = cut.place >= 0, len(corpus.tokens)
    result = np.zeros(M, np.float32), np.zeros(M, np.int32)
    result[0][cut.place[scored]] = probability[scored]
    result[1][cut.place[scored]] = draw[scored]
    editable = np.ones(M, bool)
    editable[corpus.starts[:-1][corpus.lengths > 0]] = False
    return Proposal(*result, editable)


def quantile_threshold(probability: np.ndarray, share: float) -> float:
    """Return the largest p at which P >= p selects at least `share` of the given positions.

    It is the ceil(share M)-th largest probability; ties at it are all selected.

    Args:
        probability: shape (M,).
        share: in (0, 1].

    Raises:
        InputError: a share outside (0, 1], or no positions.
    """
    if not 0 < share <= 1 or not len(probability):
        raise InputError(f"a share of {share} of {len(probability)} tokens cannot be selected; use a share in (0, 1]")
    return float(np.sort(probability)[-math.ceil(share * len(probability))])


def apply(corpus: Corpus, proposal: Proposal, threshold: float, strict: bool = False) -> Decisions:
    """Edit the selected tokens of a corpus.

    Args:
        corpus: the original.
        proposal: of `propose` for it.
        threshold: p.
        strict: select P > p instead of P >= p.
    """
    above = proposal.probability > threshold if strict else proposal.probability >= threshold
    return _redraw(corpus, proposal, above & proposal.editable)


def _redraw(corpus: Corpus, proposal: Proposal, selected: np.ndarray) -> Decisions:
    token = np.where(selected, proposal.draw, corpus.tokens).astype(corpus.tokens.dtype)
    return Decisions(proposal.probability, proposal.draw, selected, token)


def apply_random(corpus: Corpus, proposal: Proposal, changes: int, seed: int) -> Decisions:
    """Redraw uniformly random positions until `changes` tokens differ: a control for confidence selection.

    Positions are visited in a random order and redrawn from the same candidates, until the number of tokens
    that really change is met; a position that is redrawn to itself counts as selected.

    Args:
        corpus: the original.
        proposal: of `propose` for it.
        changes: tokens that end up different.
        seed: of the order.

    Raises:
        InputError: fewer than `changes` tokens would change if all were redrawn.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(proposal.editable))
    changed = np.cumsum(proposal.draw[order] != corpus.tokens[order])
    if changes > (changed[-1] if len(changed) else 0):
        raise InputError(f"redrawing every token changes fewer than {changes}; ask for fewer changes")
    selected = np.zeros(len(corpus.tokens), bool)
    selected[order[: int(np.searchsorted(changed, changes)) + 1 if changes else 0]] = True
    return _redraw(corpus, proposal, selected)
