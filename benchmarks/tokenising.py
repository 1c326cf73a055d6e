"""Tokenising and token files: MB/s of one process against the library's own, peak memory by the size of the corpus.

Every ratio is within one run of this module on one machine. Text: the sources sotu and novels, one process, one
thread, SmolLM2's tokenizer; cold is the first pass over a source, warm the second.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _turns

SOURCES = ("sotu", "novels")
SIZES = (25, 100, 400)  # MB of tokens


def speeds() -> dict[str, dict[str, float]]:
    """MB/s of UTF-8 text by source: ours with the check of every byte, the library's encode_batch_fast without."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import numpy as np

    from lm.data import sources
    from lm.data.encoding import Encoder
    from lm.data.tokenizer import Tokenizer
    from lm.weights.gguf import GgufFile
    from lm.weights.load import fetch_smollm2

    tokenizer = Tokenizer.from_gguf(GgufFile(fetch_smollm2()).metadata)
    found = {}
    for name in SOURCES:
        texts = [document.text for document in sources.load(name)]
        batches = [texts[first : first + 16] for first in range(0, len(texts), 16)]
        size = sum(len(text.encode()) for text in texts) / 1e6
        encoder, passes, encoded = Encoder(tokenizer), [], []
        for _ in range(2):
            start = time.perf_counter()
            encoded = [encoder(batch, batch).tokens for batch in batches]
            passes.append(size / (time.perf_counter() - start))
        start = time.perf_counter()
        ids = [one for batch in batches for one in tokenizer.encode_whole(batch)]
        library = size / (time.perf_counter() - start)
        start = time.perf_counter()
        lossless = all(tokenizer.decode(one) == text.encode() for one, text in zip(ids, texts, strict=True))
        check = size / (time.perf_counter() - start)
        if not lossless or not np.array_equal(np.concatenate(encoded), np.concatenate(ids)):
            raise AssertionError(f"the ids of {name} differ")
        found[name] = {"MB": size, "cold": passes[0], "warm": passes[1], "library": library, "decode_check": check}
    return found


def peak(megabytes: int) -> dict[str, float]:
    """Peak memory in MB of writing, verifying, packing from and cutting a corpus, and rows a second of packing."""
    import numpy as np

    from lm.data.corpus import Writer, read
    from lm.data.mixture import Mixture, Part
    from lm.evaluation.windows import blocks

    def now() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    rng, size, count = np.random.default_rng(0), 512, 1024
    found = {"start": now()}
    with tempfile.TemporaryDirectory() as folder:
        with Writer(Path(folder) / "c", 50_000, {}) as writer:
            for batch in range(megabytes):
                ids = [f"{batch}/{number}" for number in range(count)]
                tokens = rng.integers(0, 50_000, size * count, np.uint16)
                writer.append(tokens, [size] * count, ids, ids, ["d"] * count, [size] * count)
        found["write"] = now()
        corpus, _ = read(Path(folder) / "c")
        found["verify"] = now()
        mixture = Mixture([Part("a", corpus)], 50_000, 1024, 0)
        mixture[0]
        start, rows = time.perf_counter(), len(corpus.tokens) // 1024
        for row in range(0, rows, max(rows // 4000, 1)):
            mixture[row]
        found["rows_per_second"] = len(range(0, rows, max(rows // 4000, 1))) / (time.perf_counter() - start)
        found["rows"] = now()
        for _ in blocks(corpus, 50_000, 1024, 1 << 18):
            pass
        found["windows"] = now()
    return found


def in_fresh_process(call: str) -> dict:
    """Runs one of this module's functions in a new interpreter and returns its value."""
    code = f"import json; from benchmarks import tokenising as t; print(json.dumps(t.{call}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(data: dict) -> str:
    """The numbers as a text in Markdown."""
    lines = [
        "# Tokenising and token files",
        "",
        f"{_turns.sentence(data['machine'])} Command: `python -m benchmarks tokenising`.",
        "",
        "One process, SmolLM2's tokenizer, MB/s of UTF-8. Ours includes the proof that every byte comes back; the "
        "library is `encode_batch_fast`, and the last column what decoding every document would add to it.",
        "",
        "| source | MB | ours, cold | ours, warm | library | cold ratio | check by decoding |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in data["speeds"].items():
        lines.append(
            f"| {name} | {row['MB']:.1f} | {row['cold']:.1f} | {row['warm']:.1f} | {row['library']:.1f} "
            f"| {row['cold'] / row['library']:.1f} | {row['decode_check']:.0f} |"
        )
    lines += [
        "",
        "Peak resident memory in MB (VmHWM, mapped pages included) by the size of the token files, after each phase:",
        "",
        "| tokens, MB | start | write | verify | pack | windows | packed rows/s (T = 1024) |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, row in data["peaks"].items():
        phases = " | ".join(f"{row[name]:.0f}" for name in ("start", "write", "verify", "rows", "windows"))
        lines.append(f"| {size} | {phases} | {row['rows_per_second']:.0f} |")
    slowest = min(row["cold"] for row in data["speeds"].values())
    used = [row["windows"] - row["start"] for row in data["peaks"].values()]
    lines += [
        "",
        f"Conclusion: at least {slowest:.1f} MB/s a core on a cold table (aim 5: "
        f"{'met' if slowest >= 5 else 'missed'}); a corpus "
        f"of {max(SIZES)} MB takes {used[-1] - used[0]:.0f} MB more than one of {min(SIZES)} MB.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes results/bench/tokenising.json and its summary."""
    machine = _turns.Machine()
    data = {
        "speeds": in_fresh_process("speeds()"),
        "peaks": {size: in_fresh_process(f"peak({size})") for size in SIZES},
    }
    data["machine"] = machine.described("tokenizers", "numpy", "pyarrow")
    _turns.save("tokenising", data, table(data))


if __name__ == "__main__":
    main()
