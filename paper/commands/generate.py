"""`toedit generate`: a synthetic corpus written by a model."""

import dataclasses
from pathlib import Path
from typing import Literal

from paper.words import counted


@dataclasses.dataclass(frozen=True)
class Generate:
    """Let a model write documents, as JSON lines with the prompt, seed and model of each.

    Documents are made and kept a batch at a time: 128 on a CPU, 512 on an accelerator. Interrupted, the same command
    goes on after the last batch that was finished and ends in the same bytes.
    """

    out: Path
    """File to write: .jsonl or .jsonl.zst."""
    documents: int
    """Documents to write."""
    model: str = "smollm2"
    """smollm2, tiny, a folder with a model, a .gguf file or hf:OWNER/NAME."""
    kind: tuple[Literal["textbook", "story", "article"], ...] = ("textbook", "story", "article")
    """Kinds of text, taking turns; for instruct models. Other models continue end-of-text."""
    sources: tuple[str, ...] = ("sotu", "novels", "federalist", "security")
    """Sources of human text whose training documents give the prompts their topics."""
    tokens: int | None = None
    """Tokens that a document has at most: by default 384, or what the model's context has room for."""
    temperature: float = 0.8
    """1 samples from the model; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the tokens that fewer than so many are likelier than; 0 keeps all."""
    top_p: float = 0.95
    """Keep the tokens whose likelier ones have less than this share of the probability; 1 keeps all."""
    seed: int = 0
    """Of prompts and draws."""

    def run(self) -> int:
        """Write the corpus; return the exit code.

        Raises:
            InputError: bad numbers, an unknown model or source, a file that cannot be written.
        """
        from lm.startup import before_jax

        before_jax()
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from lm.data import sources
        from lm.generation.corpus import TOKENS, CorpusConfig, tokens_that_fit, write
        from lm.generation.sampling import SamplingConfig
        from lm.weights.load import load

        sampling = SamplingConfig(self.temperature, self.top_k, self.top_p)
        limit = TOKENS if self.tokens is None else self.tokens
        config = CorpusConfig(self.documents, self.kind, limit, sampling, self.seed)  # refused before a model is read
        pretrained = load(self.model, compute="bfloat16", inference=True)
        if self.tokens is None:
            config = dataclasses.replace(config, tokens=tokens_that_fit(pretrained))
        texts = {name: list(sources.load(name, "train")) for name in self.sources} if pretrained.instruct else {}
        columns = (
            TextColumn("writing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("documents, {task.fields[tokens]:,} tokens"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        tokens = 0
        with Progress(*columns) as bar:
            task = bar.add_task("", total=self.documents, tokens=0)

            def progress(more_documents: int, more_tokens: int) -> None:
                nonlocal tokens
                tokens += more_tokens
                bar.update(task, advance=more_documents, tokens=tokens)

            write(self.out, pretrained, config, texts, progress)
        print(f"{self.out}: {counted(self.documents, 'document')}")
        return 0
