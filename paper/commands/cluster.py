"""The commands that make an experiment on a cluster, from its design."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm.experiments.designs import Cell
    from lm.experiments.nodes import Edited, Node
    from lm.experiments.presets import Preset, Setup

PROCESSES = 8  # one a machine of eight accelerators
WHERE = f"--coordinator $HEAD:1234 --processes {PROCESSES} --process $RANK"


def commands(cells: "list[Cell]", preset: "Preset") -> list[str]:
    """Return shell lines that make the models of the first seed: text, training, sampled and edited text, in order.

    What no command does yet is a comment. Other seeds have the same lines with another --seed and other folders.
    """
    from lm.experiments import graph
    from lm.experiments.nodes import Edited, Human, Joined, Run, Sampled, Subsample, Synthetic

    setup, first = preset.setup, preset.seeds[0]
    arms: dict[str, str] = {}
    for cell in cells:
        arms.setdefault(cell.run.key, cell.arm)
    lines = [
        f"# Seed {first} of {', '.join(map(str, preset.seeds))}; every line of toedit train runs on each of "
        f"{PROCESSES} machines, of {preset.devices // PROCESSES} accelerators and one shared folder.",
        f"# tokenizer/: one of {setup.texts.vocabulary:,} ids. text/: files cut from {', '.join(setup.texts.trained)} "
        f"(human) and {setup.texts.synthetic} (synthetic).",
    ]
    for node in graph.ordered([cell.run for cell in cells if cell.seed == first]):
        if isinstance(node, Run):
            lines += _train(node, arms.get(node.key, node.key[:8]), preset)
            continue
        if isinstance(node, Sampled):
            lines.append(_generate(node, setup))
        elif isinstance(node, Edited):
            lines.append(_edit(node))
        elif isinstance(node, Joined | Subsample):
            what = "all of" if isinstance(node, Joined) else "random documents, as many as the human text's, of"
            parts = [f"text/{text_name(part)}" for part in node.parts()]
            lines.append(f"# text/{text_name(node)}/: {what} {', '.join(parts)}")
        elif not isinstance(node, Human | Synthetic):
            continue
        lines.append(_tokenize(node, setup))
    return lines


def text_name(node: "Node") -> str:
    """Return the name of a corpus' folder."""
    from lm.experiments.nodes import Human, Sampled, Synthetic

    name = type(node).__name__.lower()
    if isinstance(node, Human | Synthetic):
        return name if node.share == 1 else f"{name}-{node.share:.0%}".rstrip("%")
    if isinstance(node, Sampled) and node.share != 1:
        return f"{name}-{node.key[:8]}-{node.share:.0%}".rstrip("%")
    return f"{name}-{node.key[:8]}"


def _tokenize(node: "Node", setup: "Setup") -> str:
    from lm.experiments.plan import tokens_of

    name = text_name(node)
    return (
        f"toedit tokenize text/{name} --out tokens/{name} --tokenizer tokenizer  # {tokens_of(node, setup):,.0f} tokens"
    )


def _train(node: "Node", arm: str, preset: "Preset") -> Iterator[str]:
    from lm.experiments.nodes import Run

    assert isinstance(node, Run)
    setup = preset.setup
    config, model = setup.training(node.seed), setup.config()
    sources = " ".join(f"--source tokens/{text_name(text)}:{share}" for text, share in node.mixture)
    yield f"# {arm}"
    yield (
        f"toedit train --preset {setup.model} {sources} --tokens {config.steps * config.batch * model.context} "
        f"--context {model.context} --compute {model.compute} --batch {config.batch} "
        f"--learning-rate {config.learning_rate:g} --warmup {config.warmup} --seed {config.seed} "
        f"--data {preset.devices} {WHERE} --out runs/{node.key[:8]}"
    )


def _generate(node: "Node", setup: "Setup") -> str:
    from lm.experiments.nodes import Sampled
    from lm.experiments.plan import tokens_of

    assert isinstance(node, Sampled)
    context = setup.config().context
    documents = -(-round(tokens_of(node, setup)) // context)
    return (
        f"toedit generate --model runs/{node.run.key[:8]}/final --documents {documents} --tokens {context} "
        f"--temperature 1 --top-p 1 --seed {node.run.seed} --out text/{text_name(node)}/all.jsonl.zst"
        "  # at least; more where documents end early"
    )


def _edit(node: "Edited") -> str:
    from lm.experiments.nodes import Run

    proposal = node.proposal
    prior = f"runs/{proposal.prior.key[:8]}/final" if isinstance(proposal.prior, Run) else proposal.prior
    select = {"at-least": f"at-least --threshold {node.value:g}", "above": f"above --threshold {node.value:g}"}
    old, new = f"text/{text_name(proposal.text)}", f"text/{text_name(node)}"
    if node.choice not in select:
        what = {
            "share": f"the most confident {node.value:.1%} of the tokens redrawn",
            "rate": f"the most confident tokens redrawn until {node.value:.2%} have changed",
            "random": f"tokens at random positions redrawn until {node.value:.2%} have changed",
            "twin": f"as many changes at random positions as {text_name(node.twin) if node.twin else '?'} has",
        }[node.choice]
        return f"# {new}/: {old} with {what}, by {prior} (lm.editing.corpus; no command yet)"
    return (
        f"toedit edit {old} --prior {prior} --select {select[node.choice]} --temperature {proposal.temperature:g} "
        f"--seed {proposal.seed} --out {new}"
    )
