"""This work's statements on what Algorithm 1 itself can do to a token."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import floor, log, log2
from typing import Any

import numpy as np

from paper.claims import process
from paper.claims.entry import Claim, Outcome, agrees, at_most, close, exact
from paper.claims.exact_process import Rational, fractions
from paper.claims.instances import SEED
from theory.markov import (
    Editor,
    change_range,
    edit_kernel,
    example_source,
    iterate_edit,
    kl_rate,
    one_edit_source_view,
    random_edit,
    stationary,
)

P = Fraction(99, 100)


def confident_laws(size: int, number: int) -> list[Rational]:
    """Return rational laws whose first token has probability at least .99, the rest at random."""
    generator = np.random.default_rng(SEED)
    laws = []
    for _ in range(number):
        rest = fractions(generator.integers(1, 1000, size=size - 1))
        top = P + Fraction(int(generator.integers(0, 1000)), 100_000)
        laws.append(np.array([top, *(rest / rest.sum() * (1 - top))], dtype=object))
    return laws


def check_change_bound() -> Outcome:
    """At temperature 1 a selected token keeps its place with probability q_i >= p_i >= p."""
    laws = confident_laws(40, 300)
    changes = [1 - law[0] / sum(sorted(law, reverse=True)[:k]) for law in laws for k in (8, 40)]
    beyond = sum(change > 1 - P for change in changes)
    reached = max(changes)
    total = Fraction(125, 1000) * (1 - P)
    return Outcome(
        stated=(
            exact("1 - q_i <= 1 - p, top 8 and all candidates", len(changes), beyond),
            close(
                "12.5 % selected: largest share of all tokens",
                float(total),
                0.00125,
                1e-15,
                alternative=("the selected share", 0.125),
            ),
        ),
        headline=f"largest change probability {float(reached):.5f}; at most {float(total):.3%} of all tokens",
    )


def change(law: np.ndarray, temperature: float) -> float:
    """Return the probability that the first token changes when drawn from law^(1/temperature)."""
    weights = law ** (1 / temperature)
    return float(1 - weights[0] / weights.sum())


def check_released_temperature() -> Outcome:
    """At temperature 1.5 over eight candidates."""
    equal = np.array([0.99, *[0.01 / 7] * 7])
    largest = change(equal, 1.5)
    rng = np.random.default_rng(SEED)
    others = [change(np.concatenate([[0.99], 0.01 * rng.dirichlet(np.ones(7))]), 1.5) for _ in range(2000)]
    return Outcome(
        stated=(
            close(
                "largest change = the engine's closed form",
                largest,
                change_range(0.99, Editor.released())[1],
                1e-12,
                alternative=("temperature 1", 0.01),
            ),
            at_most("no other split of the rest changes it more", max(others), 0.0, largest),
            close("it is .08 to two digits", largest, 0.08, 0.005, alternative=("temperature 1", 0.01)),
        ),
        headline=f"p_i = .99 changes with probability up to {largest:.4f} (temperature 1: .01)",
    )


def check_variance() -> Outcome:
    """One edit injects the variance q_i (1 - q_i) into the indicator of the original token."""
    law = np.array([0.7, 0.2, 0.1])
    rng = np.random.default_rng(SEED)
    kept = (rng.choice(3, size=400_000, p=law) == 0).astype(float)
    spread = process.mean((kept - law[0]) ** 2)
    q = float(law[0])
    return Outcome(
        stated=(
            agrees(
                "variance of the indicator of the original token",
                spread.mean,
                spread.error,
                q * (1 - q),
                alternative=("1 - q, the chance of a change", 1 - q),
            ),
        ),
        headline=f"{spread.mean:.5f} +- {spread.error:.5f}",
    )


def edited_law(law: Rational, selected: np.ndarray) -> Rational:
    """Return the law of x' given the source prefix by enumerating (x, draw)."""
    result = law * Fraction(0)
    for x, chance in enumerate(law):
        if selected[x]:
            result = result + chance * law
        else:
            result[x] += chance
    return result


def check_marginal() -> Outcome:
    """The law of an edited token given its source prefix."""
    generator = np.random.default_rng(SEED)
    wrong = moved = prefix_rule = cases = 0
    example = ""
    for _ in range(200):
        weights = fractions(generator.integers(1, 30, size=5))
        law = weights / weights.sum()
        selected = np.array([value >= Fraction(1, 4) for value in law])
        if not selected.any() or selected.all():
            continue
        cases += 1
        mass = law[selected].sum()
        after = edited_law(law, selected)
        formula = np.array([p * (mass + int(not s)) for p, s in zip(law, selected, strict=True)], dtype=object)
        wrong += bool((after != formula).any()) or after[selected].sum() != mass**2
        if (after != law).any():
            moved += 1
            example = example or f"P = {[str(p) for p in law]}, p = 1/4: P' = {[str(p) for p in after]}"
        # A rule that looks only at the prefix redraws every token or none: the law stays.
        prefix_rule += bool((edited_law(law, np.ones(5, dtype=bool)) != law).any())
    return Outcome(
        stated=(
            exact("P'(y) = P(y) (s + 1{y not selected}); selected mass s -> s^2", cases, wrong),
            exact("the law does change whenever 0 < s < 1", cases, cases - moved),
            exact("it would not if the rule looked at the prefix alone", cases, prefix_rule),
        ),
        headline=f"changed in {moved} of {cases} laws; {example}",
    )


def check_share_falls() -> Outcome:
    """Share of tokens above p by generation, exact engine, prior calibrated anew or kept."""
    source = example_source(5, 0.02, 3)
    curves = [
        iterate_edit(source, Editor(threshold=0.9), 4, prior=prior, regenerate=prior is None)
        for prior in (None, source)
    ]
    own, fixed = (curve.selected for curve in curves)
    first = source[source >= 0.9].size
    return Outcome(
        stated=(
            exact("the source has confident transitions", 1, int(first == 0)),
            at_most("own prior: share after one edit below the source's", float(own[1]), 0.0, 0.999 * float(own[0])),
            at_most(
                "fixed prior: share after one edit below the source's", float(fixed[1]), 0.0, 0.999 * float(fixed[0])
            ),
        ),
        headline="share above p: own prior "
        + ", ".join(f"{value:.4f}" for value in own)
        + "; fixed prior "
        + ", ".join(f"{value:.4f}" for value in fixed),
    )


GOLDEN = (5**0.5 - 1) / 2


def last_generation(p: float, largest: float) -> int:
    """Return floor(log2(ln p/ln m_0)) + 1, from which on no token is selected, 0 if m_0 < p."""
    return floor(log2(log(p) / log(largest))) + 1 if largest >= p else 0


def selected_share(source: np.ndarray, p: float, generations: int) -> np.ndarray:
    """Return the share above p by generation, every generation edited with its own calibrated order-1 law."""
    return iterate_edit(source, Editor(threshold=p), generations, regenerate=True).selected


def check_golden() -> Outcome:
    """Editing stops by the stated generation above the golden ratio, exactly then for independent tokens."""
    cases = late = 0
    for seed in range(12):
        source = example_source(5, 0.003 * (1 + seed), seed)
        for p in (0.62, 0.7, 0.9, 0.99):
            last = last_generation(p, float(source.max()))
            cases += 1
            late += bool(selected_share(source, p, last + 1)[last:].any())
    sharp = early = 0
    for p in (0.62, 0.7, 0.9, 0.99):
        for largest in (0.995, 0.999):
            source = np.tile([largest, 0.7 * (1 - largest), 0.3 * (1 - largest)], (3, 1))
            last = last_generation(p, largest)
            share = selected_share(source, p, last)
            sharp += 1
            early += bool(share[last - 1] == 0 or share[last] > 0)
    below = 0
    thresholds = (0.55, 0.6, GOLDEN - 0.001)
    for p in thresholds:
        top = p + 1e-4
        last = last_generation(p, top)
        below += bool(selected_share(np.tile([top, 1 - top], (2, 1)), p, last)[last] > 0)
    return Outcome(
        stated=(
            exact("nothing is selected from the stated generation on, random sources", cases, late),
            exact("independent tokens: something one generation earlier", sharp, early),
            exact("below (sqrt 5 - 1)/2, two tokens: still selected then", len(thresholds), len(thresholds) - below),
        ),
        headline=f"p = .99, largest conditional probability .999: {last_generation(0.99, 0.999)} generations",
    )


def reversal(transition: np.ndarray) -> np.ndarray:
    """Return diag(pi)^{-1} P' diag(pi)."""
    law = stationary(transition)
    return transition.T * law / law[:, None]


def check_cube() -> Outcome:
    """Redrawing every token by the order-1 model of the current data: P_{g+1} = P_g* P_g P_g."""
    generations, found = 3, []
    for seed in range(4):
        source = example_source(4, 0.1, seed)
        models = iterate_edit(source, Editor(threshold=1e-12), generations).models
        gaps = [float(np.abs(after - reversal(model) @ model @ model).max()) for model, after in pairwise(models)]
        still = float(np.abs(models[1] - source).max())
        # Sums of at most 4^5 products in float64: 1e-12 is thousands of roundings.
        found.append(
            close(
                f"source {seed}: largest difference over {generations} generations",
                max(gaps),
                0.0,
                1e-12,
                alternative=("a calibrated redraw changes nothing", still),
            )
        )
    symmetric = np.array([[0.0, 2.0, 1.0], [2.0, 1.0, 4.0], [1.0, 4.0, 0.0]])
    source = symmetric / symmetric.sum(1, keepdims=True)
    last = iterate_edit(source, Editor(threshold=1e-12), generations).models[-1]
    power = float(np.abs(last - np.linalg.matrix_power(source, 3**generations)).max())
    found.append(
        close(
            "reversible: the power 3^g of P",
            power,
            0.0,
            1e-12,
            alternative=("the power 2^g", float(np.abs(last - np.linalg.matrix_power(source, 2**generations)).max())),
        )
    )
    return Outcome(stated=tuple(found))


def check_entropy() -> Outcome:
    """A confident token's q becomes q^2: entropy, divergence and distance in closed form."""

    def entropy(law: np.ndarray) -> float:
        return float(-(law * np.log(law)).sum())

    rng = np.random.default_rng(SEED)
    falls = wrong = 0
    laws = 400
    for _ in range(laws):
        q = GOLDEN + (1 - GOLDEN) * rng.uniform(0.001, 0.999)
        law = np.array([q, *((1 - q) * rng.dirichlet(np.ones(4)))])
        after = one_edit_source_view(np.tile(law, (5, 1)), GOLDEN)[0]
        falls += entropy(after) <= entropy(law)
        divergence = float((law * np.log(law / after)).sum())
        # 1e-12: sums of five terms in float64.
        wrong += int(abs(divergence - (-q * log(q) - (1 - q) * log(1 + q))) > 1e-12)
        wrong += int(abs(0.5 * np.abs(after - law).sum() - q * (1 - q)) > 1e-12)
    two = [np.array([q, 1 - q]) for q in np.linspace(0.501, GOLDEN - 0.001, 50)]
    rises = sum(entropy(one_edit_source_view(np.tile(law, (2, 1)), 0.5)[0]) >= entropy(law) for law in two)
    q, size = 0.55, 50
    wide = np.array([q, *[(1 - q) / size] * size])
    spread = entropy(one_edit_source_view(np.tile(wide, (size + 1, 1)), 0.5)[0]) - entropy(wide)
    return Outcome(
        stated=(
            exact("q > (sqrt 5 - 1)/2: the entropy of the context rises", laws, falls),
            exact("two tokens, 1/2 < q < (sqrt 5 - 1)/2: it falls", len(two), rises),
            exact("KL = -q ln q - (1-q) ln(1+q) and distance q (1-q), to 1e-12", 2 * laws, wrong),
        ),
        headline=f"below the golden ratio it can rise with many tokens: by {spread:.2f} nats at q = .55, 50 others",
    )


# Found among random sources of whole thousandths: the first two contexts have nearly the same law.
LESS_HARM = np.array([[1, 328, 671], [1, 333, 666], [991, 8, 1]]) / 1000


def harm_ratio(source: np.ndarray) -> float:
    """Return KL(source || model) after one confident edit over that after a random one that changes as many tokens."""
    editor = Editor.paper()
    curve = iterate_edit(source, editor, 1)
    kernel = edit_kernel(source, Editor(1e-12, editor.candidates, editor.temperature, keep_original=True))
    pairs = stationary(source)[:, None] * source
    share = float(curve.changed[0]) / float((pairs * (1 - kernel.unchanged)).sum())
    return float(curve.kl[1]) / kl_rate(source, random_edit(source, kernel, share))


def check_harm() -> Outcome:
    """KL of one confident edit against that of a random edit that changes as many tokens, exact engine."""
    ratios = [harm_ratio(example_source(8, 0.006, seed)) for seed in range(20)]
    less = harm_ratio(LESS_HARM)
    return Outcome(
        stated=(
            exact("confident edit worse than random at the same effective rate", 20, sum(r <= 1 for r in ratios)),
            at_most("not in a source of three tokens: the ratio is below .7", less, 0.0, 0.7),
        ),
        headline=f"ratio of divergences {min(ratios):.1f} to {max(ratios):.1f}, median {float(np.median(ratios)):.1f}; "
        f"in the source of three tokens {less:.2f}",
    )


def _claim(name: str, statement: str, check: Callable[[], Outcome], **more: Any) -> Claim:
    fields: dict[str, Any] = {"kind": "algebra", "seed": SEED, **more}
    return Claim(id=name, where="this work", statement=statement, owner="this work", check=check, **fields)


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "token-change-bound",
        "temperature 1, top-k or all candidates: a selected token changes with probability at most 1 - p",
        check_change_bound,
    ),
    _claim(
        "token-released-temperature",
        "temperature 1.5 over eight candidates: a token at p_i = .99 changes with probability up to .08",
        check_released_temperature,
        tolerance="1e-12 between two evaluations in float64; the stated two digits",
    ),
    _claim(
        "token-variance",
        "one edit of a token injects the variance q_i (1 - q_i)",
        check_variance,
        kind="expectation",
        tolerance="4 standard errors over 400,000 draws",
    ),
    _claim(
        "token-marginal",
        "temperature 1, all candidates, calibrated prior: P'(y | prefix) = P(y)(s + 1{y not selected}), s the selected "
        "mass; conditional marginals do not stay as they were",
        check_marginal,
    ),
    _claim(
        "token-share-falls",
        "the share of tokens above p falls by itself in the first edit (Markov source, own or fixed prior)",
        check_share_falls,
        kind="expectation",
        tolerance="exact engine: rounding only; a fall of at least a thousandth",
    ),
    _claim(
        "token-editing-stops",
        "p > (sqrt 5 - 1)/2, prior = calibrated law of the current data, temperature 1, all candidates: no token is "
        "selected from generation floor(log2(ln p/ln m_0)) + 1 on; below (sqrt 5 - 1)/2 this fails",
        check_golden,
        kind="bound",
        tolerance="exact engine: selected or not",
        seed=None,
        latex=r"N=\lfloor\log_2(\ln p/\ln m_0)\rfloor+1",
    ),
    _claim(
        "token-full-redraw",
        "every token redrawn by the order-1 model of the current data: P_{g+1} = P_g* P_g P_g; reversible P: P^(3^g)",
        check_cube,
        tolerance="1e-12 in float64",
        seed=None,
        latex=r"P_{g+1}=P_g^*P_gP_g",
    ),
    _claim(
        "token-entropy",
        "a confident token's q becomes q^2: the context's entropy rises if (sqrt 5 - 1)/2 < q < 1, and with two "
        "tokens falls for 1/2 < q below it; KL = -q ln q - (1-q) ln(1+q)",
        check_entropy,
        tolerance="1e-12 in float64",
    ),
    _claim(
        "token-confident-harm",
        "in each of 20 random Markov sources of one family (a third of the contexts has a token of .994) one edit of "
        "the confident tokens (p = .99, top 8, temperature 1) raises KL(source || model) more than a random edit that "
        "changes as many tokens; not so in general: in the source of three tokens with the transitions "
        "(.001, .328, .671), (.001, .333, .666), (.991, .008, .001) it raises it less",
        check_harm,
        kind="expectation",
        tolerance="exact engine; a statement about these 21 sources only",
        seed=0,
    ),
)
