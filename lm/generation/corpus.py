"""A synthetic corpus, written as JSON lines: the same bytes whether or not the writing was interrupted.

Documents are written in the order of their numbers to a file beside the corpus, which takes the corpus's name when it
is complete. They are made a batch at a time, and none of a batch is written before all of it are finished. What a
batch holds depends on the numbers only, so that an interrupted batch is made again exactly as it was.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import zstandard

from lm.data.sources import Document
from lm.errors import InputError
from lm.generation import prompts
from lm.generation.decode import Request, decode, prepare, sizes
from lm.generation.sampling import SamplingConfig
from lm.weights.load import Pretrained

LEVEL = 19  # of zstd
TOKENS = 384  # of a document at most, where the model's context has room for them


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """What a corpus is made with.

    Attributes:
        documents: number.
        kinds: of text, taking turns; for models without a chat form no kinds apply.
        tokens: a document has at most.
        sampling: from logits to tokens.
        seed: of every draw.
    """

    documents: int
    kinds: tuple[prompts.Kind, ...] = prompts.KINDS
    tokens: int = TOKENS
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    seed: int = 0

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if self.documents < 1 or self.tokens < 1 or not self.kinds or not 0 <= self.seed < 2**32:
            raise InputError("documents, tokens and kinds must be at least 1 and the seed in 0..2^32-1; change them")


def tokens_that_fit(pretrained: Pretrained) -> int:
    """Return how many tokens a document has at most if nobody says: `TOKENS`, or fewer where the context is short."""
    return max(1, min(TOKENS, pretrained.model.config.context + 1 - _places(pretrained)))


def write(
    path: pathlib.Path,
    pretrained: Pretrained,
    config: CorpusConfig,
    documents: Mapping[str, Sequence[Document]],
    progress: Callable[[int, int], None] = lambda documents, tokens: None,
) -> None:
    """Write a corpus, going on where an earlier call with the same arguments was interrupted.

    Each line holds id, text, prompt, kind, seed_source, seed_document, seed, model, model_sha256, temperature, top_k,
    top_p, tokens (their number) and finished: "end" of text or "length".

    Args:
        path: ends in .jsonl or .jsonl.zst.
        pretrained: model that writes.
        config: of the corpus.
        documents: by source, for the prompts of instruct models.
        progress: told of documents and tokens that are new, or were there and are those asked for.

    Raises:
        InputError: another kind of file name, no sources for an instruct model, a file with other documents, a disk
            that cannot be written, a request or a number of tokens that the model has no room for.
    """
    if not path.name.endswith((".jsonl", ".jsonl.zst")):
        raise InputError(f"{path} has no known format; end it in .jsonl or .jsonl.zst")
    if pretrained.instruct:
        asked = prompts.seeded(config.kinds, documents, pretrained.tokenizer, config.seed)
    else:
        asked = prompts.unconditional(pretrained.tokenizer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(_Plan(pretrained, config, asked, path, path.with_name(path.name + ".partial"), progress))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another --out, "
            "and the same command goes on where it was"
        ) from error


class _Plan(NamedTuple):
    """What is asked of whom.

    Attributes:
        pretrained: model that writes.
        config: of the corpus.
        asked: prompts.
        path: of the corpus.
        partial: file beside it, with the documents that are finished.
        progress: told of documents and tokens that are new, or were there and are those asked for.
    """

    pretrained: Pretrained
    config: CorpusConfig
    asked: prompts.Asked
    path: pathlib.Path
    partial: pathlib.Path
    progress: Callable[[int, int], None]


def _places(pretrained: Pretrained) -> int:
    """Return the places of the cache that are kept for a prompt."""
    return prompts.PLACES if pretrained.instruct else 1


def _write(plan: _Plan) -> None:
    path, partial, config = plan.path, plan.partial, plan.config
    if path.exists():
        content = _content(path)
        done = _check(path, content, plan)
        if done < config.documents:
            raise InputError(f"{path} holds only {done} of {config.documents} documents; choose another --out")
        # Of a process that was killed after it had named the corpus.
        if partial.exists() and content.startswith(partial.read_bytes()):
            partial.unlink(missing_ok=True)
        return
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it when the process ends
        except BlockingIOError as error:
            raise InputError(f"another process is writing {partial}; wait for it or choose another --out") from error
        try:
            content = partial.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # without a line that was not finished
            done = _check(partial, whole, plan)
            file.truncate(len(whole))
            _append(file, done, plan)
        finally:
            if not os.fstat(file.fileno()).st_size:  # nothing to go on from
                partial.unlink(missing_ok=True)
    _finish(path, partial)


def _append(file: BinaryIO, done: int, plan: _Plan) -> None:
    """Write the documents from number `done` on."""
    pretrained, config, progress = plan.pretrained, plan.config, plan.progress
    tokenizer, weights = pretrained.tokenizer, prepare(pretrained.model)
    request = Request(config.sampling, config.tokens, tokenizer.stops, tokenizer.size)
    rows = sizes().rows
    for first in range(done - done % rows, config.documents, rows):
        batch = [plan.asked(number) for number in range(first, min(first + rows, config.documents))]
        decoded = decode(
            weights,
            [prompt.ids for prompt in batch],
            [prompt.id for prompt in batch],
            request,
            config.seed,
            prompt_places=_places(pretrained),
            progress=lambda tokens: progress(0, tokens),
        )
        new = range(max(first, done), first + len(batch))
        for number in new:
            one = decoded[number - first]
            # A token may end inside a character that the limit cuts off.
            text = tokenizer.decode(one.tokens.tolist()).decode(errors="ignore")
            end = {"tokens": len(one.tokens), "finished": one.finished}
            file.write(_line({**_about(batch[number - first], pretrained, config), "text": text, **end}))
        file.flush()
        os.fsync(file.fileno())
        progress(len(new), 0)


def _finish(path: pathlib.Path, partial: pathlib.Path) -> None:
    if path.suffix == ".zst":
        beside = path.with_name(path.name + ".new")
        with partial.open("rb") as plain, beside.open("wb") as file:
            zstandard.ZstdCompressor(level=LEVEL).copy_stream(plain, file, size=partial.stat().st_size)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        partial.unlink(missing_ok=True)
    else:
        partial.replace(path)


def _about(prompt: prompts.Prompt, pretrained: Pretrained, config: CorpusConfig) -> dict[str, Any]:
    """Return the record of a document that is not yet written; "text" keeps its place in the order."""
    return {
        "id": prompt.id,
        "text": "",
        "prompt": prompt.text,
        "kind": prompt.kind,
        "seed_source": prompt.source,
        "seed_document": prompt.document,
        "seed": config.seed,
        "model": pretrained.name,
        "model_sha256": pretrained.sha256,
        **dataclasses.asdict(config.sampling),
        "limit": config.tokens,
    }


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _content(path: pathlib.Path) -> bytes:
    """Return the lines of a finished file; raises InputError for one that cannot be decompressed."""
    if path.suffix != ".zst":
        return path.read_bytes()
    try:
        with zstandard.open(path, "rb") as file:
            return file.read()
    except zstandard.ZstdError as error:
        raise InputError(f"{path} cannot be decompressed ({error}); remove the file or choose another --out") from error


def _check(path: pathlib.Path, content: bytes, plan: _Plan) -> int:
    """Return the number of documents that a file's content holds; progress is told of each.

    Raises:
        InputError: it holds something else than these documents, each with its line end.
    """
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines):
        begin = _about(plan.asked(number), plan.pretrained, plan.config)
        try:
            if number >= plan.config.documents or not line.endswith(b"\n"):
                raise ValueError("one document too many, or an unfinished line")
            record = json.loads(line)
            if {key: record[key] for key in begin} | {"text": ""} != begin:
                raise ValueError("another document")
            tokens = int(record["tokens"])
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"line {number + 1} of {path} is no document of this corpus; remove the file or choose another --out"
            ) from error
        plan.progress(1, tokens)
    return len(lines)
