"""Eq. 2, Algorithm 1, and the small statements of appendices D, F and G, on laws that can be enumerated."""

from fractions import Fraction
from itertools import pairwise, product
from math import exp, log, log2

import numpy as np

from paper.claims import process
from paper.claims.entry import Claim, Outcome, agrees, close, exact
from paper.claims.exact_process import fractions
from paper.claims.instances import SEED

Law = dict[tuple[int, ...], Fraction]


def markov(seed: int, size: int, confidence: int = 30) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Return a rational initial law and transition matrix; one token a row gets `confidence` more weight than 1..5."""
    generator = np.random.default_rng(seed)
    table = generator.integers(1, 6, size=(size + 1, size))
    for row, column in enumerate(generator.integers(0, size, size=size + 1)):
        table[row, column] += confidence
    rows = [[Fraction(int(value), int(row.sum())) for value in row] for row in table]
    return rows[0], rows[1:]


def sequences(start: list[Fraction], step: list[list[Fraction]], length: int) -> Law:
    """Return the law of the first `length` tokens."""
    law: Law = {}
    for tokens in product(range(len(start)), repeat=length):
        value = start[tokens[0]]
        for a, b in pairwise(tokens):
            value *= step[a][b]
        law[tokens] = value
    return law


def edited(law: Law, start: list[Fraction], step: list[list[Fraction]], p: Fraction) -> Law:
    """Return the law after Algorithm 1 with an order-1 prior, conditioned on the source prefix."""
    size = len(start)
    result: Law = dict.fromkeys(law, Fraction(0))
    for tokens, weight in law.items():
        priors = [start if i == 0 else step[tokens[i - 1]] for i in range(len(tokens))]
        choices = [
            [(b, prior[b]) for b in range(size)] if prior[token] >= p else [(token, Fraction(1))]
            for token, prior in zip(tokens, priors, strict=True)
        ]
        for chosen in product(*choices):
            value = weight
            for _, chance in chosen:
                value *= chance
            result[tuple(token for token, _ in chosen)] += value
    return result


def divergence(left: Law, right: Law) -> float:
    """Return KL(left || right) in nats."""
    return sum(float(value) * log(value / right[key]) for key, value in left.items() if value > 0)


def algorithm_1(
    tokens: tuple[int, ...], start: list[Fraction], step: list[list[Fraction]], p: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """Algorithm 1 word for word: a loop over positions with one draw from the prior at each selected one."""
    out = []
    for i, token in enumerate(tokens):
        prior = start if i == 0 else step[tokens[i - 1]]
        if prior[token] >= p:
            out.append(int(rng.choice(len(prior), p=[float(value) for value in prior])))
        else:
            out.append(token)
    return tuple(out)


def check_2() -> Outcome:
    """Eq. 2 against Algorithm 1, position by position, on every sequence."""
    start, step = markov(SEED, 3)
    rng = np.random.default_rng(SEED)
    p = Fraction(1, 2)
    cases, low_changed, high_changed, selected = 0, 0, 0, 0
    for tokens in sequences(start, step, 4):
        for _ in range(10):
            out = algorithm_1(tokens, start, step, 0.5, rng)
            for i, token in enumerate(tokens):
                prior = start if i == 0 else step[tokens[i - 1]]
                cases += 1
                if prior[token] >= p:
                    selected += 1
                    high_changed += out[i] != token
                else:
                    low_changed += out[i] != token
    return Outcome(
        stated=(
            exact("positions below p never change", cases - selected, low_changed),
            exact("positions at or above p can change", 1, int(high_changed == 0)),
        ),
        headline=f"of {selected} selected positions {high_changed} changed: the draw may return the token itself",
    )


def check_algorithm() -> Outcome:
    """Length, the two trivial thresholds, and the law of the output against enumeration."""
    start, step = markov(SEED, 3)
    rng = np.random.default_rng(SEED)
    law = sequences(start, step, 3)
    after = edited(law, start, step, Fraction(1, 2))
    wrong_length = sum(len(algorithm_1(tokens, start, step, 0.5, rng)) != 3 for tokens in law)
    untouched = sum(algorithm_1(tokens, start, step, 1.01, rng) != tokens for tokens in law)
    keys = list(law)
    chances = np.array([float(law[key]) for key in keys])
    draws = rng.choice(len(keys), size=10_000, p=chances / chances.sum())
    likely = max(after, key=lambda key: abs(after[key] - law[key]))
    hits = np.array([algorithm_1(keys[draw], start, step, 0.5, rng) == likely for draw in draws], dtype=float)
    seen = process.mean(hits)
    return Outcome(
        stated=(
            exact("same length", len(law), wrong_length),
            exact("p > 1 is the identity", len(law), untouched),
            agrees(
                "frequency of one edited sequence = enumeration",
                seen.mean,
                seen.error,
                float(after[likely]),
                alternative=("its frequency in the source", float(law[likely])),
            ),
        ),
        headline="one pass over the source prefix gives every P(x_i | x_<i)",
    )


def gaps(confidence: int, p: Fraction) -> tuple[float, float]:
    """Return KL(P_LM || P_data) and KL(P_semi || P_data) over four tokens, the prior a fifth wrong."""
    start, step = markov(SEED, 3, confidence)
    other_start, other_step = markov(SEED + 1, 3, confidence)
    prior = [[(4 * a + b) / 5 for a, b in zip(*rows, strict=True)] for rows in zip(step, other_step, strict=True)]
    first = [(4 * a + b) / 5 for a, b in zip(start, other_start, strict=True)]
    data = sequences(start, step, 4)
    return (
        divergence(sequences(first, prior, 4), data),
        divergence(edited(data, first, prior, p), data),
    )


def check_44() -> Outcome:
    """The labels of eq. 44 on sources where every divergence is known."""
    start, step = markov(SEED, 3)
    data = sequences(start, step, 4)
    # A prior that has learned the source exactly: what it generates is pure by origin, with divergence zero.
    semi = divergence(edited(data, start, step, Fraction(3, 5)), data)
    heavy_pure, heavy_semi = gaps(30, Fraction(3, 5))
    light_pure, light_semi = gaps(400, Fraction(4, 5))
    return Outcome(
        stated=(
            exact(
                "an eps gives both labels, perfect prior",
                1,
                int(not semi < 0.0),
                f"KL(P_LM || P_data) = 0 < KL(P_semi || P_data) = {semi:.4f} nats",
            ),
            exact(
                "an eps gives both labels, rough prior, p = 3/5",
                1,
                int(not heavy_semi < heavy_pure),
                f"KL(P_LM || P_data) = {heavy_pure:.4f}, KL(P_semi || P_data) = {heavy_semi:.4f} nats",
            ),
        ),
        conditional=(
            exact("an eps gives both labels, rough prior, confident source", 1, int(not light_semi < light_pure)),
        ),
        headline=f"rough prior: eps in [{light_semi:.3f}, {light_pure:.3f}) nats when editing is light; none when it "
        f"is heavy ({heavy_semi:.3f} > {heavy_pure:.3f}) or the prior is perfect",
    )


def check_45() -> Outcome:
    """H(p) = log n - KL(p || uniform), so log n is the maximum and only the uniform law reaches it."""
    rng = np.random.default_rng(SEED)
    worst, reached = 0.0, 0
    for n in (2, 5, 50):
        for p in rng.dirichlet(np.ones(n), size=200):
            entropy = -float((p * np.log(p)).sum())
            gap = float((p * np.log(p * n)).sum())
            worst = max(worst, abs(entropy - (log(n) - gap)))
            reached += gap <= 1e-12
    return Outcome(
        stated=(
            close("H(p) = log n - KL(p || uniform), 600 laws", worst, 0.0, 1e-12),
            exact("KL(p || uniform) > 0 away from uniform", 600, reached),
        )
    )


def check_perplexity() -> Outcome:
    """Both printed forms."""
    p = np.random.default_rng(SEED).uniform(0.01, 1.0, 1000)
    two = 2.0 ** (-sum(log2(value) for value in p) / p.size)
    return Outcome(
        stated=(close("2^(-mean log2 P) = exp(-mean log P)", two / exp(-float(np.log(p).mean())), 1.0, 1e-12),)
    )


def check_dsir() -> Outcome:
    """The printed ratio, with the text's naming q_feat = target, p_feat = raw."""
    target = fractions([1, 2, 3, 4]) / Fraction(10)
    raw = fractions([4, 3, 2, 1]) / Fraction(10)
    printed = raw * (raw / target)
    turned = raw * (target / raw)
    printed, turned = printed / printed.sum(), turned / turned.sum()
    away = sum(abs(printed - target)) / 2
    return Outcome(
        stated=(
            exact(
                "raw documents weighted by p/q follow the target",
                1,
                int((printed != target).any()),
                f"total variation {away} from the target, raw itself {sum(abs(raw - target)) / 2}",
            ),
        ),
        correction=(
            exact(
                "raw documents weighted by q/p (target over raw) follow the target", 1, int((turned != target).any())
            ),
        ),
        headline=f"the printed weight moves the selection away: total variation {float(away):.3f}",
    )


def decoder_flops(context: int, layers: int = 32, width: int = 4096, parameters: float = 8e9) -> float:
    """Return multiply-adds times two for one token that attends to `context` tokens (Llama-3-8B's shape)."""
    return 2 * parameters + 4 * layers * width * context


class Counted:
    """A uniform order-1 prior that counts its forward calls; one call scores every position it is given."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tokens: list[int]) -> np.ndarray:
        """Return the next-token law after every prefix, (len(tokens), 2)."""
        self.calls += 1
        return np.full((len(tokens), 2), 0.5)


def forward_calls(length: int) -> tuple[int, int]:
    """Return the forward calls of generating `length` tokens and of editing them."""
    generator, editor = Counted(), Counted()
    tokens = [0]
    for _ in range(length):
        tokens.append(int(generator(tokens)[-1].argmax()))
    law = editor(tokens)
    _ = [int(row.argmax()) if row[token] >= 0.5 else token for row, token in zip(law, tokens, strict=True)]
    return generator.calls, editor.calls


def check_cost() -> Outcome:
    """Forward calls, and arithmetic with and without a cache, for 1024 tokens."""
    n = 1024
    generating, editing = forward_calls(n)
    one_pass = sum(decoder_flops(t) for t in range(1, n + 1))
    # With a key-value cache each step computes one new token: the same sum as one pass over the sequence.
    cached = sum(decoder_flops(t) for t in range(1, n + 1))
    uncached = sum(sum(decoder_flops(s) for s in range(1, t + 1)) for t in range(1, n + 1))
    return Outcome(
        stated=(
            close("arithmetic of generation / arithmetic of one pass, with cache", cached / one_pass, 1024.0, 1.0),
            close("the same without cache", uncached / one_pass, 1024.0, 1.0),
        ),
        conditional=(close("sequential forward calls, generating / editing", generating / editing, 1024.0, 0.0),),
        headline=f"calls {generating} : {editing}; arithmetic {cached / one_pass:.0f} : 1 with a key-value cache, "
        f"{uncached / one_pass:.0f} : 1 without",
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="eq-02",
        where="eq. 2",
        statement="x'_i = x_i if P(x_i | x_<i) < p, else x~_i drawn from the prior",
        owner="paper",
        kind="definition",
        check=check_2,
        equations=(2,),
        tolerance="exact counts",
        seed=SEED,
    ),
    Claim(
        id="algorithm-1",
        where="Algorithm 1",
        statement="one pass: q_i = P(x_i | x_<i); redraw where q_i >= p, keep elsewhere; same length",
        owner="paper",
        kind="definition",
        check=check_algorithm,
        tolerance="exact counts; one frequency within 4 standard errors of exact enumeration",
        seed=SEED,
    ),
    Claim(
        id="eq-44",
        where="eq. 44",
        statement="generated text is pure if KL(P_LM || P_data) > eps, edited text semi if KL(P_semi || P_data) <= eps",
        owner="paper",
        kind="definition",
        check=check_44,
        equations=(44,),
        condition="eps (no value is given) lies between the two divergences, as with light editing by a poor prior",
        tolerance="exact enumeration of 81 sequences; logarithms in float64",
        seed=SEED,
    ),
    Claim(
        id="eq-45",
        where="eq. 45 (printed as Lemma 1 of G.2)",
        statement="the uniform law on n outcomes has entropy log n, the maximum",
        owner="paper",
        kind="algebra",
        check=check_45,
        equations=(45,),
        tolerance="1e-12: sums of 50 terms in float64",
        seed=SEED,
    ),
    Claim(
        id="perplexity",
        where="F.2, unnumbered",
        statement="PPL = 2^{-mean log2 P(x_i)} = exp(-mean log P(x_i))",
        owner="paper",
        kind="definition",
        check=check_perplexity,
        tolerance="1e-12 relative: sums of 1000 terms in float64",
        seed=SEED,
    ),
    Claim(
        id="dsir-weight",
        where="G.5, unnumbered",
        statement="weight p^_feat/q^_feat with q the target and p the raw law selects towards the target",
        owner="paper",
        kind="definition",
        check=check_dsir,
        correction="the weight is target over raw, q/p in the text's naming (p/q in DSIR's own)",
    ),
    Claim(
        id="cost",
        where="G.6, unnumbered",
        statement="for length 1024 autoregressive synthesis costs 1024 times one editing pass",
        owner="paper",
        kind="definition",
        check=check_cost,
        condition="cost counted in sequential forward calls, not in arithmetic",
        tolerance="one unit in 1024: the statement is a round count",
    ),
)
