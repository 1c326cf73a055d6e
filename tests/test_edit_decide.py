"""Algorithm 1 on single positions: selection, the law of the draws against its definition, keys, settings."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lm.editing.config import PRESETS, EditConfig
from lm.editing.decide import decide, likeliest
from lm.errors import InputError
from lm.generation.sampling import document_words

V, DRAWS = 60, 30_000
LOGITS = (np.random.default_rng(3).normal(size=V) * 1.5).astype(np.float32)
DRAWABLE = np.arange(V) % 7 != 3  # some ids are never drawn, likely ones among them
ORDER = np.argsort(-LOGITS, kind="stable")


def _decide(
    config, token, *, logits=LOGITS, positions: Sequence[int] = range(DRAWS), editable=True, document="a document"
):
    number = len(positions)
    return decide(
        np.broadcast_to(logits, (number, V)),
        np.full(number, token, np.int32),
        np.full(number, editable),
        DRAWABLE,
        np.repeat(document_words([document]), number, axis=0),
        np.asarray(positions, np.int32),
        config.numbers,
        rule=config.rule,
    )


def _law(config, token):
    """The candidates' distribution by its definition, in float64."""
    temperature = config.temperature
    power = 1 / temperature + (1 / config.beta if config.candidates == "rejection" else 0)
    weight = np.where(DRAWABLE, np.exp(LOGITS.astype(float) * power), 0.0)
    if not config.keep_original:
        weight[token] = 0
    kept = weight > 0
    if config.candidates == "top-k":
        likeliest = [one for one in ORDER if weight[one] > 0][: config.top_k]
        kept = np.isin(np.arange(V), likeliest)
    elif config.candidates == "top-p":
        above = np.array([weight[weight > one].sum() for one in weight])
        kept &= above < config.top_p * weight.sum()
    if config.keep_original:
        kept[token] = True
    weight = np.where(kept, weight, 0.0)
    return weight / weight.sum()


ALL = {"select": "at-least", "threshold": 0.0}
CONFIGS = [
    EditConfig(**ALL),
    EditConfig(**ALL, temperature=1.5),
    EditConfig(**ALL, top_k=3, keep_original=False),
    EditConfig(**ALL, candidates="top-p", top_p=0.6),
    EditConfig(**ALL, candidates="top-p", top_p=0.8, temperature=0.7, keep_original=False),
    EditConfig(**ALL, candidates="all"),
    EditConfig(**ALL, candidates="all", temperature=2.0, keep_original=False),
    EditConfig(**ALL, candidates="rejection", beta=1.0),
]


def _fits(counts, law):
    if counts[law == 0].any():
        return False
    expected = law * counts.sum()
    # Rare tokens are pooled: the chi-square law holds for expectations of 5 or more.
    rare = expected < 5
    found = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    kept = wanted > 0
    if kept.sum() < 2:
        return True
    # The seed is fixed, so 1e-4 is the chance that this test was born failing.
    return bool(scipy.stats.chisquare(found[kept], wanted[kept]).pvalue > 1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("rank", [1, 20])
def test_draws_follow_the_definition_and_not_another(config, rank):
    drawable = [one for one in ORDER if DRAWABLE[one]]
    token = int(drawable[rank])
    made = _decide(config, token)
    assert np.all(made.selected)
    counts = np.bincount(np.asarray(made.token), minlength=V)
    assert _fits(counts, _law(config, token))
    for other in (
        dataclasses.replace(config, temperature=config.temperature * 1.5),
        dataclasses.replace(config, keep_original=not config.keep_original),
        dataclasses.replace(config, candidates="top-k", top_k=config.top_k - 1),
    ):
        assert not _fits(counts, _law(other, token)), other


def test_rejection_sampling_is_what_its_algorithm_accepts():
    config = EditConfig(**ALL, candidates="rejection", temperature=1.3, beta=0.7)
    rng = np.random.default_rng(0)
    weight = np.where(DRAWABLE, np.exp(LOGITS.astype(float) / config.temperature), 0.0)
    proposals = rng.choice(V, 200_000, p=weight / weight.sum())
    log_share = np.where(DRAWABLE, LOGITS.astype(float), -np.inf)
    accepted = rng.random(len(proposals)) < np.exp((log_share[proposals] - log_share.max()) / config.beta)
    counts = np.bincount(proposals[accepted], minlength=V)
    assert _fits(counts, _law(config, int(ORDER[0])))
    assert not _fits(counts, _law(dataclasses.replace(config, beta=0.6), int(ORDER[0])))


def _share(token):
    whole = LOGITS.astype(float)
    return float(np.exp(whole[token]) / np.exp(whole).sum())


@pytest.mark.parametrize("select", ["at-least", "above", "at-most", "band"])
def test_selection_at_the_threshold_itself(select):
    token = int(ORDER[2])
    probability = np.asarray(_decide(EditConfig(), token, positions=[1]).probability).item()
    # float32 sums of 60 terms: 60 roundings of 2^-24 at most.
    assert probability == pytest.approx(_share(token), rel=60 * 2**-24)
    below, above = (np.nextafter(np.float32(probability), np.float32(end)) for end in (0, 1))

    def selected(threshold, upper=1.0):
        config = EditConfig(select=select, threshold=float(threshold), upper=float(upper))
        return bool(np.asarray(_decide(config, token, positions=[1]).selected)[0])

    wanted = {"at-least": (1, 1, 0), "above": (1, 0, 0), "at-most": (0, 1, 1), "band": (1, 1, 0)}[select]
    assert (selected(below), selected(probability), selected(above)) == wanted
    if select == "band":
        assert selected(below, probability)
        assert not selected(0.0, below)


def test_a_draw_depends_on_seed_document_and_position_only():
    config, token = EditConfig(**ALL), int(ORDER[1])
    whole = np.asarray(_decide(config, token, positions=range(200)).token)
    back = np.asarray(_decide(config, token, positions=range(199, -1, -1)).token)[::-1]
    assert np.array_equal(whole, back)
    for other in (
        _decide(dataclasses.replace(config, seed=1), token, positions=range(200)),
        _decide(config, token, positions=range(200), document="another"),
        _decide(config, token, positions=range(1, 201)),
    ):
        assert not np.array_equal(whole, np.asarray(other.token))


def test_what_is_reported_of_a_position():
    config, token = EditConfig(**ALL), int(ORDER[1])
    made = _decide(config, token, positions=range(50))
    share = np.exp(LOGITS.astype(float))
    share /= share.sum()
    assert np.asarray(made.entropy) == pytest.approx(-(share * np.log(share)).sum(), rel=1e-5)
    assert np.asarray(made.new_probability) == pytest.approx(share[np.asarray(made.token)], rel=1e-5)
    assert np.array_equal(made.changed(np.full(50, token)), np.asarray(made.token) != token)


def test_what_may_not_be_edited_stays_and_deletion_takes_what_is_not_selected():
    token = int(ORDER[-1])
    drop = EditConfig(select="above", threshold=0.9, delete_below=2 * _share(token))
    made = _decide(drop, token, positions=[1])
    assert np.asarray(made.deleted)[0]
    assert not np.asarray(made.selected)[0]
    assert np.asarray(made.token)[0] == token
    assert np.isnan(np.asarray(made.new_probability)[0])
    kept = _decide(drop, token, positions=[1], editable=False)
    assert not np.asarray(kept.deleted)[0]
    both = dataclasses.replace(drop, select="at-most")
    made = _decide(both, token, positions=[1])
    assert np.asarray(made.selected)[0]
    assert not np.asarray(made.deleted)[0]


def test_a_certain_token_has_probability_one_and_redraws_to_itself():
    logits = np.full(V, -80.0, np.float32)
    logits[0] = 30.0
    made = _decide(PRESETS["released"], 0, logits=logits, positions=range(20))
    assert np.all(np.asarray(made.probability) == 1.0)
    assert np.all(made.selected)
    assert np.all(np.asarray(made.token) == 0)
    assert np.all(np.asarray(made.entropy) < 1e-6)
    # Nothing is above probability 1: `filter` redraws nothing.
    assert not np.any(_decide(PRESETS["filter"], 0, logits=logits, positions=range(20)).selected)


def test_presets_say_what_the_paper_and_its_code_do():
    assert PRESETS["paper"] == EditConfig("at-least", 0.99, candidates="top-k", top_k=8, temperature=1.0)
    assert PRESETS["released"] == EditConfig("above", 0.99, candidates="top-k", top_k=8, temperature=1.5)
    assert [name for name, one in PRESETS.items() if one.prunable] == ["paper", "released"]
    # A token at P = .99 with its rest spread over 7 others changes with probability .08 at a temperature of 1.5.
    others = np.full(7, 0.01 / 7) ** (1 / 1.5)
    assert others.sum() / (others.sum() + 0.99 ** (1 / 1.5)) == pytest.approx(0.08, abs=0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        {"select": "most"},
        {"candidates": "beam"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": 0.5, "upper": 0.4},
        {"top_k": 0},
        {"top_p": 0.0},
        {"temperature": 0.0},
        {"beta": 0.0},
        {"delete_below": -0.1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        EditConfig(**wrong)


def test_settings_come_back_from_json():
    for config in PRESETS.values():
        assert EditConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError, match="no setting beams"):
        EditConfig.from_json({"beams": 3})


@pytest.mark.parametrize(("size", "number"), [(5000, 8), (1100, 8), (500, 8), (4096, 1), (9000, 64)])
def test_the_likeliest_are_found_without_sorting_the_vocabulary(size, number):
    rng = np.random.default_rng(size)
    # Few different values: equals everywhere, across blocks too; and ids that are never drawn.
    logits = rng.integers(0, 12, (40, size)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.3] = -np.inf
    logits[0] = -np.inf
    logits[0, 7] = 1
    logits[1] = np.arange(size)
    for found, wanted in zip(likeliest(jnp.asarray(logits), number), jax.lax.top_k(logits, number), strict=True):
        np.testing.assert_array_equal(found, wanted)
