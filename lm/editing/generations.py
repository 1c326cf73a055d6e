"""Editing again and again with a fixed prior: how fast the confident share falls, why, and how far text drifts.

Generation g = 0 is the source. Each edit reads the text of the generation before, tokenized anew, with fresh
randomness. S_g is the set of selected positions of generation g, M_g its tokens, s_g = |S_g| / M_g (table 15 of the
paper, whose "Gen 1" is the source).

Why the share falls (this work). Let q_i be the chance that a redraw of position i gives the original token, and c_i
that it gives a token which the rule selects again in the same context. With R_i, whether the drawn token is one, an
identity holds:

    |S_{g+1}| - |S_g| = - sum_{S_g} (1 - c_i)  +  sum_{S_g} (R_i - c_i)  +  X,

expected loss, noise of the draws (mean 0, variance sum c_i (1 - c_i): positions draw independently), and X, the
crossings: positions whose own token did not decide, because the words before them changed, or because the edited
text is cut into other tokens. X = (entered) - (left): tokens selected now that were not before, less redraws that
were confident in the old context and are not selected in the new one.

For a threshold p > 1/2 at most one token of a context has P >= p, so c_i = q_i, and a token that changes is never
selected again in its context. Then i in S_0 is still selected after g edits with chance q_i^g, and without crossings

    E s_g M_0 = sum_{S_0} q_i^g     (in general sum_{S_0} c_i^g, as long as the candidates at a position do not depend
                                     on the token that stands there):

the first generation's numbers predict all others. The decay is not geometric but slows, for by Jensen's inequality
E q^{g+1} / E q^g grows with g: what survives is what is surer. At temperature 1 with candidates that hold the
original, q_i >= p_i >= p: the share falls by at most 1 - p a generation, 1 % at p = .99. Table 15's 5.9 % needs a
higher temperature (`lm.editing.redraw.least_same`: at most 8.2 % with the released code's 1.5 and 8 candidates), or
crossings. Its second ratio is a test: the three shares imply E q and Var q = E q^2 - (E q)^2 >= 0.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.data.tokenizer import Tokenizer
from lm.editing.config import EditConfig, Numbers, Rule
from lm.editing.decide import Decisions, decide
from lm.editing.documents import DocumentEncoder, TokenizedDocument
from lm.editing.drift import BUCKETS, bigram_counts, divergence, edit_distance, new_ngrams
from lm.editing.editor import edited_text
from lm.editing.mergeable import UNIT, Moments, units
from lm.editing.prior import Prior, Tokens, apart, over_tokens, within
from lm.editing.redraw import Chances, chances, least_same, selects
from lm.errors import InputError
from lm.model.config import Compute
from lm.model.matmul import matmul

Array = jax.Array

LONGEST = 4  # n of the n-grams
BATCH = 1 << 16  # tokens of documents that are edited together through all generations
LEAST = np.float32(np.finfo(np.float32).tiny)

OF_TEXT = ("tokens", "selected", "nll", "source_tokens", "source_nll")
OF_EDIT = (
    "tokens", "selected", "changed", "deleted", "redrawn", "expected_redrawn", "variance_redrawn",
    "again", "expected_again", "variance_again", "level", "expected_level",
    "next_selected", "stayed", "replaced", "entered", "left",
)  # fmt: skip
COUNTED = ("changed", "deleted", "redrawn", "again", "next_selected", "stayed", "replaced", "entered", "left")
OF_DRIFT = ("distance", "longer", *(f"{kind}_{n}" for kind in ("new", "all") for n in range(1, LONGEST + 1)))


def generation_seed(seed: int, generation: int) -> int:
    """Return the seed of an edit's draws: of the first edit the run's own, of later ones a hash of both.

    Args:
        seed: of the run.
        generation: 1 for the first edit.
    """
    if generation == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {generation}".encode()).digest()[:4], "big") >> 1


class Pass(NamedTuple):
    """One pass of the prior over a document.

    Attributes:
        decisions: with every probability.
        chances: of a redraw at each position, meant where one is selected.
    """

    decisions: Decisions
    chances: Chances


@functools.partial(jax.jit, static_argnames=("compute", "rule"))
def _pass(
    head_DxV: Array,
    drawable_V: Array,
    states_CxD: Array,
    tokens: Tokens,
    numbers: Numbers,
    *,
    compute: Compute,
    rule: Rule,
) -> Pass:
    logits = matmul(states_CxD, head_DxV, compute)
    token, editable, words, position = tokens
    made = decide(logits, token, editable, drawable_V, words, position, numbers, rule=rule)
    return Pass(made, chances(logits, token, drawable_V, numbers, rule=rule))


def passes(prior: Prior, documents: Sequence[TokenizedDocument], config: EditConfig) -> list[Pass]:
    """Return what an edit does to each document and the chances of its redraws, NumPy arrays by token.

    Args:
        prior: of `lm.editing.prior.prepare_prior`.
        documents: with the prior's ids.
        config: of the edit.
    """
    allowed, documents = within(prior, documents, config)

    def function(states_CxD: Array, tokens: Tokens) -> Pass:
        arrays = prior.scorer.head, allowed, states_CxD, tokens, config.numbers
        return _pass(*arrays, compute=prior.compute, rule=config.rule)

    kinds = np.float32, bool, bool, np.int32, *[np.float32] * 5
    size = sum(len(one.tokens) for one in documents)
    found = [np.zeros(size, kind) for kind in kinds]
    for place, made in over_tokens(prior, documents, function):
        for into, column in zip(found, jax.tree.leaves(made), strict=True):
            into[place] = column
    columns = zip(*(apart(column, documents) for column in found), strict=True)
    return [Pass(Decisions(*parts[:6]), Chances(*parts[6:])) for parts in columns]


def aligned(
    before: TokenizedDocument, made: Decisions, after: TokenizedDocument, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens of a document are which tokens of the edited text, tokenized anew.

    A token is found again where one of the edited text takes the very bytes that it, or its replacement, took.

    Args:
        before: original.
        made: its edits.
        after: the edited text's tokens.
        lengths: bytes of each new token where one changed, in order; 0 where deleted.

    Returns:
        Numbers of tokens in `before` and, as many, in `after`.
    """
    changed = made.changed(before.tokens)
    size = before.spans[:, 1] - before.spans[:, 0]
    grown = np.zeros(len(size), np.int64)
    grown[changed] = np.asarray(lengths, np.int64) - size[changed]
    begins = before.spans[:, 0] + np.cumsum(grown) - grown
    ends = begins + size + grown
    place = np.searchsorted(after.spans[:, 0], begins)
    inside = np.minimum(place, max(len(after.tokens) - 1, 0))
    same = np.zeros(len(begins), bool)
    if len(after.tokens):
        same = (after.spans[inside, 0] == begins) & (after.spans[inside, 1] == ends) & (ends > begins)
    return np.flatnonzero(same), inside[same]


class _Sums:
    """Sums over documents of one edit setting, by generation; all numbers in multiples of UNIT, counts too.

    Attributes:
        text: of generation g's text, g = 0 .. n (OF_TEXT), and what the source predicts: sums of c^g over its selected
            tokens.
        edit: of the edit from g to g + 1 (OF_EDIT).
        drift: of generation g = 1 .. n against the source (OF_DRIFT).
        single: counts of each generation's tokens, int64, shape (n + 1, V).
        pair: of its pairs of neighbours by bucket, int64, shape (n + 1, BUCKETS).
    """

    def __init__(self, generations: int, vocabulary: int):
        predicted = [f"predicted_{g}" for g in range(generations + 1)]
        self.text = [Moments((*OF_TEXT, *predicted)) for _ in range(generations + 1)]
        self.edit = [Moments(OF_EDIT) for _ in range(generations)]
        self.drift = [Moments(OF_DRIFT) for _ in range(generations)]
        self.single = np.zeros((generations + 1, vocabulary), np.int64)
        self.pair = np.zeros((generations + 1, BUCKETS), np.int64)

    def merge(self, other: "_Sums") -> None:
        for mine, theirs in ((self.text, other.text), (self.edit, other.edit), (self.drift, other.drift)):
            for one, more in zip(mine, theirs, strict=True):
                one.merge(more)
        self.single += other.single
        self.pair += other.pair


def _in_units(**numbers: Any) -> dict[str, int]:
    return {name: units(number) for name, number in numbers.items()}


def _of_text(one: TokenizedDocument, made: Pass) -> dict[str, int]:
    nll = -_level(made.decisions.probability)
    return _in_units(tokens=len(one.tokens), selected=made.decisions.selected.sum(), nll=nll)


def _of_source(one: TokenizedDocument, made: Pass, generations: int) -> dict[str, int]:
    """Return what later generations are compared with, and what the source predicts of them."""
    text, (_, again) = _of_text(one, made), _chances(made)
    predicted = {f"predicted_{g}": again**g for g in range(generations + 1)}
    return {"source_tokens": text["tokens"], "source_nll": text["nll"], **_in_units(**predicted)}


def _chances(made: Pass) -> tuple[np.ndarray, np.ndarray]:
    """Return the chances of the same token and of one selected again, at selected positions, float64."""
    selected = made.decisions.selected
    # Rounding may put a sum of probabilities above 1.
    same, again = (np.minimum(column[selected].astype(np.float64), 1.0) for column in made.chances[:2])
    return same, again


def _level(probability: np.ndarray) -> np.ndarray:
    """Return log P, float64, of probabilities that float32 may have rounded to 0."""
    return np.log(np.maximum(probability, LEAST).astype(np.float64))


def _of_edit(
    one: TokenizedDocument, made: Pass, after: TokenizedDocument, then: Pass, config: EditConfig, tokenizer: Tokenizer
) -> dict[str, int]:
    """Return what the edit did, what it was to do on average, and what became of the selected tokens."""
    decisions, (same, again) = made.decisions, _chances(made)
    selected, changed = decisions.selected, decisions.changed(one.tokens)
    new = zip(decisions.token[changed].tolist(), decisions.deleted[changed].tolist(), strict=True)
    here, there = aligned(one, decisions, after, [0 if gone else len(tokenizer.decode([token])) for token, gone in new])
    before = _level(decisions.probability[selected])
    both = selected[here] & then.decisions.selected[there]
    confident = int(selects(decisions.new_probability[selected], config.numbers, config.rule).sum())
    following = then.decisions.selected.sum()
    stayed, replaced = (both & ~changed[here]).sum(), (both & changed[here]).sum()
    return _in_units(
        tokens=len(one.tokens),
        selected=selected.sum(),
        changed=changed.sum(),
        deleted=decisions.deleted.sum(),
        redrawn=(changed & selected).sum(),
        expected_redrawn=1 - same,
        variance_redrawn=same * (1 - same),
        again=confident,
        expected_again=again,
        variance_again=again * (1 - again),
        level=_level(decisions.new_probability[selected]) - before,
        expected_level=made.chances.level[selected] - before,
        next_selected=following,
        stayed=stayed,
        replaced=replaced,
        entered=following - stayed - replaced,
        left=confident - stayed - replaced,
    )


def _of_drift(source: TokenizedDocument, one: TokenizedDocument) -> dict[str, int]:
    grams = enumerate(new_ngrams(source.tokens, one.tokens, LONGEST), 1)
    counts = {f"{kind}_{n}": count for n, pair in grams for kind, count in zip(("new", "all"), pair, strict=True)}
    longer = max(len(source.tokens), len(one.tokens))
    return _in_units(distance=edit_distance(source.tokens, one.tokens), longer=longer, **counts)


def _follow(
    prior: Prior,
    encoder: DocumentEncoder,
    sources: Sequence[TokenizedDocument],
    config: EditConfig,
    sums: Sequence[_Sums],
) -> Iterator[int]:
    """Take some documents through all generations, adding to each one's sums; yield each generation once done."""
    generations = len(sums[0].edit)

    def score(documents: Sequence[TokenizedDocument], g: int) -> list[Pass]:
        return passes(prior, documents, dataclasses.replace(config, seed=generation_seed(config.seed, g + 1)))

    now, made = sources, score(sources, 0)
    begin = [_of_source(one, done, generations) for one, done in zip(sources, made, strict=True)]
    for g in range(generations + 1):
        for into, source, first, one, done in zip(sums, sources, begin, now, made, strict=True):
            into.text[g].add(**_of_text(one, done), **first)
            into.single[g] += np.bincount(one.tokens, minlength=into.single.shape[1])
            into.pair[g] += bigram_counts(one.tokens)
            if g:
                into.drift[g - 1].add(**_of_drift(source, one))
        yield g
        if g == generations:
            return
        texts = [edited_text(one, done.decisions, prior.tokenizer) for one, done in zip(now, made, strict=True)]
        after = encoder(texts, [one.key for one in now])
        then = score(after, g + 1)
        for into, one, done, next_one, next_done in zip(sums, now, made, after, then, strict=True):
            into.edit[g].add(**_of_edit(one, done, next_one, next_done, config, prior.tokenizer))
        now, made = after, then


def iterate(
    prior: Prior,
    documents: Sequence[tuple[str, str, bytes]],
    configs: Mapping[str, EditConfig],
    generations: int,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> dict[str, Any]:
    """Edit documents again and again and measure every generation.

    Args:
        prior: of `lm.editing.prior.prepare_prior`, the same for all generations.
        documents: key, domain and text of each; those without tokens are left out.
        configs: by name, for example the presets "paper" and "released"; each starts from the documents' own text.
        generations: edits one after the other, at least 1.
        progress: called with the share done and a message.

    Returns:
        JSON types: "settings" holds for each name its "edit", the bound "least_same", "generations" 0 .. n and the
        same by domain. Shares are of tokens, every "value" with its standard error over documents.

    Raises:
        InputError: no generation, or no tokens.
    """
    encoder = DocumentEncoder(prior.tokenizer)
    if generations < 1:
        raise InputError(f"{generations} generations cannot be edited; give 1 or more")
    keys, domains, texts = zip(*documents, strict=True) if documents else ((), (), ())
    pairs = [pair for pair in zip(encoder(texts, keys), domains, strict=True) if len(pair[0].tokens)]
    if not pairs:
        raise InputError("the documents have no tokens to edit; give some text")
    batches = list(_batches(pairs))
    steps, done, settings = len(configs) * len(batches) * (generations + 1), 0, {}
    for name, config in configs.items():
        by_domain = {domain: _Sums(generations, prior.scorer.config.vocabulary) for _, domain in pairs}
        for batch in batches:
            sources, places = zip(*batch, strict=True)
            for g in _follow(prior, encoder, sources, config, [by_domain[domain] for domain in places]):
                done += 1
                progress(done / steps, f"{name}: generation {g} of {generations}")
        total = _Sums(generations, prior.scorer.config.vocabulary)
        for sums in by_domain.values():
            total.merge(sums)
        settings[name] = {
            "edit": config.to_json(),
            "least_same": least_same(config, prior.scorer.config.vocabulary),
            "generations": _report(total),
            "domains": {domain: _report(sums) for domain, sums in sorted(by_domain.items())},
        }
    return {
        "prior": prior.name,
        "sha256": prior.sha256,
        "compute": prior.compute,
        "documents": len(pairs),
        "tokens": sum(len(one.tokens) for one, _ in pairs),
        "settings": settings,
    }


def _batches(pairs: Sequence[tuple[TokenizedDocument, str]]) -> Iterator[list[tuple[TokenizedDocument, str]]]:
    batch, size = [], 0
    for pair in pairs:
        batch.append(pair)
        size += len(pair[0].tokens)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _report(sums: _Sums) -> list[dict[str, Any]]:
    """Return what is known of each generation."""
    rows = []
    for g, text in enumerate(sums.text):
        row = {
            "generation": g,
            "tokens": _count(text, "tokens"),
            "selected": _count(text, "selected"),
            "selected_share": text.ratio("selected", "tokens"),
            "predicted_share": text.ratio(f"predicted_{g}", "source_tokens"),
            "more_than_predicted": text.ratio("selected", "tokens", (f"predicted_{g}", "source_tokens")),
            "mean_log_probability": text.ratio("nll", "tokens", scale=-1.0),
            "mean_log_probability_change": text.ratio("nll", "tokens", ("source_nll", "source_tokens"), scale=-1.0),
        }
        if g < len(sums.edit):
            row["edit"] = _edit_report(sums.edit[g])
        if g:
            row["drift"] = {
                "edit_distance": sums.drift[g - 1].ratio("distance", "longer"),
                **{f"new_{n}grams": sums.drift[g - 1].ratio(f"new_{n}", f"all_{n}") for n in range(1, LONGEST + 1)},
                "divergence_tokens": divergence(sums.single[0], sums.single[g]),
                "divergence_pairs": divergence(sums.pair[0], sums.pair[g]),
            }
        rows.append(row)
    return rows


def _count(moments: Moments, name: str) -> int:
    return round(moments.sum(name) * UNIT)


def _edit_report(edit: Moments) -> dict[str, Any]:
    def deviations(what: str) -> float | None:
        """Return by how many standard deviations of the draws a count is off its expectation."""
        spread = edit.sum(f"variance_{what}") * UNIT
        return (edit.sum(what) - edit.sum(f"expected_{what}")) * UNIT / spread**0.5 if spread else None

    return {
        "effective_edit_rate": edit.ratio("changed", "tokens"),
        "counts": {name: _count(edit, name) for name in COUNTED},
        # Change of the mean log P per token through the redrawn tokens alone, in their old contexts.
        "own_change": edit.ratio("level", "tokens"),
        "expected_own_change": edit.ratio("expected_level", "tokens"),
        # Of the selected tokens: redrawn to another one, and to one that is selected in the same context.
        "redrawn": edit.ratio("redrawn", "selected"),
        "expected_redrawn": edit.ratio("expected_redrawn", "selected"),
        "redrawn_deviations": deviations("redrawn"),
        "again": edit.ratio("again", "selected"),
        "expected_again": edit.ratio("expected_again", "selected"),
        "again_deviations": deviations("again"),
        # Of those that really changed: selected again in the next generation.
        "replaced_of_redrawn": edit.ratio("replaced", "redrawn"),
        # The next generation's selected tokens over this one's, and how much of that is due to crossings.
        "ratio": edit.ratio("next_selected", "selected"),
        "ratio_less_expected": edit.ratio("next_selected", "selected", ("expected_again", "selected")),
        # The identity, as shares of tokens.
        "expected_loss": edit.ratio("selected", "tokens", ("expected_again", "tokens")),
        "noise": edit.ratio("again", "tokens", ("expected_again", "tokens")),
        "entered": edit.ratio("entered", "tokens"),
        "left": edit.ratio("left", "tokens"),
        "crossings": edit.ratio("next_selected", "tokens", ("again", "tokens")),
    }
