"""Steps for datatrove, whose executors run the edit on one machine, by Slurm or by Ray (extra `datatrove`).

`EditFiles` edits files as `toedit edit` does, byte for byte, each task a shard of them, and goes on inside a file when
a task is started again. `EditDocuments` edits the documents between a reader and a writer of datatrove, which write a
format of their own. An example of each is in its docstring.

What needs JAX is imported where a task runs: executors fork before, and JAX does not survive a fork.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lm.editing.config import EditConfig
from lm.editing.settings import Settings
from lm.errors import InputError

if TYPE_CHECKING:
    from lm.editing.prior import Prior
    from lm.editing.run import Step
    from lm.model.config import Compute

try:
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
    from datatrove.utils.logging import logger  # pyright: ignore[reportMissingImports]
except ImportError as missing:
    raise InputError("steps for datatrove need the extra `datatrove`; install toedit[datatrove]") from missing

TOGETHER = 1 << 20  # characters of documents that are edited together


class _Edit(PipelineStep):  # pyright: ignore[reportUntypedBaseClass]
    """What both steps have. The prior is loaded where a task runs: a step is sent there, and holds no arrays."""

    type = "✎ - EDIT"

    def __init__(self, prior: str, compute: "Compute", context: int | None):
        super().__init__()
        self.prior, self.context = prior, context
        self.compute: Compute = compute

    def _prepared(self) -> "Prior":
        from lm.startup import before_jax

        before_jax()
        from lm.editing.prior import prepare_prior
        from lm.weights.load import load

        return prepare_prior(
            load(self.prior, compute=self.compute, inference=True), compute=self.compute, context=self.context
        )


class EditFiles(_Edit):
    """Edits files into a folder; task r of n edits every n-th file, from number r on.

    Example (one worker, because one edit uses all cores; without "tiny" the prior is SmolLM2):

        from datatrove.executor import LocalPipelineExecutor
        from lm.editing.pipeline import EditFiles

        step = EditFiles(["corpus/*.jsonl.zst"], "edited", "tiny")
        LocalPipelineExecutor([step], tasks=4, workers=1, logging_dir="logs").run()
    """

    name = "files, token by token"

    def __init__(
        self,
        inputs: Sequence[str],
        out: str,
        prior: str = "smollm2",
        settings: Settings | None = None,
        *,
        compute: "Compute" = "bfloat16",
        context: int | None = None,
        strict: bool = False,
    ):
        """Note what to do; nothing is read.

        Args:
            inputs: files, folders, globs, source:NAME or hub:NAME, as seen by every task.
            out: folder that all tasks share.
            prior: name of a model, as for `lm.weights.load.load`.
            settings: of the edit; the paper's by default.
            compute: type of the factors of matrix products.
            context: longest window in tokens; the prior's by default.
            strict: fail at the first damaged record instead of setting it aside.
        """
        super().__init__(prior, compute, context)
        self.inputs, self.out = [inputs] if isinstance(inputs, str) else list(inputs), out
        self.settings, self.strict = settings or Settings(EditConfig()), strict

    def run(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Edit the files of this task; documents of earlier steps pass.

        Raises:
            InputError: what `lm.editing.run.run` raises.
        """
        from lm.editing.inputs import find_tasks
        from lm.editing.run import run

        yield from data or ()
        out = pathlib.Path(self.out)
        tasks = find_tasks(self.inputs, out, logger.warning)
        if rank >= len(tasks):  # more tasks than files
            return
        with self.track_time("task"):
            run(
                tasks,
                out,
                self._prepared(),
                self.settings,
                shard=(rank, world_size),
                strict=self.strict,
                progress=self._count,
                warn=logger.warning,
            )

    def _count(self, step: "Step") -> None:
        for name in ("tokens", "selected", "changed"):
            if value := getattr(step, name):
                self.stat_update(name, value=value, unit="batch")


class EditDocuments(_Edit):
    """Edits the text of the documents that pass, and notes the numbers of tokens in their metadata under "toedit".

    The draws are keyed by the seed, the document's id and the position. datatrove's readers name a document without
    an id after its file and line; then, or if ids are not unique, key them by the text.

    Example (so with JsonlReader and JsonlWriter):

        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.readers import ParquetReader
        from datatrove.pipeline.writers import ParquetWriter
        from lm.editing.pipeline import EditDocuments

        pipeline = [ParquetReader("corpus"), EditDocuments("tiny"), ParquetWriter("edited")]
        LocalPipelineExecutor(pipeline, tasks=4, workers=1, logging_dir="logs").run()
    """

    name = "documents, token by token"

    def __init__(
        self,
        prior: str = "smollm2",
        config: EditConfig | None = None,
        *,
        compute: "Compute" = "bfloat16",
        context: int | None = None,
        key: str = "id",
    ):
        """Note what to do; nothing is read.

        Args:
            prior: name of a model, as for `lm.weights.load.load`.
            config: of the edit; the paper's by default.
            compute: type of the factors of matrix products.
            context: longest window in tokens; the prior's by default.
            key: of a document's randomness: its "id", or its "text".

        Raises:
            InputError: another key.
        """
        super().__init__(prior, compute, context)
        if key not in ("id", "text"):
            raise InputError(f"documents cannot be keyed by {key!r}; use id or text")
        self.config, self.key = config or EditConfig(), key

    def run(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yield the documents with their texts edited, in their order."""
        from lm.data.readers import own_id
        from lm.editing.documents import DocumentEncoder
        from lm.editing.editor import Editor, counts, edited_text
        from lm.editing.records import text_key

        del rank, world_size  # the reader's concern
        coming = iter(data or ())
        first = next(coming, None)
        if first is None:
            return
        prior = self._prepared()
        encoder, editor = DocumentEncoder(prior.tokenizer), Editor(prior, self.config, 0.0)
        for group in _groups(itertools.chain([first], coming)):
            with self.track_time("batch"):
                # Half a surrogate pair, which JSON can spell, becomes bytes that are not UTF-8 and stay as they are.
                texts = [one.text.encode(errors="surrogatepass") for one in group]
                ids = [own_id({"id": one.id}) if self.key == "id" else None for one in group]
                keys = [name or text_key(text) for name, text in zip(ids, texts, strict=True)]
                for one, edit in zip(group, itertools.chain.from_iterable(editor(encoder(texts, keys))), strict=True):
                    made = edited_text(edit.document, edit.decisions, prior.tokenizer)
                    one.text = made.decode(errors="surrogatepass")
                    found = dict(zip(("tokens", "selected", "changed"), counts([edit]), strict=True))
                    one.metadata["toedit"] = found
                    for name, value in found.items():
                        self.stat_update(name, value=value)
            yield from group


def _groups(documents: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for one in documents:
        group.append(one)
        size += len(one.text)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group
