"""Exact infinite-data engine for Algorithm 1 (token editing) on small Markov sources.

Everything is a law of windows of L consecutive tokens of a stationary sequence, stored as a float64 array of
shape (V,)*L (an iterated transfer matrix: no sampling, errors of order 1e-15). The editor reads the SOURCE
prefix, never the edited one, so an edited sequence is a hidden Markov process, not a Markov chain; editing a
window of L tokens with an order-k prior gives the exact law of the window's last L - k edited tokens. The
infinite-data order-k model of a sequence is the conditional law of a token given the k before it.

Sources: Algorithm 1 and eq. 2 of the paper; every formula below is this work unless a paper equation is
named.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from theory.errors import InputError
from theory.schedules import check_count

MAX_WINDOW = 40_000_000  # entries of one float64 window law: 320 MB


@dataclass(frozen=True)
class Editor:
    """The token editor's settings (Algorithm 1).

    Attributes:
        threshold: p in (0, 1); a token is selected when its prior probability is at least p (strict: above
            p).
        candidates: k, the size of the candidate set (the k most probable tokens); None takes the whole
            vocabulary.
        temperature: t > 0; candidates are drawn in proportion to prior^(1/t).
        strict: select only above p, as the released code does.
        keep_original: the original token is a candidate even when it is not among the k most probable ones.
    """

    threshold: float
    candidates: int | None = None
    temperature: float = 1.0
    strict: bool = False
    keep_original: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"The threshold p must lie in (0, 1), got {self.threshold}.")
        if self.candidates is not None:
            check_count("candidates", self.candidates)
        if not 0 < self.temperature < np.inf:
            raise InputError(f"The temperature must be positive and finite, got {self.temperature}.")

    @classmethod
    def paper(cls) -> "Editor":
        """Settings of the paper's section 5.1: p >= 0.99, top-k with k = 8, temperature 1."""
        return cls(threshold=0.99, candidates=8)

    @classmethod
    def released(cls) -> "Editor":
        """Settings of the released code: p > 0.99, 8 candidates that contain the original, temperature 1.5."""
        return cls(threshold=0.99, candidates=8, temperature=1.5, strict=True, keep_original=True)


@dataclass(frozen=True)
class EditKernel:
    """P(x'_i = c | context a, x_i = b) = stay[a, b] 1{b = c} + move[a, b] weight[a, c], for order k.

    Attributes:
        selected: bool, (V,)*k + (V,): is token b after context a above the threshold?
        stay: float64, same shape: mass put on the original token apart from `weight`.
        move: float64, same shape: multiplier of the candidates' weights.
        weight: float64, same shape: prior^(1/t) of the candidates, relative to the largest, zero for the
            others.
    """

    selected: np.ndarray
    stay: np.ndarray
    move: np.ndarray
    weight: np.ndarray

    @property
    def unchanged(self) -> np.ndarray:
        """P(x'_i = b | a, b), float64, (V,)*k + (V,): 1 where not selected, theory's q_i where selected."""
        return self.stay + self.move * self.weight


def check_transition(transition: np.ndarray) -> np.ndarray:
    """Validates P(b | a_1..a_k), shape (V,)*(k+1), last axis summing to 1; returns it as float64.

    Raises:
        InputError: the array is not a transition array of order at least 1.
    """
    array = np.asarray(transition, dtype=np.float64)
    if array.ndim < 2 or len(set(array.shape)) != 1:
        raise InputError(f"A transition array needs the same vocabulary on each of at least 2 axes, got {array.shape}.")
    if not np.all(np.isfinite(array)) or array.min() < 0 or np.abs(array.sum(-1) - 1).max() > 1e-9:
        raise InputError("Each row of a transition array must be a distribution: nonnegative, summing to 1.")
    return array


def stationary(transition: np.ndarray) -> np.ndarray:
    """Stationary law of the k-token contexts of an order-k chain, float64, shape (V,)*k.

    Solves pi = pi P on the contexts; of several stationary laws the one of least norm is returned.

    Raises:
        InputError: the transition array is not one.
    """
    transition = check_transition(transition)
    order, vocabulary = transition.ndim - 1, transition.shape[0]
    states = vocabulary**order
    chain = np.zeros((states, states))
    rows = np.repeat(np.arange(states), vocabulary)
    columns = (rows * vocabulary + np.tile(np.arange(vocabulary), states)) % states
    chain[rows, columns] += transition.reshape(-1)
    balance = chain.T - np.eye(states)
    balance[-1] = 1  # the balance equations are dependent: the last gives way to normalisation
    target = np.zeros(states)
    target[-1] = 1
    try:
        law = np.linalg.solve(balance, target)
        solved = np.abs(law @ chain - law).max() < 1e-10 and law.min() > -1e-10
    except np.linalg.LinAlgError:
        law, solved = target, False
    if not solved:
        law = np.linalg.lstsq(np.vstack([chain.T - np.eye(states), np.ones(states)]), np.append(0 * target, 1.0))[0]
    law = np.maximum(law, 0)
    return (law / law.sum()).reshape((vocabulary,) * order)


def extend(law: np.ndarray, transition: np.ndarray, length: int) -> np.ndarray:
    """Extends a window law to `length` tokens by the order-k Markov property.

    Args:
        law: window law of at least k tokens.
        transition: order-k transition array.
        length: number of tokens wanted, at least those of `law`.

    Raises:
        InputError: the window would hold more than MAX_WINDOW entries.
    """
    vocabulary, order = transition.shape[0], transition.ndim - 1
    if vocabulary**length > MAX_WINDOW:
        raise InputError(
            f"A window of {length} tokens over {vocabulary} symbols is too large: lower generations, order or V."
        )
    while law.ndim < length:
        law = law[..., None] * transition.reshape((1,) * (law.ndim - order) + transition.shape)
    return law


def conditional(law: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Law of the last token given those before it; `fallback` rows where a context has no mass."""
    mass = law.sum(-1, keepdims=True)
    return np.where(mass > 0, law / np.where(mass > 0, mass, 1), fallback)


def edit_kernel(prior: np.ndarray, editor: Editor) -> EditKernel:
    """Candidate distributions of Algorithm 1 for every context and original token.

    Ties at the k-th place are broken towards the smaller token number. For an original outside the k
    candidates (impossible for p > 1/(k+1)) it joins them if `keep_original`; otherwise it is redrawn from the
    others.
    """
    prior = check_transition(prior)
    top = prior.max(-1, keepdims=True)
    weight = np.where(prior > 0, (prior / top) ** (1 / editor.temperature), 0.0)
    if editor.candidates is not None and editor.candidates < prior.shape[-1]:
        ranks = np.argsort(np.argsort(-prior, axis=-1, kind="stable"), axis=-1, kind="stable")
        candidate = ranks < editor.candidates
    else:
        candidate = np.ones(prior.shape, dtype=bool)
    listed = np.where(candidate, weight, 0.0)
    total = listed.sum(-1, keepdims=True)
    joins = ~candidate & editor.keep_original
    denominator = total + np.where(joins, weight, 0.0)
    selected = prior > editor.threshold if editor.strict else prior >= editor.threshold
    stay = np.where(selected, np.where(joins, weight, 0.0) / denominator, 1.0)
    return EditKernel(selected, stay, np.where(selected, 1 / denominator, 0.0), listed)


def edit_windows(law: np.ndarray, kernel: EditKernel) -> np.ndarray:
    """Law of the last L - k edited tokens of a window of L source tokens (L > k), shape (V,)*(L-k).

    Tokens are replaced from the right, so that each still sees its source prefix: the sum over x_i costs V^L.
    """
    order, vocabulary = kernel.stay.ndim - 1, kernel.stay.shape[0]
    stay, move, weight = (
        array.reshape(1, vocabulary**order, vocabulary, 1) for array in (kernel.stay, kernel.move, kernel.weight)
    )
    length = law.ndim
    for position in range(length - 1, order - 1, -1):
        view = law.reshape(
            vocabulary ** (position - order),
            vocabulary**order,
            vocabulary,
            vocabulary ** (length - 1 - position),
        )
        redrawn = (view * move).sum(2, keepdims=True)
        law = view * stay + redrawn * weight
    return law.reshape((vocabulary**order,) + (vocabulary,) * (length - order)).sum(0)


def entropy_rate(transition: np.ndarray, context: np.ndarray | None = None) -> float:
    """Entropy rate of an order-k chain in nats a token; `context` is its stationary law where that is known."""
    context = stationary(transition) if context is None else context
    return float(-(context * xlogy(transition, transition).sum(-1)).sum())


def kl_rate(p: np.ndarray, q: np.ndarray, context: np.ndarray | None = None) -> float:
    """KL rate sum_a pi_p(a) KL(p(. | a) || q(. | a)), nats a token; inf where q misses support.

    `context` is the stationary law of p where that is known.
    """
    context = stationary(p) if context is None else context
    joint = context[..., None] * p
    if np.any((joint > 0) & (q <= 0)):
        return float("inf")
    ratio = np.log(np.where(joint > 0, p, 1)) - np.log(np.where(joint > 0, q, 1))
    return max(float((joint * ratio).sum()), 0.0)


def memory(transition: np.ndarray, context: np.ndarray | None = None) -> float:
    """Excess of the one-token entropy over the entropy rate, nats: for order 1 the mutual information of neighbours."""
    context = stationary(transition) if context is None else context
    single = context.reshape(-1, transition.shape[0]).sum(0)
    return float(-xlogy(single, single).sum() - entropy_rate(transition, context))


@dataclass(frozen=True)
class TokenCurve:
    """Exact curves by generation; entry 0 is the source itself, entry g the data after g edits (or refits).

    Attributes:
        kl: D(source || model of generation g), nats a token, shape (n + 1,).
        reverse_kl: D(model || source), the divergence of eq. 44, shape (n + 1,).
        entropy: entropy rate of the order-k model, nats, shape (n + 1,).
        memory: one-token entropy less entropy rate, nats, shape (n + 1,).
        selected: share of tokens that the prior of generation g puts at or above p, shape (n + 1,).
        changed: effective edit rate of the edit applied to generation g, shape (n + 1,).
        models: the order-k models, shape (n + 1,) + (V,)*(k+1).
    """

    kl: np.ndarray
    reverse_kl: np.ndarray
    entropy: np.ndarray
    memory: np.ndarray
    selected: np.ndarray
    changed: np.ndarray
    models: np.ndarray


def _curve(pairs: list[np.ndarray], models: list[np.ndarray], rates: list[tuple[float, float]]) -> TokenCurve:
    """Rates of the models, each with the (k+1)-token law of the data it is fitted to; entry 0 is the reference."""
    contexts = [pair.sum(-1) for pair in pairs]
    source = models[0]
    return TokenCurve(
        kl=np.array([kl_rate(source, model, contexts[0]) for model in models[1:]]),
        reverse_kl=np.array(
            [kl_rate(model, source, context) for model, context in zip(models[1:], contexts[1:], strict=True)]
        ),
        entropy=np.array([entropy_rate(m, c) for m, c in zip(models[1:], contexts[1:], strict=True)]),
        memory=np.array([memory(m, c) for m, c in zip(models[1:], contexts[1:], strict=True)]),
        selected=np.array([rate[0] for rate in rates]),
        changed=np.array([rate[1] for rate in rates]),
        models=np.array(models[1:]),
    )


def iterate_edit(
    source: np.ndarray,
    editor: Editor,
    generations: int,
    *,
    prior: np.ndarray | None = None,
    start: np.ndarray | None = None,
    regenerate: bool = False,
) -> TokenCurve:
    """Iterates Algorithm 1 on infinitely long data.

    Args:
        source: order-k transition array of the reference; curves are divergences to it.
        editor: the settings.
        generations: number of edits n >= 0.
        prior: a fixed order-k prior (the paper's Table 15: one prior for all generations); None uses the
            order-k model of the data being edited, exactly calibrated to their (k+1)-token law.
        start: order-k chain that produces the first data; None takes the source (G.8 of the paper starts
            elsewhere).
        regenerate: False edits the edited data again, exactly (windows of k(n + 1) + 1 tokens: memory
            V^(k(n+1)+1)); True lets generation g + 1 start from data that the order-k model of generation g
            produces (windows of 2k + 1).

    Returns:
        The curves, exact to rounding.

    Raises:
        InputError: a bad transition array, a window that is too large, a prior of another shape, or
            generations < 0.
    """
    source = check_transition(source)
    begin = source if start is None else check_transition(start)
    if begin.shape != source.shape or (prior is not None and np.shape(prior) != source.shape):
        raise InputError("Source, start and prior must be transition arrays of the same order and vocabulary.")
    check_count("generations", generations, low=0)
    order = source.ndim - 1
    length = (2 * order if generations else order) + 1 if regenerate else order * (generations + 1) + 1
    law = extend(stationary(begin), begin, length)
    model = begin
    models, rates = [source, begin], []
    pairs = [extend(stationary(source), source, order + 1)]
    for generation in range(generations + 1):
        kernel = edit_kernel(model if prior is None else prior, editor)
        token = law.sum(tuple(range(order + 1, law.ndim)))
        pairs.append(token)
        rates.append((float(token[kernel.selected].sum()), float((token * (1 - kernel.unchanged)).sum())))
        if generation == generations:
            break
        law = edit_windows(law, kernel)
        law = law / law.sum()
        model = conditional(law.sum(tuple(range(order + 1, law.ndim))), model)
        models.append(model)
        if regenerate:
            law = extend(law, model, length)
    return _curve(pairs, models, rates)


def random_edit(source: np.ndarray, kernel: EditKernel, share: float) -> np.ndarray:
    """Order-k model of data in which each token is redrawn with probability `share`, whatever it is.

    `kernel` gives the candidates: made with a threshold below every probability, so that all tokens are selected.
    """
    if not 0 <= share <= 1:
        raise InputError(f"The share of tokens to edit must lie in [0, 1], got {share}.")
    source = check_transition(source)
    mixed = EditKernel(kernel.selected, 1 - share + share * kernel.stay, share * kernel.move, kernel.weight)
    law = edit_windows(extend(stationary(source), source, 2 * source.ndim - 1), mixed)
    return conditional(law, source)


def temper(transition: np.ndarray, temperature: float) -> np.ndarray:
    """Rows in proportion to P(b | a)^(1/t): what sampling at temperature t draws from."""
    powers = np.where(transition > 0, (transition / transition.max(-1, keepdims=True)) ** (1 / temperature), 0.0)
    return powers / powers.sum(-1, keepdims=True)


def iterate_replace(
    source: np.ndarray,
    temperature: float,
    generations: int,
    *,
    accumulate: bool = False,
    threshold: float = 0.99,
) -> TokenCurve:
    """Trains each generation on infinitely many tokens of the last model, sampled left to right at temperature t.

    With replacement the model after g generations is the source's rows raised to t^(-g). Accumulation pools
    all generations with equal weight and fits the pool's (k+1)-token law.

    Raises:
        InputError: a bad transition array, temperature or threshold, or generations < 0.
    """
    source = check_transition(source)
    check_count("generations", generations, low=0)
    editor = Editor(threshold=threshold, temperature=temperature)
    order = source.ndim - 1
    pool = extend(stationary(source), source, order + 1)
    models, pairs, rates = [source, source], [pool, pool], []
    for generation in range(generations + 1):
        model = models[-1]
        rates.append((float(pairs[-1][model >= editor.threshold].sum()), 0.0))
        if generation == generations:
            break
        drawn = temper(model, temperature)
        law = extend(stationary(drawn), drawn, order + 1)
        pool = (pool * (generation + 1) + law) / (generation + 2) if accumulate else law
        pairs.append(pool)
        models.append(conditional(pool, model))
    return _curve(pairs, models, rates)


def change_range(probability: float, editor: Editor, vocabulary: int | None = None) -> tuple[float, float]:
    """Range of the probability that a selected token of prior probability > 1/2 is changed.

    The range is over all ways in which the other tokens can share the mass 1 - probability.

    For temperature t >= 1 and k candidates the largest is reached when k - 1 others share the whole rest
    equally, (k-1)^(1-1/t) (1-p)^(1/t) against p^(1/t); with everything on one other token the weight is
    (1-p)^(1/t), and when the rest is spread evenly over the whole vocabulary it is (k-1) ((1-p)/(V-1))^(1/t).
    The smallest is the lesser of the last two.

    Raises:
        InputError: the probability is not in (1/2, 1), or t < 1, where the extremes are others.
    """
    if not 0.5 < probability < 1 or editor.temperature < 1:
        raise InputError("change_range covers probabilities in (1/2, 1) and temperatures of at least 1.")
    inverse = 1 / editor.temperature
    rest, own = 1 - probability, probability**inverse
    limit = vocabulary if vocabulary is not None else np.inf
    others = min(editor.candidates or limit, limit) - 1
    if not np.isfinite(others):
        raise InputError("Give the vocabulary size when every token is a candidate.")
    if others == 0:  # the only candidate is the token itself
        return 0.0, 0.0
    largest = others ** (1 - inverse) * rest**inverse
    smallest = rest**inverse
    if vocabulary is not None:
        smallest = min(smallest, others * (rest / (vocabulary - 1)) ** inverse)
    elif editor.candidates is not None:
        smallest = 0.0  # an unbounded vocabulary can spread the rest without limit
    return float(smallest / (own + smallest)), float(largest / (own + largest))


def one_edit_source_view(prior: np.ndarray, threshold: float) -> np.ndarray:
    """Law of an edited token given its SOURCE context: calibrated prior, temperature 1, all candidates.

    P(x'_i = b | x_<i) = P(b | x_<i) (1{P(b | x_<i) < p} + s(x_<i)),  s = mass of the selected tokens.

    It equals P(b | x_<i) only if no token or every token of positive mass is selected: the rule looks at the
    token it replaces.
    """
    prior = check_transition(prior)
    selected = prior >= threshold
    mass = np.where(selected, prior, 0).sum(-1, keepdims=True)
    return prior * (~selected + mass)


def example_source(vocabulary: int, confident: float, seed: int) -> np.ndarray:
    """A random order-1 source for demonstrations.

    Each context a has a favourite successor of probability 1 - u_a and shares u_a among all tokens by a Dirichlet(1)
    draw; u_a is `confident` for a third of the contexts and uniform in (0, 1) for the others.
    """
    rng = np.random.default_rng(seed)
    rest = np.where(np.arange(vocabulary) % 3 == 0, confident, rng.uniform(size=vocabulary))
    rows = rest[:, None] * rng.dirichlet(np.ones(vocabulary), size=vocabulary)
    rows[np.arange(vocabulary), rng.permutation(vocabulary)] += 1 - rest
    return rows
