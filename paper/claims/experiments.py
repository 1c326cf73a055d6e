"""What the experiments on synthetic data say: entries computed from their committed results.

Arms and comparisons were fixed before the results were looked at (commit 2dad3d3); after that the condition of two
entries of the mixture became an entry of its own, and two statements on confident against random edits lost their
direction (2a13b68, cda28e5). All losses are in nats a token, against the model of the same seed that was trained on
human text alone. A difference counts beyond Student's 95 % interval over the seeds (three seeds: 4.3 standard errors)
and beyond twice its standard error over the works of the test text, with no correction for their number, which the
ledger tells; an arm whose edits change less than 0.1 % of the tokens is untestable.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any

from lm.experiments.tables import LEVEL, UNTESTABLE
from paper.audit import SHARES
from paper.claims.entry import Claim, Comparison, Kind, Number, Outcome, Owner
from paper.contrasts import (
    Contrast,
    Data,
    UntestableError,
    change,
    column,
    effective_rate,
    human_domains,
    is_testable,
    last_generation,
    rates,
    sources,
)

TOLERANCE = (
    "95 % t interval over the seeds, each of which is wrong once in 20, and twice the error over works of the test text"
)
OVER_SEEDS = (
    "95 % t interval over the seeds, each of which is wrong once in 20; the error over works of the test text is not "
    "known of this column"
)
SHARED = (
    ", and all seeds share one confident edit of the text: the interval is over initial weights, order and random edits"
)
ONE_EDIT = OVER_SEEDS + SHARED
UNIT = "nats a token, +- half of the 95 % interval"

Committed = Mapping[str, Any]
Check = Callable[[Data], Outcome]


def _compared(name: str, contrast: Contrast, wrong: str = "") -> Comparison:
    half = contrast.half_width
    numbers: dict[str, Number] = {"value": contrast.mean, "seeds": len(contrast.values)}
    numbers["half_width"] = str(inf) if half is None else half
    if contrast.works_se is not None:
        numbers["works_standard_error"] = contrast.works_se
    found = contrast.direction
    return Comparison(
        name, found != wrong, numbers, powered=found != "not distinguishable", random=True, level=1 - LEVEL
    )


def rises(name: str, contrast: Contrast) -> Comparison:
    """Compare with zero from above: contradicted where it falls, without power where nothing can be distinguished."""
    return _compared(name, contrast, "falls")


def falls(name: str, contrast: Contrast) -> Comparison:
    """Compare with zero from below: contradicted where it rises, without power where nothing can be distinguished."""
    return _compared(name, contrast, "rises")


def differs(name: str, contrast: Contrast) -> Comparison:
    """Ask whether it is distinguishable from zero; if not, nothing is decided."""
    return _compared(name, contrast)


def _text(label: str, contrast: Contrast) -> str:
    half = contrast.half_width
    return f"{label} {contrast.mean:+.4f}" + ("" if half is None else f" +- {half:.4f}")


def _headline(contrasts: Mapping[str, Contrast], unit: str = UNIT) -> str:
    seeds = min(len(contrast.values) for contrast in contrasts.values())
    return f"{seeds} seeds, {unit}: " + ", ".join(_text(name, contrast) for name, contrast in contrasts.items())


def _stated(compare: Callable[[str, Contrast], Comparison], contrasts: Mapping[str, Contrast]) -> Outcome:
    return Outcome(tuple(compare(name, one) for name, one in contrasts.items()), headline=_headline(contrasts))


def _along_shares(
    compare: Callable[[str, Contrast], Comparison], by_share: Mapping[int, Contrast], *, steps: bool
) -> Outcome:
    """Compare each share with the one before, or the last with the first.

    Both were fixed in advance, the second as the condition of the first; a step too small to be distinguished would
    have left it unsaid, so they are two entries.
    """
    pairs = [*pairwise(SHARES), (SHARES[0], SHARES[-1])]
    contrasts = {f"share {b} - {a}": by_share[b] - by_share[a] for a, b in pairs}
    found = [compare(name, contrast) for name, contrast in contrasts.items()]
    return Outcome(tuple(found[:-1] if steps else found[-1:]), headline=_headline(contrasts))


def check_training_loss(data: Data, *, steps: bool) -> Outcome:
    """Training loss along the shares of the external synthetic text."""
    external = sources(data)[0]
    by_share = {share: column(data, f"{external} {share} %", "final_training_loss") for share in SHARES}
    return _along_shares(falls, by_share, steps=steps)


def check_human_perplexity(data: Data, *, steps: bool) -> Outcome:
    """Loss on human text along the shares of the external synthetic text."""
    external = sources(data)[0]
    by_share = {share: change(data, f"{external} {share} %") for share in SHARES}
    return _along_shares(rises, by_share, steps=steps)


def check_own_text(data: Data) -> Outcome:
    """Pure synthetic text: the external source's harm minus that of the model's own."""
    external, own = (change(data, f"{source} 100 %") for source in sources(data))
    name = "external minus own"
    contrasts = {name: external - own, "external": external, "own": own}
    return Outcome((differs(name, external - own),), headline=_headline(contrasts))


def check_trained_domains(data: Data) -> Outcome:
    """Pure synthetic text: harm in the domains of the human text minus harm in held-out ones."""
    arm = f"{sources(data)[0]} 100 %"
    trained, held_out = (change(data, arm, domains) for domains in ("trained", "held-out"))
    name = "trained minus held-out"
    contrasts = {name: trained - held_out, "trained": trained, "held-out": held_out}
    return Outcome((rises(name, trained - held_out),), headline=_headline(contrasts))


def check_presets(data: Data) -> Outcome:
    """Edited text of the two settings against its source; a setting that changes too little is not compared."""
    rate = {name: effective_rate(data, name) for name in ("paper", "released")}
    contrasts = {f"{name} (rate {value:.3%})": change(data, name) for name, value in rate.items()}
    stated = [falls(label, one) for name, (label, one) in zip(rate, contrasts.items(), strict=True)
              if is_testable(data, name)]  # fmt: skip
    left_out = [name for name in rate if not is_testable(data, name)]
    note = f"; {', '.join(left_out)}: under {UNTESTABLE:.1%}, untestable" if left_out else ""
    return Outcome(tuple(stated), headline=_headline(contrasts) + note)


def _testable_rates(data: Data) -> list[float]:
    found = [rate for rate in rates(data) if is_testable(data, f"confident {rate:g} %")]
    if not found:
        raise UntestableError(f"no rate of the run changes {UNTESTABLE:.1%} of the tokens")
    return found


def check_dose(data: Data) -> Outcome:
    """Loss at the highest rate minus loss at the lowest testable one, of confident and of random edits."""
    least, *_, most = _testable_rates(data)
    return _stated(
        rises,
        {
            f"{kind} at {most:g} - {least:g} %": change(data, f"{kind} {most:g} %")
            - change(data, f"{kind} {least:g} %")
            for kind in ("confident", "random")
        },
    )


def check_confident_random(data: Data) -> Outcome:
    """Confident minus random edits at the highest rate; the other rates are told."""
    contrasts = {
        f"confident - random, {rate:g} %": change(data, f"confident {rate:g} %") - change(data, f"random {rate:g} %")
        for rate in _testable_rates(data)
    }
    *_, (name, last) = contrasts.items()
    return Outcome((differs(name, last),), headline=_headline(contrasts))


def check_column(name: str, unit: str, data: Data) -> Outcome:
    """A column of the trained models: confident minus as many random edits at the two highest rates."""
    contrasts = {
        f"confident - random, {rate:g} %": column(data, f"confident {rate:g} %", name)
        - column(data, f"random {rate:g} %", name)
        for rate in _testable_rates(data)[-2:]
    }
    stated = tuple(differs(label, contrast) for label, contrast in contrasts.items())
    return Outcome(stated, headline=_headline(contrasts, unit))


def _start_and_end(data: Data, rule: str) -> tuple[Contrast, Contrast]:
    """Return the change of loss in generation 1 and the last; raises UntestableError where edits change too little."""
    last = last_generation(data)
    if rule.startswith("edit"):
        for arm in (f"{rule} {generation}" for generation in range(1, last + 1)):
            if not is_testable(data, arm):
                raise UntestableError(f"{arm}: only {effective_rate(data, arm):.3%} of the tokens change")
    return change(data, f"{rule} 1"), change(data, f"{rule} {last}")


def check_replace(data: Data) -> Outcome:
    """Replace: loss above the human-only model's, and still rising after generation 1."""
    start, end = _start_and_end(data, "replace")
    return _stated(rises, {"last generation - human": end, "last - generation 1": end - start})


def check_levels_off(data: Data) -> Outcome:
    """Edit: grows less than replace after generation 1, and less in the last generation than in the first."""
    start, end = _start_and_end(data, "edit")
    first, last = _start_and_end(data, "replace")
    step = end - change(data, f"edit {last_generation(data) - 1}")
    contrasts = {"edit's growth - replace's, after generation 1": (end - start) - (last - first),
                 "edit's last increment - its first": step - start}  # fmt: skip
    return Outcome(
        tuple(falls(name, contrast) for name, contrast in contrasts.items()),
        headline=_headline({**contrasts, "edit, last generation - human": end}),
    )


def check_human(rule: str, data: Data) -> Outcome:
    """The last generation of a rule against the human-only model."""
    _, end = _start_and_end(data, rule)
    return _stated(differs, {f"{rule}, last generation - human": end})


def check_ends(left: str, right: str, compare: Callable[[str, Contrast], Comparison], data: Data) -> Outcome:
    """Two rules at the last generation."""
    _, mine = _start_and_end(data, left)
    _, other = _start_and_end(data, right)
    return _stated(compare, {f"{left} - {right}, last generation": mine - other})


def check_growth(left: str, right: str, compare: Callable[[str, Contrast], Comparison], data: Data) -> Outcome:
    """What two rules add after generation 1."""
    growths = {}
    for rule in (left, right):
        start, end = _start_and_end(data, rule)
        growths[rule] = end - start
    name = f"{left} - {right}, growth after generation 1"
    return Outcome((compare(name, growths[left] - growths[right]),),
                   headline=_headline({name: growths[left] - growths[right], **growths}))  # fmt: skip


def check_small_model(data: Data) -> Outcome:
    """The share above .99 of the prior trained on human text, and what p = .99 could change at most."""
    rows = [row for row in data["tables"]["edits"] if row["arm"] == "edit 1"]
    if not rows:
        raise UntestableError("the run has no edit of the human text")
    share = max(row["share_above_0.99"] for row in rows)
    # Temperature 1: a token selected at p changes with probability at most 1 - p.
    rate = 0.01 * share
    numbers: dict[str, Number] = {"seeds": len(rows), "value": rate, "bound": UNTESTABLE}
    median = max(row["median"] for row in rows)
    return Outcome(
        stated=(Comparison("largest share above .99 times (1 - .99)", rate < UNTESTABLE, numbers),),
        headline=f"share above .99: {share:.4%} of the tokens at most ({len(rows)} seeds; median probability "
        f"{median:.3f}); p = .99 would change at most {rate:.6%}",
    )


def _entry(
    data: Data,
    name: str,
    owner: Owner,
    where: str,
    statement: str,
    check: Check,
    kind: Kind = "expectation",
    tolerance: str = TOLERANCE,
) -> Claim:
    def run() -> Outcome:
        try:
            return check(data)
        except UntestableError as reason:
            return Outcome(stated=(), headline=str(reason))

    return Claim(name, where, statement, owner, kind, run, tolerance=tolerance)


# Of sources whose author is not all that sets them apart from the human text.
SUBJECT = {"champ": " (answers to problems of mathematics: another subject, too)"}


def _mixture(mixture: Data) -> tuple[Claim, ...]:
    ours, paper = "this work", "paper"
    figures, tables = "figures 2 and 7-9, on small models", "tables 1, 13, 14, 17, on small models"
    steps = "step by step, 0 to 25 to 50 to 75 to 100 %"
    domains, subject = len(human_domains(mixture)), SUBJECT.get(sources(mixture)[0], "")
    text = f"another model's text{subject}"
    return (
        _entry(
            mixture, "mixture-training-loss", paper, figures,
            f"the training loss on {text} alone is below that on human text alone",
            partial(check_training_loss, steps=False), tolerance=OVER_SEEDS,
        ),
        _entry(
            mixture, "mixture-training-loss-steps", paper, figures,
            f"the training loss falls as the share of {text} grows ({steps})",
            partial(check_training_loss, steps=True), tolerance=OVER_SEEDS,
        ),
        _entry(
            mixture, "mixture-perplexity", paper, tables,
            f"perplexity on human text is higher after training on {text} alone than on human text alone "
            f"(mean over {domains} domains)", partial(check_human_perplexity, steps=False),
        ),
        _entry(
            mixture, "mixture-perplexity-steps", paper, tables,
            f"perplexity on human text rises as the share of {text} grows ({steps}; "
            f"mean of {domains} domains)",
            partial(check_human_perplexity, steps=True),
        ),
        _entry(
            mixture, "mixture-source", ours, ours,
            f"pure text of another, larger model{subject} and pure text of the model itself differ in the harm they do",
            check_own_text,
        ),
        _entry(
            mixture, "mixture-domains", ours, ours,
            "pure synthetic text costs the domains that the human text has more than domains held out from it",
            check_trained_domains,
        ),
    )  # fmt: skip


def _edited(edited: Data) -> tuple[Claim, ...]:
    ours, paper = "this work", "paper"
    return (
        _entry(
            edited, "edited-presets", paper, "table 2, on small models: loss instead of accuracy",
            "training on edited text (the paper's and the released code's settings) gives a better model than on its "
            "source", check_presets, tolerance=TOLERANCE + SHARED,
        ),
        _entry(
            edited, "edited-dose", ours, ours,
            "the harm of edits grows with the effective edit rate: highest rate against the lowest testable one, "
            "confident and random edits", check_dose, tolerance=TOLERANCE + SHARED,
        ),
        _entry(
            edited, "edited-confident-random", ours, ours,
            "confident and random edits that change as many tokens differ in the harm they do (compared at the "
            "highest rate)", check_confident_random, tolerance=TOLERANCE + SHARED,
        ),
        _entry(
            edited, "edited-underconfident", ours, ours,
            "after confident redraws the trained model gives another share of the human test tokens above .9 than "
            "after as many random ones (two highest rates; expected: a smaller one, as a token of probability q "
            "survives with q^2)",
            partial(check_column, "share_above_0.9", "share of the tokens, +- half of the interval"),
            tolerance=ONE_EDIT,
        ),
        _entry(
            edited, "edited-rare-tokens", ours, ours,
            "confident and as many random edits differ in the loss on the rarest tenth of the test tokens (two highest "
            "rates; expected: less after confident ones, as random ones remove rare tokens from the text)",
            partial(check_column, "rare_nats", UNIT), tolerance=ONE_EDIT,
        ),
    )  # fmt: skip


def _iterate(iterate: Data) -> tuple[Claim, ...]:
    ours, paper = "this work", "paper"
    small = "sections 1 and 5, on small models"
    return (
        _entry(
            iterate, "lm-replace", paper, small,
            "replace: the loss on human test text rises above the human-only model's, and on after generation 1",
            check_replace,
        ),
        _entry(
            iterate, "lm-edit-levels-off", paper, small,
            "edit of the 12.5 % most confident tokens, prior = previous model: the loss grows less than under replace "
            "after generation 1, and less in the last generation than in the first", check_levels_off,
        ),
        _entry(
            iterate, "lm-edit-replace", paper, small,
            "edit ends below replace in the loss on human test text",
            partial(check_ends, "edit", "replace", falls),
        ),
        _entry(
            iterate, "lm-edit-source", ours, ours, "edit: the last generation differs from training on the human text",
            partial(check_human, "edit"),
        ),
        _entry(
            iterate, "lm-confident-random", ours, ours,
            "edits of confident tokens and random edits that change as many tokens differ in the last generation's "
            "loss", partial(check_ends, "edit", "edit-random", differs),
        ),
        _entry(
            iterate, "lm-confident-random-growth", ours, ours,
            "edits of confident tokens and random edits that change as many tokens differ in what they add after "
            "generation 1", partial(check_growth, "edit", "edit-random", differs),
        ),
        _entry(
            iterate, "lm-accumulate-replace", ours, ours,
            "accumulate ends below replace in the loss on human test text",
            partial(check_ends, "accumulate", "replace", falls),
        ),
        _entry(
            iterate, "lm-fixed-real-share", ours, ours,
            "a fixed real share of one half grows less than replace after generation 1",
            partial(check_growth, "fixed-real-share", "replace", falls),
        ),
        _entry(
            iterate, "token-small-model", ours, ours,
            "in a small model trained for minutes on real text so few tokens are above .99 that p = .99 would change "
            "less than 0.1 % of them: untestable, so thresholds are set by quantile", check_small_model, "bound",
        ),
    )  # fmt: skip


ENTRIES: dict[str, Callable[[Data], tuple[Claim, ...]]] = {"mixture": _mixture, "edited": _edited, "iterate": _iterate}


def claims(committed: Committed, size: str = "") -> tuple[Claim, ...]:
    """Return the entries about the experiments.

    Args:
        committed: results by experiment (mixture, edited, iterate), each with its "data".
        size: of the models, such as "17M", in the entries' names; "" for the small ones that `make reproduce` trains.
    """
    found = (claim for name, result in committed.items() for claim in ENTRIES[name](result["data"]))
    if not size:
        return tuple(found)
    return tuple(
        replace(
            claim,
            id=f"{claim.id}-{size.lower()}",
            where=claim.where.replace("small models", f"models of {size} parameters"),
            statement=f"{size} parameters: {claim.statement}",
        )
        for claim in found
    )
