"""Human text for the language models: two domains, split by work, a tokenizer, token files in the cache."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from lm.data.prepare import prepare
from lm.data.sources import find

CONFIG: dict[str, Any] = {
    "seed": 0,  # nothing here is random: splits and orders are by hash
    "corpus": {
        "sources": ["sotu", "novels"],
        "vocabulary": 1024,
        "train_tokens": 100_000,
        "test_tokens": 40_000,
    },
}
SECONDS = 25.0
NEEDS: tuple[str, ...] = ()


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: pathlib.Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Prepare the text and describe it: sizes by domain and split, checksums, licences.

    Raises:
        InputError: no network, a download that is not the pinned content, an unwritable cache.
    """
    del needs, folder
    corpus = config["corpus"]
    progress(0.0, "fetching and tokenising " + ", ".join(corpus["sources"]))
    prepared = prepare(corpus)
    rows = [
        {"domain": domain, "split": split, **numbers}
        for split, notes in prepared.about.items()
        for domain, numbers in notes["domains"].items()
    ]
    sources = [find(name) for name in corpus["sources"]]
    packages = [
        {
            "domain": source.name,
            "package": f"{package.name}=={package.version}",
            "sha256": package.sha256,
            "licence": source.licence,
            "description": source.description,
        }
        for source in sources
        for package in source.packages
    ]
    checksums = {split: notes["sha256"] for split, notes in prepared.about.items()}
    checksums["tokenizer"] = prepared.tokenizer.sha256
    progress(1.0, "done")
    return {
        "checksums": checksums,
        "digest": hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest(),
        "bytes_per_token": {
            split: float(corpus.sizes.sum() / len(corpus.tokens))
            for split, corpus in (
                ("train", prepared.train),
                ("validation", prepared.validation),
                ("test", prepared.test),
            )
        },
        "tables": {"corpora": rows, "packages": packages},
    }
