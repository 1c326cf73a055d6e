"""Figures of the experiments draw the numbers of the result, and the report shows what is beside the paper."""

import numpy as np
import pytest
from made_up_experiments import committed, mixture_change

from figures import lm_edited, lm_iterate, lm_larger, lm_mixture
from figures.lm_arms import last_arms
from paper.beside import beside
from paper.report import experiments


@pytest.fixture(scope="module")
def results():
    whole = committed()
    rng = np.random.default_rng(0)
    rules = ("replace", "accumulate", "accumulate-subsample", "fixed-real-share")
    rules += ("high-confidence, by rank", "random, constant share")
    curves = {rule: {"error": rng.uniform(1, 3, 17), "standard_error": np.full(17, 0.1)} for rule in rules}
    live = {"mixture": whole["mixture"]["data"]}
    paper = {"paper, table 1": [[0.0, 0.0], [100.0, 0.8]]}
    data = {"committed": whole, "larger": _larger(committed(mixture=_steeper)), "live": live, "paper": paper}
    return {"lm_experiments": {"data": data}, "curves": {"data": {"curves": curves}}}


def _steeper(about, domain):
    return 2 * mixture_change(about, domain)


def _larger(whole):
    """Return two experiments as those of a larger size."""
    return {"size": "17M", "committed": {name: whole[name] for name in ("mixture", "edited")}}


def _lines(ax):
    return [np.asarray(line.get_xydata(), float) for line in ax.get_lines()]


def _drawn(ax, points):
    return any(len(line) == len(points) and np.allclose(line, points) for line in _lines(ax))


def test_mixture_draws_means_seeds_the_paper_and_this_run(results):
    data = results["lm_experiments"]["data"]["committed"]["mixture"]["data"]
    ax = lm_mixture.draw(results).axes[0]
    for source in {row["synthetic"] for row in data["tables"]["cells"]}:
        for domain in ("human", "trained", "held-out"):
            arms = [row for row in last_arms(data, domain) if row["synthetic"] == source]
            assert _drawn(ax, [(row["share"], row["change"]) for row in arms])
    assert _drawn(ax, [(0, 0), (100, 0.8)])
    assert "made in this run" in ax.get_legend_handles_labels()[1]


def test_edited_draws_the_dose_at_the_effective_rate(results):
    data = results["lm_experiments"]["data"]["committed"]["edited"]["data"]
    ax = lm_edited.draw(results).axes[0]
    rate = {row["arm"]: 100 * row["effective_rate"] for row in data["tables"]["edits"]}
    for kind in ("confident", "random"):
        arms = [row for row in last_arms(data, "human") if row["selection"] == kind]
        points = sorted((rate[row["arm"]] * lm_edited.BESIDE[kind], row["change"]) for row in arms)
        assert _drawn(ax, points)
    band = next(one for one in ax.collections if one.get_label() == "not told from zero")
    drawn = np.unique(np.abs(np.asarray(band.get_paths()[0].vertices)[:, 1]).round(9))
    # The random edits' intervals are the wider ones, and wider than twice the error over works.
    wider = [row["change_half_width"] for row in last_arms(data, "human") if row["selection"] == "random"]
    np.testing.assert_allclose(drawn, sorted(wider), atol=1e-9)
    assert ax.get_xscale() == "log"


def test_larger_draws_both_experiments_and_the_small_models_own_text(results):
    found = results["lm_experiments"]["data"]
    mixtures, edits = lm_larger.draw(results).axes
    for whole, source in ((found["larger"], "written"), (found["larger"], "self"), (found, "self")):
        data = whole["committed"]["mixture"]["data"]
        arms = [row for row in last_arms(data, "human") if row["synthetic"] == source and row["share"]]
        assert _drawn(mixtures, [(row["share"], row["change"]) for row in arms])
    alone = lm_edited.draw(results).axes[0]
    assert _drawn(edits, next(line for line in _lines(alone) if len(line) == 3))
    assert mixtures.get_yscale() == "log"


def test_iterate_draws_generations_beside_regression(results):
    data = results["lm_experiments"]["data"]["committed"]["iterate"]["data"]
    axes = lm_iterate.draw(results).axes
    arms = [row for row in last_arms(data, "human") if row["rule"] == "replace"]
    heights = [line[:, 1] for line in _lines(axes[0])]
    wanted = [0.0, *(row["change"] for row in arms)]
    assert any(len(one) == len(wanted) and np.allclose(one, wanted) for one in heights)
    error = results["curves"]["data"]["curves"]["replace"]["error"]
    assert any(np.allclose(line[:, 1], error[: len(line)]) for line in _lines(axes[1]))
    cells = data["tables"]["cells"]
    for ax, name in zip(axes[2:4], ("tail_coverage", "distinct_trigram_share"), strict=True):
        found = [[row[name] for row in cells if row["arm"] == arm] for arm in ("human 0", "edit 1", "edit 2", "edit 3")]
        assert _drawn(ax, list(enumerate(np.mean(found, axis=1))))
    assert _drawn(axes[4], [(generation, 5.0) for generation in (1, 2, 3)])


def test_one_seed_and_nothing_live_draw_means_without_intervals(results):
    data = {"committed": committed(seeds=1), "larger": _larger(committed(seeds=1)), "live": {}, "paper": {}}
    lm_larger.draw({"lm_experiments": {"data": data}})
    for module in (lm_mixture, lm_edited, lm_iterate):
        chart = module.draw({**results, "lm_experiments": {"data": data}})
        labels = [label for ax in chart.axes for label in ax.get_legend_handles_labels()[1]]
        assert "made in this run" not in labels
        assert "not told from zero" not in labels
        arms = last_arms(data["committed"][module.__name__.rsplit("_", 1)[1]]["data"], "human")
        drawn = np.concatenate([line[:, 1] for line in _lines(chart.axes[0])])
        assert all(np.isclose(drawn, row["change"]).any() for row in arms)


def test_the_report_says_what_was_live_and_what_committed(results):
    whole = results["lm_experiments"]["data"]["committed"]
    larger = results["lm_experiments"]["data"]["larger"]["committed"]
    for name, one in [*whole.items(), *larger.items()]:
        one.setdefault("question", f"the question of {name} & more")
    live = [
        {
            "experiment": "mixture",
            "arm": "a",
            "seed": 0,
            "live_nats": 4.5,
            "same_seed_nats": 4.5625,
            "within": True,
            "change_within": False,
            "live": "abc",
            "committed": "def",
        }
    ]
    rows = {
        "beside_the_paper": beside(whole),
        "beside_the_paper_larger": beside(larger),
        "live_against_committed": live,
    }
    html = experiments({"data": {**results["lm_experiments"]["data"], "tables": rows}})
    for row in rows["beside_the_paper"]:
        assert row["made"] in html
    assert "edited, models of 17M parameters" in html
    assert "1 of 1 comparisons of the loss of models" in html
    assert "and 0 of 1 of its change" in html
    assert "0.062 nats away at most" in html
    assert "&amp; more" in html or "question" in html
