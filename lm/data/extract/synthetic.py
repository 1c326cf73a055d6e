"""Text that models wrote."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from lm.data.extract.text import Extract, from_utf8, lines_of
from lm.data.fetch import read_members
from lm.errors import InputError


def answers(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the answers of GPT-3.5, GPT-4, GPT-4 Turbo and PaLM 2 in package champ-dataset; a problem is a work.

    Only what the model said in a conversation: no problem, hint or solution that people wrote.
    """
    for name, content in read_members(archives[0], ["champ_dataset/dataset_files/v0"], ".json"):
        for problem, about in json.loads(from_utf8(content, name))["problems"].items():
            for setting, conversation in about["conversations"].items():
                said = [
                    message["text"]
                    for message in conversation["messages"]
                    if message["role"].startswith("Model.") and message["text"]
                ]
                yield Extract(problem, setting, "\n\n".join(lines_of(text).strip() for text in said))


SMOLLM2_CORPUS = Path(__file__).parent.parent / "smollm2_corpus.jsonl.zst"


def smollm2(_: Sequence[Path]) -> Iterator[Extract]:
    """Yield the corpus written by SmolLM2-135M-Instruct that is part of this project; each document is a work.

    Raises:
        InputError: the file is missing or damaged.
    """
    for record in _smollm2_records():
        yield Extract(record["id"], "", record["text"])


def smollm2_prompts() -> dict[str, str]:
    """Return what the model was asked for each document of that corpus, by id; raises InputError as `smollm2` does."""
    return {record["id"]: record["prompt"] for record in _smollm2_records()}


def _smollm2_records() -> Iterator[dict[str, str]]:
    if not SMOLLM2_CORPUS.is_file():
        raise InputError(f"the corpus {SMOLLM2_CORPUS.name} of this project is not there; install the project again")
    try:
        with zstandard.open(SMOLLM2_CORPUS, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                record = json.loads(line)
                yield {name: record[name] for name in ("id", "text", "prompt")}
    except (OSError, zstandard.ZstdError, ValueError, KeyError) as error:
        raise InputError(
            f"the corpus {SMOLLM2_CORPUS.name} of this project cannot be read ({error}); install the project again"
        ) from error
