"""Token toy: Algorithm 1 on documents from a Zipf-Markov source, against replace and accumulate.

The language model is a bigram count model smoothed towards the unigrams (a Dirichlet prior of mass beta),
P(b | a) = (n_ab + beta u_b) / (n_a + beta), u_b = (n_b + 0.01) / (N + 0.01 V). Documents are separate: no
bigram crosses a boundary and a document's first token is never edited, as in the released code. Seeds are a
leading axis of every array: all replicates run in one compiled pass.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sim.errors import InputError


@dataclass(frozen=True)
class TokenSource:
    """A Markov source whose stationary law is Zipf's.

    Attributes:
        transition: float64, (V, V), rows P(. | a), all positive.
        stationary: float64, (V,), pi_b proportional to 1/(b + 1).
        entropy: entropy rate, nats a token.
    """

    transition: np.ndarray
    stationary: np.ndarray
    entropy: float


def zipf_markov_source(vocabulary: int, confident_share: float, seed: int) -> TokenSource:
    """Markov source with an exactly Zipf stationary law and a share of nearly certain transitions.

    P(b | a) = c_a 1{b = s(a)} + (1 - c_a) r_b. Contexts, in random order, get confidence c_a = 1 - 10^-U, U
    uniform on (2, 4), until they hold `confident_share` of the stationary mass, and c_a uniform on (0, 0.99)
    afterwards. The favourite s(a) is a random token that can still take the flow pi_a c_a (the confidence is
    lowered where none can); r_b, in proportion to pi_b - inflow_b, makes pi stationary exactly.

    Raises:
        InputError: fewer than 10 tokens or a share outside [0, 0.5].
    """
    if vocabulary < 10 or not 0 <= confident_share <= 0.5:
        raise InputError("The Zipf-Markov source needs at least 10 tokens and a confident share in [0, 0.5].")
    rng = np.random.default_rng(seed)
    pi = 1 / np.arange(1, vocabulary + 1)
    pi /= pi.sum()
    room = 0.98 * pi
    confidence, favourite = np.zeros(vocabulary), np.zeros(vocabulary, dtype=int)
    held = 0.0
    for context in rng.permutation(vocabulary):
        sure = held + pi[context] <= confident_share
        wanted = 1 - 10 ** -rng.uniform(2, 4) if sure else rng.uniform(0, 0.99)
        able = np.flatnonzero(room >= pi[context] * wanted)
        if sure and able.size == 0:
            sure = False
        target = rng.choice(able) if able.size else int(np.argmax(room))
        confidence[context] = min(wanted, room[target] / pi[context])
        favourite[context] = target
        room[target] -= pi[context] * confidence[context]
        held += pi[context] * sure
    inflow = np.bincount(favourite, weights=pi * confidence, minlength=vocabulary)
    rest = (pi - inflow) / (pi - inflow).sum()
    transition = (1 - confidence)[:, None] * rest
    transition[np.arange(vocabulary), favourite] += confidence
    entropy = -float((pi[:, None] * transition * np.log(transition)).sum())
    return TokenSource(transition, pi, entropy)


@dataclass(frozen=True)
class TokenRule:
    """What makes the next generation's data.

    Attributes:
        kind: "replace" and "accumulate" sample new documents from the model; "edit" is Algorithm 1; "random"
            redraws tokens chosen uniformly, from the same candidates, at the effective edit rate given to
            `run_tokens`.
        threshold: p of Algorithm 1 (also the level at which `selected` is counted for the other kinds).
        candidates: k of top-k.
        temperature: sampling temperature, of candidates or of whole documents.
        strict: select above p rather than at least p.
        keep_original: the original token is always a candidate.
        prior: "own" uses the model of the data being edited, "first" the model of generation 0 for ever,
            "source" the source itself.
    """

    kind: str
    threshold: float = 0.99
    candidates: int = 8
    temperature: float = 1.0
    strict: bool = False
    keep_original: bool = False
    prior: str = "own"

    def __post_init__(self) -> None:
        if self.kind not in ("replace", "accumulate", "edit", "random"):
            raise InputError(f"Unknown rule {self.kind!r}: use replace, accumulate, edit or random.")
        if self.prior not in ("own", "first", "source"):
            raise InputError(f"Unknown prior {self.prior!r}: use own, first or source.")
        if not 0 < self.threshold < 1:
            raise InputError(f"The threshold p must lie in (0, 1), got {self.threshold}.")
        if self.candidates < 1 or not self.temperature > 0:
            raise InputError("Give at least 1 candidate and a positive temperature.")


@dataclass(frozen=True)
class TokenRun:
    """Measures by generation and seed, float64, shape (n + 1, seeds); entry 0 is the human data.

    Attributes:
        kl: sum_a pi_a KL(P(. | a) || model(. | a)), source against model, nats a token.
        reverse_kl: the same with the roles exchanged, contexts weighted as in the training data.
        entropy: entropy of the model's rows, weighted in the same way, nats a token.
        tail: share of training tokens among the rarest source tokens that hold 5 % of its mass.
        vocabulary: distinct tokens in the training data.
        bigrams: distinct bigrams in the training data.
        selected: share of training tokens with model probability at or above p (the rule's prior; all
            documents' tokens count).
        changed: effective edit rate: share of tokens that differ from the previous generation's (0 in entry 0
            and where not edited).
    """

    kl: np.ndarray
    reverse_kl: np.ndarray
    entropy: np.ndarray
    tail: np.ndarray
    vocabulary: np.ndarray
    bigrams: np.ndarray
    selected: np.ndarray
    changed: np.ndarray


def _sample(key: jax.Array, first: jax.Array, rows: jax.Array, documents: int, length: int) -> jax.Array:
    """Markov documents (S, D, L): first tokens from `first` (S, V), then `rows` (S, V, V), by bisection."""
    seeds, vocabulary = first.shape
    steps = int(np.ceil(np.log2(vocabulary)))
    table = jnp.concatenate([first[:, None], rows], axis=1)
    running = jnp.cumsum(table, axis=-1)
    running = (running / running[..., -1:]).reshape(-1)
    base = jnp.arange(seeds)[:, None] * (vocabulary + 1)

    def draw(token, key):
        offset = (base + token + 1) * vocabulary
        uniform = jax.random.uniform(key, (seeds, documents), dtype=jnp.float64)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) // 2
            below = running[offset + middle] <= uniform
            return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

        low = jnp.zeros((seeds, documents), dtype=jnp.int64)
        low, _ = jax.lax.fori_loop(0, steps, halve, (low, low + vocabulary - 1))
        return low, low

    start = jnp.full((seeds, documents), -1, dtype=jnp.int64)
    _, tokens = jax.lax.scan(draw, start, jax.random.split(key, length))
    return jnp.moveaxis(tokens, 0, -1)


def _count(tokens: jax.Array, vocabulary: int) -> tuple[jax.Array, jax.Array]:
    """Bigram counts (S, V, V) within documents and token counts (S, V)."""
    seeds = tokens.shape[0]
    seed = jnp.arange(seeds)[:, None, None]
    pair = (seed * vocabulary + tokens[..., :-1]) * vocabulary + tokens[..., 1:]
    pairs = jnp.bincount(pair.reshape(-1), length=seeds * vocabulary**2).reshape(seeds, vocabulary, vocabulary)
    singles = jnp.bincount((seed * vocabulary + tokens).reshape(-1), length=seeds * vocabulary)
    return pairs.astype(jnp.float64), singles.reshape(seeds, vocabulary).astype(jnp.float64)


@jax.jit
def _model(pairs: jax.Array, singles: jax.Array, smoothing: float) -> jax.Array:
    unigram = singles + 0.01
    smooth = pairs + smoothing * (unigram / unigram.sum(-1, keepdims=True))[:, None]
    return smooth / smooth.sum(-1, keepdims=True)


_count_jit = jax.jit(_count, static_argnames="vocabulary")


def _temper(rows: jax.Array, temperature: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.log(rows) / temperature, axis=-1)


@partial(jax.jit, static_argnames=("documents", "length"))
def _generate(key, rows, singles, temperature, documents, length):
    first = singles / singles.sum(-1, keepdims=True)
    return _sample(key, first, _temper(rows, temperature), documents, length)


@partial(jax.jit, static_argnames=("candidates", "keep_original", "strict", "random"))
def _edit(key, tokens, prior, threshold, temperature, rate, candidates, keep_original, strict, random):
    """One pass of Algorithm 1 over documents (S, D, L), all positions at once because only source prefixes are read."""
    seeds, vocabulary = prior.shape[0], prior.shape[-1]
    choose, draw = jax.random.split(key)
    context = (jnp.arange(seeds)[:, None, None] * vocabulary + tokens[..., :-1]).reshape(-1)
    token = tokens[..., 1:].reshape(-1)
    probability = prior.reshape(-1)[context * vocabulary + token]
    top, named = jax.lax.top_k(prior, candidates)
    scale = top[..., :1]
    running = jnp.cumsum((top / scale) ** (1 / temperature), axis=-1).reshape(-1, candidates)
    named, scale = named.reshape(-1, candidates), scale.reshape(-1)
    listed = (named[context] == token[:, None]).any(-1)
    own = jnp.where(listed | (not keep_original), 0.0, (probability / scale[context]) ** (1 / temperature))
    total = running[context, -1] + own
    uniform = total * jax.random.uniform(draw, token.shape, dtype=jnp.float64)
    place = (uniform[:, None] >= running[context]).sum(-1)
    drawn = jnp.where(place < candidates, named[context, jnp.minimum(place, candidates - 1)], token)
    if random:
        unchanged = jnp.where(listed, (probability / scale[context]) ** (1 / temperature), own) / total
        share = rate * tokens.size / (1 - unchanged).sum()
        selected = jax.random.uniform(choose, token.shape, dtype=jnp.float64) < share
    else:
        selected = probability > threshold if strict else probability >= threshold
    edited = jnp.where(selected, drawn, token).reshape(tokens[..., 1:].shape)
    return jnp.concatenate([tokens[..., :1], edited], axis=-1)


@jax.jit
def _measure(pairs, singles, model, prior, transition, stationary, tail, threshold):
    weight = pairs.sum(-1) / pairs.sum((-2, -1))[:, None]
    kl = (stationary[:, None] * transition * (jnp.log(transition) - jnp.log(model))).sum((-2, -1))
    reverse = (weight[..., None] * model * (jnp.log(model) - jnp.log(transition))).sum((-2, -1))
    entropy = -(weight[..., None] * model * jnp.log(model)).sum((-2, -1))
    total = singles.sum(-1)
    selected = jnp.where(prior >= threshold, pairs, 0).sum((-2, -1)) / total
    return jnp.stack(
        [
            kl,
            reverse,
            entropy,
            (singles * tail).sum(-1) / total,
            (singles > 0).sum(-1),
            (pairs > 0).sum((-2, -1)),
            selected,
        ]
    )


def run_tokens(
    source: TokenSource,
    rule: TokenRule,
    *,
    documents: int = 2000,
    length: int = 101,
    generations: int = 8,
    seeds: int = 4,
    smoothing: float = 1.0,
    seed: int = 0,
    start: np.ndarray | None = None,
    rates: np.ndarray | None = None,
) -> TokenRun:
    """Runs one rule for all seeds at once.

    Args:
        source: the human source.
        rule: how data are made from generation to generation.
        documents: documents of a generation.
        length: tokens of a document, at least 2.
        generations: number of steps n after the human data.
        seeds: replicates.
        smoothing: beta > 0, pseudo-counts of each context.
        seed: of the random numbers; the human data are the same for every rule at a given seed.
        start: (V, V) transition of the chain that writes generation 0 (a collapsed source); None takes the
            source.
        rates: (n,) effective edit rates of the "random" rule.

    Raises:
        InputError: sizes or smoothing out of range, or `rates` missing for the random rule.
    """
    if min(documents, seeds) < 1 or length < 2 or generations < 0 or not smoothing > 0:
        raise InputError(
            "Token toy: documents and seeds >= 1, length >= 2, generations >= 0 and smoothing > 0 are needed."
        )
    vocabulary = len(source.stationary)
    if rule.candidates > vocabulary:
        raise InputError(f"There are only {vocabulary} tokens: lower the number of candidates.")
    if (rule.kind == "random") != (rates is not None) or (rates is not None and len(rates) != generations):
        raise InputError("The random rule, and it alone, needs one effective edit rate for each generation.")
    with jax.enable_x64(True):
        transition, stationary = jnp.asarray(source.transition), jnp.asarray(source.stationary)
        tail = jnp.cumsum(stationary[::-1])[::-1] <= 0.05
        human, key = jax.random.split(jax.random.key(seed))
        rows = jnp.broadcast_to(transition if start is None else jnp.asarray(start), (seeds, vocabulary, vocabulary))
        singles = jnp.broadcast_to(stationary, (seeds, vocabulary))
        tokens = _generate(human, rows, singles, 1.0, documents, length)
        pairs, singles = _count_jit(tokens, vocabulary)
        model = first = _model(pairs, singles, smoothing)
        whole = jnp.broadcast_to(transition, first.shape)
        series, changed = [], [np.zeros(seeds)]
        for generation in range(generations + 1):
            prior = {"own": model, "first": first, "source": whole}[rule.prior]
            level = jnp.nextafter(rule.threshold, 1.0) if rule.strict else rule.threshold
            series.append(np.asarray(_measure(pairs, singles, model, prior, transition, stationary, tail, level)))
            if generation == generations:
                break
            step = jax.random.fold_in(key, generation)
            if rule.kind in ("replace", "accumulate"):
                tokens = _generate(step, model, singles, rule.temperature, documents, length)
                new = _count_jit(tokens, vocabulary)
                keep = 1.0 if rule.kind == "accumulate" else 0.0
                pairs, singles = keep * pairs + new[0], keep * singles + new[1]
                changed.append(np.zeros(seeds))
            else:
                rate = 0.0 if rates is None else float(rates[generation])
                edited = _edit(
                    step, tokens, prior, rule.threshold, rule.temperature, rate,
                    rule.candidates, rule.keep_original, rule.strict, rule.kind == "random",
                )  # fmt: skip
                changed.append(np.asarray((edited != tokens).mean((-2, -1))))
                tokens = edited
                pairs, singles = _count_jit(tokens, vocabulary)
            model = _model(pairs, singles, smoothing)
        table = np.stack(series, axis=1)
    return TokenRun(*table, changed=np.array(changed))
