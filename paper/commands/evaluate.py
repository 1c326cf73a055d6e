"""`toedit evaluate`: perplexity of a model by domain."""

import hashlib
import heapq
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from paper.commands.aside import Aside
from paper.commands.sources import is_token_folder, named, records, short_names, token_folder, told_apart
from paper.errors import InputError

if TYPE_CHECKING:
    from lm.data.corpus import Corpus
    from lm.data.readers import Record
    from lm.data.tokenizer import Tokenizer
    from lm.evaluation.perplexity import Evaluation, Score

TOKENS = 20_000  # of each source, unless the command says how many tokens or documents
WIDEST = 16  # characters a token, more than any text has on average: what is kept of a stream for a budget of tokens


@dataclass(frozen=True)
class Evaluate:
    """Perplexity and bits per byte by domain in Paloma's manner: each document alone, each token once.

    Example: `toedit evaluate --model smollm2 --source sotu --source novels`.

    A document longer than the context is scored in windows. Standard errors are over works (a speech, a novel, a
    file) and over documents. Documents are taken in the order of their names' hashes, so that a part is a random one.
    """

    model: str
    """smollm2, tiny, the folder of a model, a .gguf file, or hf:OWNER/NAME where the hub is reachable."""
    source: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A named source (sotu, novels, ...), text files as for `toedit tokenize`, or a folder that it made; repeatable."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Part of a named source; files are read whole."""
    documents: int | None = None
    """Score only so many documents of each source."""
    tokens: int | Literal["all"] | None = None
    """Score only so many tokens of each source, to the end of a document; 20,000 unless --documents is given."""
    context: int | None = None
    """Longest window in tokens; the model's by default."""
    stride: int | None = None
    """Tokens scored in a window after a document's first; the context by default."""
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the factors of matrix products; sums and logits are float32 always."""
    json: Path | None = None
    """Write numbers, configuration, versions and machine as JSON."""
    csv: Path | None = None
    """Write the table as CSV."""

    def run(self) -> int:
        """Score, print and write; return the exit code.

        Raises:
            InputError: unknown model or source, nothing to score, a window that does not fit, unwritable outputs.
        """
        from lm.startup import before_jax

        before_jax()
        from lm.evaluation.perplexity import join
        from lm.evaluation.scoring import prepare
        from lm.weights.load import load
        from paper.results import check_writable, record, write_csv, write_text

        for path in (self.json, self.csv):
            if path is not None:
                check_writable(path)
        if self.documents is not None and self.documents < 1:
            raise InputError(f"--documents is {self.documents}; give at least 1, or leave it out")
        if isinstance(self.tokens, int) and self.tokens < 1:
            raise InputError(f"--tokens is {self.tokens}; give at least 1, or all")
        if not self.source:
            raise InputError("there is nothing to score; name a source with --source")
        with ExitStack() as stack:
            started = time.perf_counter()
            pretrained = load(self.model, compute=self.compute, inference=True)
            scorer, tokenizer = prepare(pretrained.model, self.compute), pretrained.tokenizer
            about = {"model": pretrained.name, "sha256": pretrained.sha256}
            del pretrained  # the matrices before they were made ready
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="toedit-evaluate-")))
            # A named source may be spelled in two ways.
            names = short_names(list({named(name) or name: None for name in self.source}))
            found = [
                self._corpus(name, domain, tokenizer, folder / str(number))
                for number, (name, domain) in enumerate(names.items())
            ]
            corpora = told_apart({domain: one for domain, (one, _) in zip(names.values(), found, strict=True)})
            scoring = time.perf_counter()
            evaluation = join(list(self._scored(scorer, corpora, tokenizer.end)))
            seconds = time.perf_counter() - scoring
        rows = table(evaluation)
        show(rows)
        speed = sum(evaluation.tokens) / seconds
        note = f"{self.model}, {self.compute} products, {speed:.0f} tokens/s with compilation."
        if not all(whole for _, whole in found):
            note += " A part of each source; more with --tokens or --documents, all with --tokens all."
        print(note)
        if self.csv is not None:
            write_csv(self.csv, rows)
        if self.json is not None:
            data = {**about, "tokens_per_second": speed, "tables": {"perplexity": rows}}
            result = record("evaluate", asdict(self), data, time.perf_counter() - started)
            write_text(self.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
        return 0

    def _corpus(self, name: str, domain: str, tokenizer: "Tokenizer", folder: Path) -> "tuple[Corpus, bool]":
        """Return the documents of a source that are to be scored, tokenised, and whether these are all."""
        from lm.data.tokenising import tokenize

        read = [0]  # documents of a stream, of which a part is kept

        def counting(some: "Iterable[Record]") -> "Iterator[Record]":
            for one in some:
                read[0] += 1
                yield one

        if is_token_folder(name):
            found, _ = token_folder(name, tokenizer)
            read = [len(found)]
        else:
            aside = Aside()
            some = records(name, domain, aside, None if self.split == "all" else self.split)
            found = tokenize(self._part(counting(some)), tokenizer, folder, {"source": name})
            aside.tell(f", first {aside.where()}")
        chosen = first(found, self.documents, self._budget())
        return chosen, len(chosen) == read[0]

    def _budget(self) -> int | None:
        """Return how many tokens of each source are scored; None: no limit."""
        if self.tokens is None:
            return TOKENS if self.documents is None else None
        return None if self.tokens == "all" else self.tokens

    def _part(self, records: "Iterable[Record]") -> "Iterable[Record]":
        """Return enough records for the documents and tokens asked for: those whose names' hashes are smallest."""
        budget = self._budget()
        if self.documents is None and budget is None:
            return records
        most = None if budget is None else WIDEST * budget
        kept: list[tuple[int, int, Record]] = []  # the largest hash on top
        size = 0
        for number, one in enumerate(records):
            heapq.heappush(kept, (-order(one.id), number, one))
            size += len(one.text)
            while (self.documents is not None and len(kept) > self.documents) or (
                most is not None and size - len(kept[0][2].text) >= most
            ):
                size -= len(heapq.heappop(kept)[2].text)
        return [one for _, _, one in sorted(kept, reverse=True)]

    def _scored(self, scorer: Any, corpora: "list[Corpus]", end: int) -> "Iterator[Evaluation]":
        """Yield the evaluation of each corpus; a progress bar follows the tokens."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from lm.evaluation.perplexity import evaluate

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task, before = progress.add_task("scoring", total=sum(len(corpus.tokens) for corpus in corpora)), 0
            for corpus in corpora:
                yield evaluate(
                    scorer,
                    corpus,
                    end,
                    self.stride,
                    self.context,
                    lambda done, before=before: progress.update(task, completed=before + done),
                )
                before += len(corpus.tokens)


def order(name: str) -> int:
    """Return the place of a document in the order in which parts are taken."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def first(corpus: "Corpus", documents: int | None, tokens: int | None) -> "Corpus":
    """Return documents of a corpus in the order of their names' hashes, as many as asked for."""
    if documents is None and tokens is None:
        return corpus
    chosen: list[int] = []
    left = float("inf") if tokens is None else tokens
    for number in sorted(range(len(corpus)), key=[order(name) for name in corpus.ids].__getitem__):
        if left <= 0 or len(chosen) == documents:
            break
        chosen.append(number)
        left -= int(corpus.starts[number + 1] - corpus.starts[number])
    return corpus.select(chosen)


def table(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """Return a record for each domain, for all of them pooled (micro average) and for their mean (macro average)."""
    domains = sorted(set(evaluation.domains))
    rows = [_row(domain, evaluation.score(domain)) for domain in domains]
    rows.append(_row("all tokens (micro)", evaluation.score()))
    means: dict[str, Any] = dict.fromkeys(rows[0])
    means |= {"perplexity": evaluation.macro_perplexity(), "bits_per_byte": evaluation.macro_bits_per_byte()}
    return [*rows, {**means, "domain": "all domains (macro)"}]


def _row(name: str, score: "Score") -> dict[str, Any]:
    return {"domain": name, **asdict(score)}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of `table`, each number with its standard error over works."""
    from rich.console import Console
    from rich.table import Table

    def value(row: dict[str, Any], name: str, digits: int) -> str:
        error, by_document = row[f"{name}_error"], row[f"{name}_document_error"]
        if row[name] is None:  # a perplexity beyond every float; the loss is in nats_per_token
            return "-"
        if error is None and by_document is None:
            return f"{row[name]:.{digits}f}"
        parts = ("-" if one is None else f"{one:.{digits}f}" for one in (error, by_document))
        return f"{row[name]:.{digits}f} ± {' / '.join(parts)}"

    drawn = Table(caption="± standard error over works / over documents")
    for column in ("domain", "perplexity", "bits per byte", "tokens", "documents", "works"):
        drawn.add_column(column, justify="left" if column == "domain" else "right")
    for row in rows:
        counts = ("" if row[name] is None else f"{row[name]:,}" for name in ("tokens", "documents", "works"))
        drawn.add_row(row["domain"], value(row, "perplexity", 2), value(row, "bits_per_byte", 3), *counts)
    Console().print(drawn)
