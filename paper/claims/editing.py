"""What editing real text with a real prior says: entries computed from committed runs of the steps lm_edit*.

Standard errors are over documents.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paper.audit import load_cells
from paper.claims.entry import STANDARD_ERRORS, Claim, Comparison, Kind, Outcome, Owner, at_most, close, readable

MISSING = "run `make reproduce` first"
TOLERANCE = "4 standard errors over documents"

PAPER_COLUMN = "Tokens (p > 0.99)"  # of table 15
CROSSINGS = 0.05  # share of the selected tokens that crossings may add to the prediction

Check = Callable[[Mapping[str, Any]], Outcome]
Data = Mapping[str, Any]


def rises(name: str, value: float, error: float) -> Comparison:
    """Compare with zero from above: contradicted 4 standard errors below, without power within 4."""
    numbers = {"value": value, "standard_error": error}
    width = STANDARD_ERRORS * error
    return Comparison(name, value >= -width, numbers, abs(value) > width, random=True)


def check_u_shape(data: Data) -> Outcome:
    """Table 6: the lowest and the highest tenth of [0, 1] hold more tokens than any tenth between."""
    comparisons, told = [], []
    for domain, scores in data["edit"]["summary"]["sample"]["domains"].items():
        if not scores["documents"]:
            told.append(f"{domain} not in the sample")
            continue
        share = scores["probability"]["before"]["deciles"]
        between = max(share[1:-1])
        for end, held in (("lowest", share[0]), ("highest", share[-1])):
            error = math.sqrt((held + between - (held - between) ** 2) / scores["tokens"])
            comparisons.append(rises(f"{domain}: {end} tenth - the largest between", held - between, error))
        told.append(
            f"{domain} {share[0]:.3f}, {min(share[1:-1]):.3f} to {between:.3f} between, {share[-1]:.3f} "
            f"({scores['documents']} documents, {scores['tokens']:,} tokens)"
        )
    return Outcome(tuple(comparisons), headline="shares of the tokens: " + "; ".join(told))


def check_share_falls(data: Data) -> Outcome:
    """Table 15: fewer tokens above .99 in each generation than in the one before."""
    comparisons, told = [], []
    for name, setting in data["again"]["result"]["settings"].items():
        ratios = [row["edit"]["ratio"] for row in setting["generations"] if "edit" in row]
        for number, ratio in enumerate(ratios, 1):
            comparisons.append(
                rises(f"{name}: 1 - ratio of edit {number}", 1 - ratio["value"], ratio["standard_error"])
            )
        told.append(f"{name} " + ", ".join(f"{one['value']:.4f} +- {one['standard_error']:.4f}" for one in ratios))
    return Outcome(stated=tuple(comparisons), headline="selected tokens over the generation before: " + "; ".join(told))


def check_predicted(data: Data) -> Outcome:
    """The chances of the first pass predict the selected share of every later generation, crossings apart."""
    comparisons, told = [], []
    for name, setting in data["again"]["result"]["settings"].items():
        for row in setting["generations"][1:]:
            more, share = row["more_than_predicted"], row["selected_share"]["value"]
            relative, error = more["value"] / share, more["standard_error"] / share
            what = f"{name}, generation {row['generation']}: |crossings| over the share"
            powered = STANDARD_ERRORS * error <= CROSSINGS
            comparisons.append(dataclasses.replace(at_most(what, abs(relative), error, CROSSINGS), powered=powered))
            beyond = f" ({(abs(relative) - CROSSINGS) / error:+.1f} standard errors from 5 %)" if not powered else ""
            told.append(f"{name} {row['generation']}: {relative:+.2%} +- {error:.2%}{beyond}")
    return Outcome(stated=tuple(comparisons), headline="share beyond the prediction: " + "; ".join(told))


def check_temperature(data: Data) -> Outcome:
    """Table 15's first ratio lies below what redraws at temperature 1 allow and within what the released code's do."""
    settings = data["again"]["result"]["settings"]
    first = settings["paper"]["generations"][1]
    more, share = first["more_than_predicted"], first["selected_share"]["value"]
    counts = [cell.value for cell in load_cells() if cell.table == 15 and cell.column == PAPER_COLUMN]
    ratio = counts[1] / counts[0]
    bounds = {name: setting["least_same"] for name, setting in settings.items()}
    return Outcome(
        stated=(
            Comparison("ratio below the least at temperature 1", ratio < bounds["paper"],
                       {"value": ratio, "bound": readable(bounds["paper"])}),
            Comparison("ratio at least the least at temperature 1.5", ratio >= bounds["released"],
                       {"value": ratio, "bound": readable(bounds["released"])}),
        ),
        headline=f"table 15's first ratio {ratio:.4f}; a redraw keeps a token with probability {bounds['paper']:.4f} "
        f"at least at temperature 1, {bounds['released']:.4f} at 1.5; crossings at temperature 1 with SmolLM2: "
        f"{more['value'] / share:+.2%} +- {more['standard_error'] / share:.2%} of the share",
    )  # fmt: skip


def check_rate(data: Data) -> Outcome:
    """At temperature 1 at most 1 - p of the selected tokens change."""
    edit = data["again"]["result"]["settings"]["paper"]["generations"][0]["edit"]
    redrawn, expected = edit["redrawn"], edit["expected_redrawn"]
    rate = edit["effective_edit_rate"]
    return Outcome(
        stated=(
            at_most("redrawn of selected", redrawn["value"], redrawn["standard_error"], 0.01),
            close("expected redraws of selected", expected["value"], 0.005, 0.005),
        ),
        headline=f"{redrawn['value']:.3%} of the selected tokens change (expected {expected['value']:.3%}), "
        f"{rate['value']:.4%} +- {rate['standard_error']:.4%} of all tokens",
    )


def check_likelihood(data: Data) -> Outcome:
    """Edited text is less likely under the prior than its source."""
    level = data["edit"]["summary"]["sample"]["total"]["mean_log_probability"]["change"]
    rate = data["edit"]["summary"]["total"]["effective_edit_rate"]
    return Outcome(
        stated=(rises("loss of log-probability, nats a token", -level["value"], level["standard_error"]),),
        headline=f"{level['value']:+.4f} +- {level['standard_error']:.4f} nats a token at an effective edit rate of "
        f"{rate['value']:.3%}",
    )


def _entry(
    data: Data | None,
    name: str,
    owner: Owner,
    where: str,
    statement: str,
    check: Check,
    kind: Kind = "expectation",
    tolerance: str = TOLERANCE,
) -> Claim:
    def run(data: Data | None) -> Outcome:
        return Outcome(stated=(), headline=MISSING) if data is None else check(data)

    return Claim(name, where, statement, owner, kind, partial(run, data), tolerance=tolerance)


def claims(data: Data | None) -> tuple[Claim, ...]:
    """Return the entries about editing.

    Args:
        data: "edit" and "again": the committed runs of the steps lm_edit and lm_edit_again; None where there are none.
    """
    ours = "this work"
    return (
        _entry(
            data, "edit-u-shape", "paper", "fig. 5 and table 6, with SmolLM2-135M-Instruct on other text",
            "token probabilities of human text under a prior are U-shaped: the lowest and the highest tenth of [0, 1] "
            "hold more tokens than any tenth between", check_u_shape,
            tolerance="4 standard errors, of tokens as though they were independent: a lower limit",
        ),
        _entry(
            data, "edit-share-falls", "paper", "table 15, with SmolLM2-135M-Instruct on other text",
            "the number of tokens above .99 falls from generation to generation", check_share_falls,
        ),
        _entry(
            data, "edit-share-temperature", ours, ours,
            "table 15's fall of 5.9 % in the first generation is more than redraws at temperature 1 can do (at most "
            "1 - p = 1 %), and within their bound at the released code's 1.5; crossings, tokens whose probability "
            "passes p because their context changed, come on top and are not bounded", check_temperature,
            "bound",
        ),
        _entry(
            data, "edit-share-predicted", ours, ours,
            "the share above p after g edits is sum q_i^g over the first generation's selected tokens, q_i the chance "
            "that a redraw gives the original back, up to crossings below 5 % of the share", check_predicted,
        ),
        _entry(
            data, "edit-rate-paper", ours, ours,
            "at the paper's settings (p = .99, temperature 1) at most 1 % of the selected tokens change", check_rate,
            "bound",
        ),
        _entry(
            data, "edit-likelihood", ours, ours,
            "text edited at the released code's settings is less likely under its prior than the source",
            check_likelihood,
        ),
    )  # fmt: skip
