"""Edits of a tokenized corpus, for experiments: thresholds by quantile, and random edits as a control.

One pass of the prior gives each token's probability and what a redraw would give there; which tokens are redrawn is
decided after it. So arms of an experiment share their draws, and differ in the choice of positions alone.
"""

import dataclasses
import math

import numpy as np

from lm.data.corpus import Corpus
from lm.editing.config import EditConfig
from lm.editing.documents import TokenizedDocument
from lm.editing.prior import Prior, decisions
from lm.errors import InputError


@dataclasses.dataclass(frozen=True)
class Proposal:
    """For every token of a corpus, its probability and the token that a redraw gives.

    Attributes:
        probability: P(x_i | x_<i), float32, shape (M,).
        draw: redrawn ids, shape (M,); the original where a token is not editable.
        editable: False for the first token of each document, shape (M,).
    """

    probability: np.ndarray
    draw: np.ndarray
    editable: np.ndarray


def propose(prior: Prior, corpus: Corpus, config: EditConfig) -> Proposal:
    """Make one pass of the prior over a corpus.

    Args:
        prior: its ids are the corpus'.
        corpus: M tokens; documents are keyed by their ids.
        config: of the draws; what it selects is ignored.

    Raises:
        InputError: ids that the prior does not have, a probability that is no number.
    """
    editable = np.ones(len(corpus.tokens), bool)
    editable[corpus.starts[:-1][corpus.lengths > 0]] = False
    documents = [
        TokenizedDocument(key, corpus.tokens[begin:end].astype(np.int32), np.zeros((end - begin, 2), np.int64),
                          editable[begin:end], b"")
        for key, begin, end in zip(corpus.ids, corpus.starts[:-1], corpus.starts[1:], strict=True)
    ]  # fmt: skip
    everywhere = dataclasses.replace(config, select="at-least", threshold=0.0, delete_below=0.0)
    made = decisions(prior, documents, everywhere, full=True)
    return Proposal(
        np.concatenate([one.probability for one in made]), np.concatenate([one.token for one in made]), editable
    )


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


def confident_positions(proposal: Proposal, threshold: float) -> np.ndarray:
    """Return where P >= threshold and the token is editable, bool, shape (M,)."""
    return (proposal.probability >= np.float32(threshold)) & proposal.editable


def random_positions(corpus: Corpus, proposal: Proposal, changes: int, seed: int) -> np.ndarray:
    """Return uniformly random positions whose redraws change `changes` tokens: a control for confidence selection.

    Positions are visited in a random order until the number of tokens that really change is met; a position that
    is redrawn to itself counts as selected.

    Args:
        corpus: the original.
        proposal: of `propose` for it.
        changes: tokens that end up different.
        seed: of the order.

    Returns:
        Selected positions, bool, shape (M,).

    Raises:
        InputError: fewer than `changes` tokens would change if all were redrawn.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(proposal.editable))
    changed = np.cumsum(proposal.draw[order] != corpus.tokens[order])
    if changes > (changed[-1] if len(changed) else 0):
        raise InputError(f"redrawing every token changes fewer than {changes}; ask for fewer changes")
    selected = np.zeros(len(corpus.tokens), bool)
    selected[order[: int(np.searchsorted(changed, changes)) + 1 if changes else 0]] = True
    return selected


def redraw(corpus: Corpus, proposal: Proposal, selected: np.ndarray) -> np.ndarray:
    """Return the tokens after redrawing the selected positions, type of the corpus' tokens, shape (M,)."""
    return np.where(selected, proposal.draw, corpus.tokens).astype(corpus.tokens.dtype)
