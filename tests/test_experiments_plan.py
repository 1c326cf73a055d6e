"""Plans: what is counted, by hand on a small design; what can be detected; edit rates; the large presets' shapes."""

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import nct, norm

from lm.data.passages import passages
from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.experiments import designs, graph
from lm.experiments import plan as planning
from lm.experiments.nodes import Edited, Human, Joined, Made, Proposal, Run, Sampled, Stage, Subsample
from lm.experiments.plan import Plan, check_room, detectable, plan, tokens_of, work_of
from lm.experiments.presets import PRESETS, Preset, Setup, Texts
from lm.experiments.rates import edit_rates, verdict
from lm.experiments.texts import Prepared
from lm.model.config import Compute
from lm.model.parameters import count_parameters, parameters
from lm.train.metrics import flops_per_token
from lm.train.step import Batch, gradient
from paper.commands.plan import spread
from paper.results import ROOT

DATA = pathlib.Path(__file__).parent / "data"
SETUP = Setup(
    Texts(("speech",), ("novel",), "written", 300, 1000, 100, 320),
    "tiny",
    {"width": 32, "layers": 1, "context": 32},
    steps=6,
    batch=4,
    learning_rate=1e-2,
    evaluations=2,
    prior="tiny",
    candidates=8,
    edit_share=0.125,
)
PRESET = Preset(SETUP, (0, 1), (0, 50, 100), 2, (0.05, 5.0), "a test")


def test_models_tokens_and_operations_are_counted():
    found = plan("mixture", PRESET)
    # Two seeds of: human; 50 and 100 % of the source; 50 and 100 % of its own samples.
    assert found.counts == {"models": 10, "samples": 4, "scored": 0, "edits": 0}
    assert found.tokens == {"trained": 10 * 6 * 4 * 32, "sampled": 2 * 1.5 * 1000, "scored": 10 * 2 * 3 * 100}
    each = flops_per_token(SETUP.config())
    assert found.flops["trained"] == found.tokens["trained"] * each
    assert found.flops["sampled"] == pytest.approx(found.tokens["sampled"] * each / 3)
    assert (found.arms, found.seeds, found.finished, found.nodes_left) == (6, 2, 0, 14)
    assert found.shared == 2  # the human-only models
    assert sum(work.flops for work in found.left) == pytest.approx(sum(found.flops.values()))


def test_corpora_are_counted_by_what_they_are_made_of():
    base = designs.baseline(0)
    sampled = Sampled(base, 0.25)
    edit = Edited(Proposal(sampled, base, 1.0, 0), "share", 0.125)
    whole = Joined((Human(), sampled))
    sizes = [tokens_of(text, SETUP) for text in (Human(0.5), sampled, edit, whole, Subsample(whole, 0))]
    assert sizes == [500, 250, 250, 1250, 1000]
    # A pretrained prior is counted by its own size.
    mine, prior = (work_of(Proposal(Human(), one, 1.0, 0), SETUP)[0] for one in (base, "smollm2"))
    assert prior.flops / mine.flops > 100
    assert (mine.compute, prior.compute) == ("float32", "bfloat16")


def test_what_is_finished_is_not_to_be_made(tmp_path, monkeypatch):
    finished = {node.key for node in graph.made([cell.run for cell in designs.mixture(PRESET)])[:5]}
    monkeypatch.setattr(Made, "whole", lambda node, folder: folder == tmp_path and node.key in finished)
    before, after = plan("mixture", PRESET), plan("mixture", PRESET, folder=tmp_path)
    assert (after.finished, after.nodes_left) == (5, 9)
    assert after.gpu_hours < before.gpu_hours
    assert after.disk < before.disk
    peak: dict[Compute, float] = {"float32": 1e11, "bfloat16": 1e11}
    assert after.seconds(peak, 2) < before.seconds(peak, 2)


def test_detectable_effects_are_detected_as_often_as_is_said():
    effect, _ = detectable(0.1, None, 8)
    assert effect is not None
    noncentral = effect / (0.1 / math.sqrt(8))
    # The usual sum of two quantiles is within .02 of the exact power, from the noncentral t.
    assert nct.sf(2.364624, 7, noncentral) == pytest.approx(0.8, abs=0.02)
    over_works, reason = detectable(0.001, 0.05, 8)
    assert over_works == pytest.approx(0.05 * (2 + norm.ppf(0.8)))
    assert "works" in reason
    assert detectable(None, None, 3)[0] is None
    assert detectable(0.1, 0.1, 1)[0] is None


def test_verdicts_of_rates():
    assert verdict(0.0003, None, 0) == "untestable"
    assert verdict(0.002, None, 0) == "testable"
    assert verdict(0.0012, 0.0004, 9000) == "undecided"
    assert verdict(0.002, 0.0004, 9000) == "testable"
    assert verdict(0.0, None, 2000) == "undecided"  # below 3 / 2000
    assert verdict(0.0, None, 5000) == "untestable"
    assert verdict(None, None, 0) == "not known yet"


@pytest.fixture(scope="module")
def texts():
    found = passages((DATA / "speech.txt").read_text(encoding="utf-8"))
    documents = [Document(f"speech/{n}", "speech", "speech", "train", text) for n, text in enumerate(found)]
    tokenizer = Tokenizer.train([document.text for document in documents], 300)
    human = from_documents(documents[:8], tokenizer)
    return Prepared(tokenizer, human, human, human, {}, {})


def test_rates_of_a_sample_are_those_of_the_edit(texts, tmp_path):
    """With a threshold that the tiny prior reaches: the whole text as the sample gives the rate of the real edit."""
    edit = Edited(Proposal(Human(), "tiny", 1.0, 0), "at-least", 0.3)
    cells = [
        designs.Cell("low", {}, Run(((edit, "1"),), 0), edit),
        *(cell for cell in designs.edited(PRESET) if cell.about["selection"] in ("confident", "random")),
    ]
    whole = {rate.arm: rate for rate in edit_rates(cells, PRESET, None, texts, len(texts.human.tokens))}
    stage = Stage(tmp_path, SETUP, texts)
    for node in (edit.proposal, edit):
        node.make(stage, lambda share, message: None)
    assert whole["low"].rate == stage.notes(edit)["effective_rate"] > 0.001
    assert whole["low"].tokens == stage.notes(edit)["prior_tokens"]
    some = {rate.arm: rate for rate in edit_rates(cells[:1], PRESET, None, texts, 600)}["low"]
    assert 0 < some.tokens < whole["low"].tokens
    assert some.rate is not None
    assert some.error is not None
    assert some.rate == pytest.approx(whole["low"].rate, abs=4 * some.error)
    assert (whole["confident 5 %"].rate, whole["confident 5 %"].verdict) == (0.05, "testable")
    assert whole["random 0.05 %"].verdict == "untestable"
    # A finished edit needs no sample.
    known = edit_rates(cells[:1], PRESET, tmp_path, texts, 0)[0]
    assert (known.rate, known.reason) == (whole["low"].rate, "the finished edit")
    # A generation's own model is not there before it is trained.
    unknown = edit_rates(designs.iterate(PRESET), PRESET, tmp_path, texts, 600)
    assert {rate.verdict for rate in unknown} == {"not known yet"}


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_large_presets_have_the_right_shapes(name):
    """Loss and gradient on abstract arrays, with the rows of one device, and every experiment's plan."""
    preset = PRESETS[name]
    for experiment in designs.EXPERIMENTS:
        for size in preset.sizes(experiment).values():
            setup = size.setup
            model, config = setup.config(), setup.training(0)
            rows = setup.batch // preset.devices
            assert rows * preset.devices == setup.batch
            arrays = {key: jax.ShapeDtypeStruct(one.shape, jnp.float32) for key, one in parameters(model).items()}
            batch = Batch(*[jax.ShapeDtypeStruct((1, rows, model.context), jnp.int32)] * 3)
            loss, slope = jax.eval_shape(
                lambda arrays, batch, model=model, config=config: gradient(model, config.loss_chunk, arrays, batch),
                arrays,
                batch,
            )
            assert loss.shape == ()
            assert {key: one.shape for key, one in slope.items()} == {key: one.shape for key, one in arrays.items()}
            assert count_parameters(model) == sum(math.prod(one.shape) for one in arrays.values())
            assert model.vocabulary == setup.texts.vocabulary
            assert plan(experiment, size).gpu_hours > 0
    for size in preset.sizes("mixture").values():
        assert plan("mixture", size).memory < 80e9


def test_the_papers_sizes():
    sizes = PRESETS["paper"].sizes("mixture")
    gpt2, olmo = (sizes[name].setup for name in ("gpt2-124m", "olmo-237m"))
    assert count_parameters(gpt2.config()) == 124_439_808
    assert gpt2.config().vocabulary == 50_257
    assert round(count_parameters(olmo.config()) / 1e6) == 237
    edited = PRESETS["paper"].sizes("edited")["olmo-1b"].setup
    for setup, wanted in ((gpt2, 42e9), (olmo, 8.4e9), (edited, 6e9)):
        update = setup.batch * setup.config().context
        assert 0 <= setup.steps * update - wanted < update
    # One H200 makes each experiment of the preset gpu at each size in an hour.
    for name in designs.EXPERIMENTS:
        assert all(plan(name, size).gpu_hours < 1 for size in PRESETS["gpu"].sizes(name).values())


def test_the_time_on_a_gpu_is_about_what_was_measured():
    """Seconds of `mixture` and `edited` (its human-only models were there) on an H200, paper/results/gpu/README.md."""
    planned = sum(plan(name, PRESETS["gpu"].sizes(name)["8M-tokens-17m"]).gpu_hours for name in ("mixture", "edited"))
    assert 3600 * planned == pytest.approx(637 + 256, rel=0.1)


def test_the_laptop_is_as_it_was_trained():
    """The committed results are of this setup; other experiments of it are in the same folder."""
    preset = PRESETS["laptop"]
    assert all(size.setup == preset.setup for name in designs.EXPERIMENTS for size in preset.sizes(name).values())
    assert preset.variants == {}


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    small = plan("mixture", PRESET)
    check_room([small], tmp_path / "new", 2)
    large: Plan = dataclasses.replace(small, disk=1e18)
    with pytest.raises(InputError, match="GB free; free space"):
        check_room([large], tmp_path, 2)
    check_room([dataclasses.replace(large, nodes_left=0)], tmp_path, 2)
    monkeypatch.setattr(planning, "available_memory", lambda: 1.5 * small.memory)
    check_room([small], tmp_path, 1)
    with pytest.raises(InputError, match="2 processes"):
        check_room([small], tmp_path, 2)
    with pytest.raises(InputError, match="accelerator's memory"):
        check_room([small], tmp_path, 1, device=0.5 * small.memory)
    assert np.isfinite(planning.available_memory())


def test_the_spread_over_seeds_is_pooled_over_arms():
    rows = json.loads((ROOT / "paper/results/experiments/laptop/edited.json").read_text(encoding="utf-8"))
    rows = [one for one in rows["data"]["tables"]["arms"] if one["domain"] == "human" and one["change"]]
    last = max(one["step"] for one in rows)
    widths = np.asarray([one["change_half_width"] for one in rows if one["step"] == last])
    # Student's 97.5 % quantile with two degrees of freedom.
    expected = np.sqrt(np.mean(widths**2) * 3) / 4.302652729911275
    assert spread("edited", "laptop").sd == pytest.approx(expected)
    assert np.median(widths) < np.sqrt(np.mean(widths**2)) / 2, "the arms differ: a median would promise too much"
