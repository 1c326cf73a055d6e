"""A real pretrained model on human text and on its own: perplexity, and how its token probabilities are distributed."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm.data.sources import Document
    from lm.data.splits import Split

CONFIG: dict[str, Any] = {
    "seed": None,  # nothing here is random: documents are taken by hash
    "model": "smollm2",
    "sources": ["sotu", "novels", "python", "smollm2-corpus"],
    "split": "test",
    "characters": 1800,  # of a document: its beginning, so that many documents share the tokens
    "tokens": 4000,  # a domain
    "context": 512,
    "compute": "bfloat16",
}
FILES = ("lm/data/smollm2_corpus.jsonl.zst",)
SECONDS = 40.0
NEEDS: tuple[str, ...] = ()
BINS = 10


def _beginnings(name: str, split: "Split", characters: int) -> "Iterator[Document]":
    """Yield the documents of a split, in the order of the hashes of their names, cut after a word."""
    from lm.data import sources

    for one in sorted(sources.load(name, split), key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        whole = len(one.text) <= characters
        yield one if whole else dataclasses.replace(one, text=one.text[:characters].rsplit(maxsplit=1)[0])


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Score the beginnings of some documents; return perplexities and the shares of tokens by probability.

    Raises:
        InputError: no network, a download that is not the pinned content, an unwritable cache.
    """
    del needs, folder
    import numpy as np

    from lm.data.corpus import join
    from lm.data.tokenising import from_documents
    from lm.evaluation.perplexity import from_scores
    from lm.evaluation.scoring import log_probabilities, prepare
    from lm.weights.load import load

    progress(0.0, f"fetching and reading {config['model']}")
    pretrained = load(config["model"], compute=config["compute"], inference=True)
    scorer, tokenizer = prepare(pretrained.model, config["compute"]), pretrained.tokenizer
    parts = []
    names = config["sources"]
    for number, name in enumerate(names):
        progress(0.15 + 0.2 * number / len(names), f"reading {name}")
        chosen, tokens = [], 0
        for one in _beginnings(name, config["split"], config["characters"]):
            chosen.append(one)
            tokens += len(tokenizer.encode([one.text])[0])
            if tokens >= config["tokens"]:
                break
        parts.append(from_documents(chosen, tokenizer))
    corpus = join(parts)
    progress(0.35, f"scoring {len(corpus.tokens)} tokens")
    scores = log_probabilities(scorer, corpus, tokenizer.end, context=config["context"])
    evaluation = from_scores(corpus, scores)
    probability = np.exp(scores.astype(np.float64))
    of_domain = np.repeat(np.asarray(corpus.domains), corpus.lengths)
    histogram, perplexity = [], []
    for name in names:
        score, chosen = evaluation.score(name), probability[of_domain == name]
        counts = np.histogram(chosen, BINS, (0.0, 1.0))[0]
        perplexity.append(
            {
                "domain": name,
                **dataclasses.asdict(score),
                "share_below_01": float(np.mean(chosen < 0.1)),
                "share_above_09": float(np.mean(chosen >= 0.9)),
                "share_above_099": float(np.mean(chosen >= 0.99)),
            }
        )
        histogram += [
            {"domain": name, "from": place / BINS, "to": (place + 1) / BINS, "share": float(count / len(chosen))}
            for place, count in enumerate(counts)
        ]
    progress(1.0, "done")
    return {
        "sha256": pretrained.sha256,
        "micro_perplexity": evaluation.score().perplexity,
        "macro_perplexity": evaluation.macro_perplexity(),
        "tables": {"smollm2-perplexity": perplexity, "smollm2-histogram": histogram},
    }
