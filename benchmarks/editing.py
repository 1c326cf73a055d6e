"""Editing with SmolLM2 on the CPU: tokens per second against Algorithm 1 on transformers with torch, in turn; memory.

`python -m benchmarks editing` measures speed. The memory of `toedit edit` with the tiny prior is measured by itself,
because it takes minutes a file: `python -m benchmarks.editing memory`.
"""

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _turns
from lm.data import sources
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder, TokenizedDocument
from lm.editing.prior import BOUND, CONTEXT, Prior, decisions, prepare_prior
from lm.model.config import Compute, ModelConfig
from lm.startup import before_jax
from lm.weights.load import fetch_smollm2, load

DOMAINS = ("sotu", "novels", "python")
TOKENS = 12_000  # to edit
SHORTEST, LONGEST = 64, 1024  # tokens of a document
CONFIG = EditConfig()
ROUNDS: dict[Compute, int] = {"bfloat16": 4, "float32": 1}
HEADS = {"bfloat16": {"pruned head": False, "full head": True}, "float32": {"pruned head": False}}
# Bytes of files, and of the text in them, the rest of which is another field: the tiny prior edits about 50 kB/s.
FILES = ((10**4, 10**4), (10**7, 10**7), (10**8, 5 * 10**6), (10**9, 5 * 10**6))


def passages(end: int = LONGEST) -> Iterator[str]:
    """Yield beginnings of documents of the three domains in turn.

    Half of them are `end` tokens long or a little more, the others have lengths spread evenly on a logarithmic scale,
    as documents of a corpus are: some whole, some cut at the context.
    """
    rng = np.random.default_rng(0)
    files = [iter(sources.load(domain, "train")) for domain in DOMAINS]
    while True:
        for file in files:
            text = next(file).text
            size = end if rng.random() < 0.5 else int(np.exp(rng.uniform(np.log(SHORTEST), np.log(end))))
            yield text[: 4 * size]  # about four characters a token


def needed(config: ModelConfig, documents: list[TokenizedDocument], full_rows: int, bound_rows: int) -> float:
    """Return the multiplications and additions that an edit needs in matrix products; causal attention counts once.

    Args:
        config: of the prior.
        documents: to edit.
        full_rows: tokens that need the whole head.
        bound_rows: tokens that need the part of the head that rules positions out.
    """
    c = config
    matrices = 2 * c.width * (c.query_width + c.key_width) + (3 if c.gated else 2) * c.width * c.hidden
    lengths = np.array([len(one.tokens) for one in documents], float)
    blocks = (
        2 * c.layers * matrices * lengths.sum() + 4 * c.layers * c.query_width * (lengths * (lengths + 1) / 2).sum()
    )
    return float(blocks + 2 * c.width * (c.vocabulary * full_rows + BOUND * bound_rows))


def ours(prior: Prior, documents: list[TokenizedDocument], *, full: bool) -> dict[str, float]:
    """Decide on the documents once."""
    seconds, found = _turns.timed(lambda: decisions(prior, documents, CONFIG, full=full))
    number = sum(len(one.tokens) for one in documents)
    rows = sum(int(np.isfinite(one.probability).sum()) for one in found)
    return {
        "seconds": seconds,
        "flops": needed(prior.scorer.config, documents, rows, 0 if full else number),
        "head_rows": rows / number,
        "selected": sum(int(one.selected.sum()) for one in found),
        "changed": sum(int(one.changed(d.tokens).sum()) for one, d in zip(found, documents, strict=True)),
    }


def measure() -> dict[str, Any]:
    """Return the speeds of this module."""
    machine, pretrained = _turns.Machine(), load("smollm2")
    encoder, end = DocumentEncoder(pretrained.tokenizer), pretrained.tokenizer.end
    documents: list[TokenizedDocument] = []
    for number, text in enumerate(passages()):
        documents += encoder([text.encode()], [str(number)])
        if sum(len(one.tokens) for one in documents) >= TOKENS:
            break
    lengths = [len(one.tokens) for one in documents]
    runs = {}
    with _turns.torch(
        "_editing_torch.py",
        str(fetch_smollm2()),
        tokens=np.concatenate([one.tokens for one in documents]),
        starts=np.cumsum([0, *lengths]),
        end=end,
        threshold=CONFIG.threshold,
        top_k=CONFIG.top_k,
        temperature=CONFIG.temperature,
    ) as peer:
        for compute, rounds in ROUNDS.items():
            # Both sides see every document whole; what the default does, windows that overlap, is measured beside it.
            prior = prepare_prior(pretrained, compute=compute, context=pretrained.model.config.context)
            ways: dict[str, _turns.Way] = {
                f"ours, {name}, {compute}": functools.partial(ours, prior, documents, full=full)
                for name, full in HEADS[compute].items()
            }
            if compute == "bfloat16":
                windowed = functools.partial(ours, prepare_prior(pretrained), documents, full=False)
                ways[f"windows of {CONTEXT:,}, pruned head, {compute}"] = windowed
            ways[f"products, {compute}"] = functools.partial(_turns.product_rate, compute)
            ways |= {name: way for name, way in peer["ways"].items() if name.endswith(f" {compute}")}
            runs |= _turns.in_turn(ways, rounds)
    return {
        "tokens": sum(lengths),
        "documents": len(lengths),
        "lengths": lengths,
        "runs": runs,
        "machine": machine.described("jax", "jaxlib", "flax", **peer["versions"]),
    }


def write_file(path: Path, size: int, text: int) -> None:
    """Write JSONL of about `size` bytes with about `text` bytes of text to edit, in records of 2 kB or more."""
    pieces = []
    for document in sources.load("python", "train"):
        pieces += [document.text[start : start + 2000] for start in range(0, len(document.text), 2000)]
        if len(pieces) > 5000:
            break
    done = number = 0
    with path.open("w", encoding="utf-8") as file:
        while done < size:
            piece = pieces[number % len(pieces)]
            other = "x" * int(len(piece) * (size / text - 1))
            done += file.write(json.dumps({"id": f"record {number}", "text": piece, "other": other}) + "\n")
            number += 1


def edit_memory(size: int, text: int) -> dict[str, Any]:
    """Return the peak of the memory of `toedit edit --prior tiny` on a file, and the memory after each tenth of it."""
    with tempfile.TemporaryDirectory() as folder:
        write_file(Path(folder) / "a.jsonl", size, text)
        command = [sys.executable, "-m", "paper.main", "edit", f"{folder}/a.jsonl", "--prior", "tiny"]
        started = time.perf_counter()
        with open(f"{folder}/log", "wb") as log:  # noqa: PTH123 (a process writes it)
            process = subprocess.Popen([*command, "--out", f"{folder}/out"], stdout=log, stderr=log)
            curve = []
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if "kB" in line}
                if "VmRSS" in memory:
                    parts = len(list(Path(folder).glob("out/.parts/*/*")))
                    curve.append((time.perf_counter() - started, parts, memory["VmRSS"], memory["VmHWM"]))
                time.sleep(0.5)
        assert process.returncode == 0, Path(f"{folder}/log").read_text()
        last = json.loads(Path(f"{folder}/out/stats.json").read_text())
        assert last["files"] == 1
        return {
            "bytes": (Path(folder) / "a.jsonl").stat().st_size,
            "text_bytes": text,
            "seconds": curve[-1][0],
            "peak": max(one[3] for one in curve),
            "curve": curve[:: max(1, len(curve) // 40)],
        }


def table(data: dict[str, Any]) -> str:
    """Return the numbers as a text in Markdown."""
    runs = data["runs"]
    lines = [
        "# Editing with SmolLM2-135M",
        "",
        f"Algorithm 1 (P >= {CONFIG.threshold}, the {CONFIG.top_k} likeliest, temperature {CONFIG.temperature:g}) on "
        f"{data['tokens']:,} tokens in {data['documents']} documents of {min(data['lengths'])} to "
        f"{max(data['lengths']):,} tokens (median {int(np.median(data['lengths']))}) of {', '.join(DOMAINS)}; all ways "
        f"in turn, {ROUNDS['bfloat16']} rounds (float32 {ROUNDS['float32']}), medians. "
        f"{_turns.sentence(data['machine'])} Command: `python -m benchmarks editing`.",
        "",
        "| what | tokens/s | needed work's share of the matrix products' rate | tokens that need the whole head | "
        "first pass, s | selected | changed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, those in runs.items():
        if name.startswith("products"):
            continue
        rates = runs[f"products, {name.rsplit(' ', maxsplit=1)[-1]}"]
        last = those[-1]
        share = _turns.share(those, last["flops"], rates)[1] if "flops" in last else ""
        lines.append(
            f"| {name} | {data['tokens'] / np.median(_turns.seconds(those)):.0f} | {share} "
            f"| {100 * last.get('head_rows', 1):.0f} % | {those[0]['seconds']:.1f} | {last['selected']} "
            f"| {last['changed']} |"
        )
    lines += [
        "",
        f"Documents are seen whole, except in the row of windows: there those beyond {CONTEXT:,} tokens are cut into "
        f"windows that overlap by half, as `toedit edit` does unless --context says otherwise. What is computed in "
        "padding, and again in a window's context, counts as no work.",
        "",
    ]
    best, peer = _turns.best(runs, "ours"), _turns.best(runs, "transformers")
    assert best is not None
    if peer:
        ratio, words = _turns.times_faster(runs[best], runs[peer])
        verdict = "met" if ratio >= 1.4 else "missed"
        lines.append(f"Conclusion: {words} as fast as transformers in its best type (aim 1.4: {verdict}).")
    else:
        lines.append("Conclusion: no interpreter with torch and transformers here, so nothing to compare with.")
    rates = runs[f"products, {best.rsplit(' ', maxsplit=1)[-1]}"]
    share, words = _turns.share(runs[best], runs[best][-1]["flops"], rates)
    lines[-1] += f" Of the matrix products' rate, {words} (aim 70 %: {'met' if share >= 0.7 else 'missed'})."
    if "memory" in data:
        lines += ["", *memory_table(data["memory"])]
    return "\n".join([*lines, ""])


def memory_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the memory as lines of Markdown; the first row is the file that is too small to matter."""
    lines = [
        "## Memory",
        "",
        "Peak resident memory of the process `toedit edit FILE.jsonl --prior tiny`, with interpreter and libraries; "
        "the prior's weights are 1 MB. The larger files are mostly other fields, which pass as they are, because the "
        "prior takes the time. Command: `python -m benchmarks.editing memory`.",
        "",
        "| file, MB | text in it, MB | peak, MB | above the smallest file, MB | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        above = (row["peak"] - rows[0]["peak"]) / 1e6
        lines.append(
            f"| {row['bytes'] / 1e6:,.2f} | {row['text_bytes'] / 1e6:,.2f} | {row['peak'] / 1e6:,.0f} | {above:,.0f} | "
            f"{row['seconds']:,.0f} |"
        )
    worst = max(row["peak"] for row in rows)
    verdict = "met" if worst < 2**30 else "missed"
    lines += ["", f"Conclusion: at most {worst / 2**30:.2f} GiB in all (aim 1 GiB above the weights: {verdict})."]
    return lines


def _kept() -> dict[str, Any]:
    path = Path("results/bench/editing.json")
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    """Measure speed, print the table and write results/bench/editing.json and its summary."""
    before_jax()
    memory = {name: rows for name, rows in _kept().items() if name == "memory"}
    data = measure() | memory
    _turns.save("editing", data, table(data))


def main_memory() -> None:
    """Measure memory and add it to what the last measurement of speed wrote."""
    data = _kept()
    data["memory"] = []
    for size, text in FILES:
        data["memory"].append(edit_memory(size, text))
        print({name: value for name, value in data["memory"][-1].items() if name != "curve"}, flush=True)
        _turns.save("editing", data, table(data))


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        main_memory()
    else:
        main()
