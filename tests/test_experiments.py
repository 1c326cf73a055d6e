"""Experiments on a real text of a few kB: what each rule trains on, shared models, kept results, tables."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from lm.data.corpus import join
from lm.data.passages import passages
from lm.data.sources import Document
from lm.data.tokenising import from_documents
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError
from lm.evaluation.scoring import log_probabilities
from lm.experiments import designs, graph, kept
from lm.experiments.nodes import Edited, Human, Joined, Made, Proposal, Run, Sampled, Stage, Subsample
from lm.experiments.presets import PRESETS, Preset, Setup, Texts, find_preset
from lm.experiments.tables import direction, half_width, tables
from lm.experiments.texts import Prepared, beginning, decontaminated, grams
from lm.experiments.workers import open_folder
from lm.weights import huggingface

DATA = pathlib.Path(__file__).parent / "data"
SETUP = Setup(
    Texts(("speech",), ("novel",), "written", 300, 1, 1, 320),
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
PRESET = Preset(SETUP, (0,), (0, 50, 100), 2, (1.0, 5.0), "a test")


def _documents(name, domain):
    text = (DATA / f"{name}.txt").read_text(encoding="utf-8")
    for number, passage in enumerate(passages(text)):
        yield Document(f"{domain}/{number}", f"{domain}/{number // 8}", domain, "train", passage)


@pytest.fixture(scope="module")
def texts():
    speech, novel = (list(_documents(name, name)) for name in ("speech", "novel"))
    written = list(_documents("novel", "written"))
    tokenizer = Tokenizer.train([document.text for document in [*speech, *novel]], 300)
    test = join([from_documents(some[:9], tokenizer) for some in (speech, novel, written)])
    human, synthetic = from_documents(speech, tokenizer), from_documents(written, tokenizer)
    return Prepared(tokenizer, human, synthetic, test, {}, {})


@pytest.fixture(scope="module")
def stage(texts, tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("experiments"), SETUP, texts)


def _make(stage, cells):
    for node in graph.made([cell.run for cell in cells]):
        if not stage.finished(node):
            node.make(stage, lambda share, message: None)
    return cells


@pytest.fixture(scope="module")
def generations(stage):
    return {cell.arm: cell for cell in _make(stage, designs.iterate(PRESET))}


def test_each_rule_trains_on_what_it_says(stage, texts, generations):
    M = len(texts.human.tokens)
    size = {arm: stage.notes(cell.run)["text"]["tokens"] for arm, cell in generations.items()}
    assert [size[f"accumulate {g}"] for g in (1, 2)] == [2 * M, 3 * M]
    assert size["replace 2"] == size["edit 2"] == size["edit-random 2"] == M
    longest = int(texts.human.lengths.max())
    assert M <= size["accumulate-subsample 2"] <= M + max(longest, 32)
    assert abs(size["fixed-real-share 2"] - M) <= longest
    # The parts of the fixed real share have exactly half of the training rows each.
    first, second = generations["fixed-real-share 1"].run.mixture
    assert (first[1], second[1]) == ("1/2", "1/2")
    assert isinstance(second[0], Sampled)
    # Samples are shared: replace and accumulate train on the same first ones.
    (replace, _), (joined, _) = generations["replace 1"].run.mixture[0], generations["accumulate 1"].run.mixture[0]
    assert isinstance(joined, Joined)
    assert joined.texts == (Human(), replace)


def test_an_edit_selects_its_share_and_the_control_changes_as_much(stage, texts, generations):
    editable = len(texts.human.tokens) - len(texts.human)
    for number in (1, 2):
        cell, control = (generations[f"{rule} {number}"] for rule in ("edit", "edit-random"))
        notes, twin = stage.notes(cell.edit), stage.notes(control.edit)
        assert notes["selected"] == math.ceil(0.125 * editable)
        assert notes["changed"] == twin["changed"] > 0
    before, after = (stage.notes(generations[f"edit {n}"].edit.proposal) for n in (1, 2))
    assert before != after
    old, new = (generations[f"edit {n}"].edit.corpus(stage) for n in (1, 2))
    assert generations["edit 2"].edit.proposal.text == generations["edit 1"].edit
    assert (
        0
        < (np.asarray(old.tokens) != np.asarray(new.tokens)).sum()
        == stage.notes(generations["edit 2"].edit)["changed"]
    )


def test_rates_are_met_by_confident_and_by_random_positions(stage, texts):
    """With a prior of another tokenizer, whose edits come back as text."""
    proposal = Proposal(Human(), "tiny", 1.0, 0)
    confident, random = (Edited(proposal, choice, 0.05) for choice in ("rate", "random"))
    for node in (proposal, confident, random):
        node.make(stage, lambda share, message: None)
    old, proposed = proposal.tokens(stage), proposal.proposed(stage)
    for node in (confident, random):
        assert stage.notes(node)["changed"] == round(0.05 * len(old.tokens))
    left = proposed.editable & ~confident._selected(stage, old, proposed)
    assert stage.notes(confident)["lowest_selected"] >= proposed.probability[left].max()
    assert stage.notes(random)["lowest_selected"] < stage.notes(confident)["lowest_selected"]
    original, changed = texts.human, confident.corpus(stage)
    assert changed.ids == original.ids
    texts_of = [
        [texts.tokenizer.decode(one.document(n)) for n in range(len(one))] for one in (original, changed)
    ]  # fmt: skip
    differing = [a != b for a, b in zip(*texts_of, strict=True)]
    assert 0 < sum(differing)
    tokens = np.load(stage.place(confident) / "arrays.npz")["tokens"]
    by_document = np.add.reduceat(tokens != np.asarray(old.tokens), old.starts[:-1])
    assert differing == (by_document > 0).tolist()


def test_finished_models_are_not_made_again_and_a_lost_one_is_made_to_the_same_bytes(stage, generations):
    run = generations["replace 2"].run
    folder = stage.place(run)
    before = {path.name: path.read_bytes() for path in [*folder.glob("measured-*"), *(folder / "model").iterdir()]}
    (folder / "done.json").rename(folder / "done.before")
    for path in folder.glob("measured-6*"):
        path.unlink()
    run.make(stage, lambda share, message: None)
    assert (folder / "done.json").read_bytes() == (folder / "done.before").read_bytes()
    assert before == {
        path.name: path.read_bytes() for path in [*folder.glob("measured-*"), *(folder / "model").iterdir()]
    }


FILES = [
    ("run", "done.json"), ("run", "measured-3.npz"), ("run", "model/model.safetensors"), ("run", "model/config.json"),
    ("run", "model/tokenizer.json"), ("sampled", "done.json"), ("sampled", "arrays.npz"), ("proposal", "arrays.npz"),
    ("edited", "arrays.npz"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), FILES, ids=lambda value: value)
def test_what_is_lost_or_damaged_counts_as_not_made(texts, stage, generations, kind, name):
    edit = generations["edit 1"].edit
    sampled = generations["replace 1"].run.mixture[0][0]
    node = {"run": designs.baseline(0), "sampled": sampled, "proposal": edit.proposal, "edited": edit}[kind]
    path = stage.place(node) / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    damages = [b"", whole[:middle]]
    if path.suffix == ".npz":
        damages.append(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        for damage in damages:
            path.write_bytes(damage)
            assert not Stage(stage.folder, SETUP, texts).finished(node)
        path.unlink()
        assert not Stage(stage.folder, SETUP, texts).finished(node)
    finally:
        path.write_bytes(whole)
    assert Stage(stage.folder, SETUP, texts).finished(node)


def test_a_damaged_corpus_is_made_again_to_the_same_bytes(texts, stage, generations):
    node = generations["replace 1"].run.mixture[0][0]
    path = stage.place(node) / "arrays.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    again = Stage(stage.folder, SETUP, texts)

    def stop(share, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again.make(node, stop)
    assert not (stage.place(node) / "done.json").exists()  # while it is made, nobody takes it for complete
    again.make(node, lambda share, message: None)
    assert again.finished(node)
    assert path.read_bytes() == whole


def test_a_killed_run_that_lost_what_it_measured_is_trained_again(texts, stage, generations, tmp_path, monkeypatch):
    run, killed = designs.baseline(0), Stage(tmp_path, SETUP, texts)

    def kill(folder, notes):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kept, "save_notes", kill)
        with pytest.raises(KeyboardInterrupt):
            run.make(killed, lambda share, message: None)
    assert (killed.place(run) / "checkpoints" / "6").is_dir()
    (killed.place(run) / "measured-3.npz").write_bytes(b"")
    run.make(killed, lambda share, message: None)
    # The same of a finished one, of whose checkpoints a part was not yet removed.
    (killed.place(run) / "checkpoints" / "6").mkdir(parents=True)
    (killed.place(run) / "done.json").write_bytes(b"")
    assert not killed.finished(run)
    killed.make(run, lambda share, message: None)
    assert killed.finished(run)
    for name in ("done.json", "measured-3.npz", "measured-6.npz", "metrics.jsonl"):
        assert (killed.place(run) / name).read_bytes() == (stage.place(run) / name).read_bytes()


def test_tables_are_paired_with_the_human_model_by_document(stage, texts, generations):
    cells = list(generations.values())
    found = tables(stage, cells)["tables"]
    test = texts.test
    document = np.repeat(np.arange(len(test)), test.lengths)
    losses = {}
    for arm in ("human 0", "replace 2"):
        model, _ = huggingface.load(stage.place(generations[arm].run) / "model")
        losses[arm] = np.bincount(document, -log_probabilities(model, test, texts.tokenizer.end).astype(np.float64))
    rows = {(row["arm"], row["domain"]): row for row in found["perplexity"] if row["step"] == 6}
    mine, domains = [], np.asarray(test.domains)
    for domain in ("speech", "novel", "written"):
        chosen = domains == domain
        tokens = test.lengths[chosen].sum()
        row = rows["replace 2", domain]
        assert row["nats"] == pytest.approx(losses["replace 2"][chosen].sum() / tokens, rel=1e-6)
        change = (losses["replace 2"] - losses["human 0"])[chosen]
        mine.append(change.sum() / tokens)
        assert row["change"] == pytest.approx(mine[-1], abs=1e-6)
        works = np.asarray(test.works)[chosen]
        clusters = [(change[works == w].sum() - mine[-1] * test.lengths[chosen][works == w].sum()) for w in set(works)]
        error = math.sqrt(len(clusters) / (len(clusters) - 1) * np.square(clusters).sum()) / tokens
        assert row["change_se"] == pytest.approx(error, rel=1e-4)
    assert rows["replace 2", "human"]["change"] == pytest.approx(np.mean(mine[:2]), abs=1e-6)
    assert rows["human 0", "human"]["change"] == 0
    arms = {(row["arm"], row["domain"]): row for row in found["arms"] if row["step"] == 6}
    assert arms["replace 2", "human"]["verdict"] == "not distinguishable"  # one seed has no interval
    assert {row["arm"] for row in found["edits"]} == {f"{rule} {n}" for rule in ("edit", "edit-random") for n in (1, 2)}


def test_intervals_and_directions():
    assert half_width([1.0]) is None
    # n = 3, s = 1: t = 4.302653, over sqrt(3).
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert direction(0.5, 0.4, 0.1) == "rises"
    assert direction(-0.5, 0.4, 0.1) == "falls"
    assert direction(0.5, 0.6, 0.1) == direction(0.5, 0.4, 0.3) == direction(0.5, None, 0.1) == "not distinguishable"


def test_designs_share_the_human_model_and_hold_tokens_equal():
    preset = find_preset("laptop")
    cells = {name: one.cells(preset) for name, one in designs.EXPERIMENTS.items()}
    bases = {designs.baseline(seed) for seed in preset.seeds}
    for some in cells.values():
        assert bases <= {cell.run for cell in some}
    for cell in cells["mixture"]:
        assert sum(float(share.split("/")[0]) for _, share in cell.run.mixture) in (1, 100)
    runs = [
        node for node in graph.made([cell.run for some in cells.values() for cell in some]) if isinstance(node, Run)
    ]
    # 3 human; mixture 2 x 4; edited 2 + 2 x 5; iterate 6 rules x 5, of which accumulate-subsample is always its own.
    assert len(runs) == 3 * (1 + 8 + 12 + 30)


def test_a_graph_survives_json():
    preset = PRESETS["laptop"]
    wanted: list[Made] = [cell.run for one in designs.EXPERIMENTS.values() for cell in one.cells(preset)]
    data = json.loads(json.dumps(graph.to_json(wanted)))
    assert graph.from_json(data) == {node.key: node for node in graph.ordered(wanted)}
    other = dataclasses.replace(designs.baseline(0), seed=1)
    assert other.key != designs.baseline(0).key
    assert Setup.from_json(json.loads(json.dumps(preset.setup.to_json()))) == preset.setup


def test_text_that_is_trained_on_is_no_test():
    words = [f"word{number}" for number in range(40)]
    training = " ".join(words)
    shared = Document("a/1", "a/1", "a", "test", "Other, " + " ".join(words[5:18]).upper() + "!")
    short = Document("a/2", "a/2", "a", "test", "other " + " ".join(words[5:17]))
    kept, removed = decontaminated([shared, short], [training])
    assert kept == [short]
    assert removed == {"a": 1}
    assert len(grams(training)) == 28
    assert len(set(grams(training).tolist()) & set(grams(shared.text).tolist())) == 1
    assert decontaminated([shared], [])[0] == [shared]


def test_a_subsample_is_random_and_a_beginning_is_the_beginning(stage, texts):
    whole = Joined((Human(), Human()))
    some, other = (Subsample(whole, seed).corpus(stage) for seed in (0, 1))
    assert some.ids != other.ids
    assert Subsample(whole, 0).corpus(stage).ids == some.ids
    first = beginning(texts.human, 0.25)
    assert first.ids == texts.human.ids[: len(first)]
    assert (
        0.25 * len(texts.human.tokens) <= len(first.tokens) < 0.25 * len(texts.human.tokens) + texts.human.lengths.max()
    )


def test_a_folder_of_another_setup_is_refused(tmp_path):
    open_folder(tmp_path / "a", SETUP)
    open_folder(tmp_path / "a", SETUP)
    with pytest.raises(InputError, match="another configuration"):
        open_folder(tmp_path / "a", dataclasses.replace(SETUP, steps=7))
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        open_folder(tmp_path / "a", SETUP)
    with pytest.raises(InputError, match="no preset"):
        find_preset("huge")
    with pytest.raises(InputError, match="no experiment"):
        designs.find_experiment("nothing")
