"""Compares the editing of SmolLM2 with Algorithm 1 on torch and transformers, at every token of three domains.

`python tests/peers/compare_editing.py --cache FOLDER [--seconds 240]` scores for so long and stops; the same command
goes on. When all is scored it writes paper/results/edit-reference.json. About 40 minutes on two cores in all.
"""

import argparse
import itertools
import json
import pathlib
import time

import numpy as np
import torch
import transformers
from edit_torch import Scores, score, smollm2

from lm.data import sources
from lm.editing.config import EditConfig
from lm.editing.documents import DocumentEncoder
from lm.editing.prior import decisions, prepare_prior
from lm.startup import before_jax
from lm.weights.load import load
from paper.results import ROOT, record, write_record

DOMAINS = ("sotu", "novels", "python")
TOKENS, PIECE = 70_000, 512  # of a domain, at least; of a piece, about
BATCH = 32  # pieces between two files of the cache
CONFIG = EditConfig()  # the paper's: P >= 0.99
RESULT = ROOT / "paper" / "results" / "edit-reference.json"
UNITS = 100  # see `tolerance`


def pieces(tokenizer) -> list[tuple[str, str, str]]:
    """Return key, domain and text of pieces of about 512 tokens of the test splits' documents.

    The first piece of every document comes first, then the second of every one, until a domain has its tokens. A piece
    ends where a token of the peer's tokenizer ends.
    """
    found = []
    for domain in DOMAINS:
        cut = []
        for document in sources.load(domain, "test"):
            spans = tokenizer.encode(document.text).offsets
            ends = [*(spans[place][0] for place in range(PIECE, len(spans), PIECE)), len(document.text)]
            texts = [document.text[a:b] for a, b in itertools.pairwise([0, *ends])]
            cut += [(place, f"{document.id}/{place}", text) for place, text in enumerate(texts)]
        cut.sort(key=lambda piece: piece[0])
        number = 0
        for _, key, text in cut:
            found.append((key, domain, text))
            number += len(tokenizer.encode(text).ids)
            if number >= TOKENS:
                break
    return found


def tolerance(largest: float, threshold: float) -> float:
    """Return how far two float32 computations of P may lie apart where P is about the threshold.

    Sums of 30 layers in another order change a logit by up to UNITS units in the last place of the largest logit (as
    the other tests of this folder allow), hence the log-odds of P by twice that, and P by P (1 - P) times it. The
    logarithm of the softmax' denominator is rounded once more, to a unit in its last place, which changes P by P of it.
    """
    unit = float(np.finfo(np.float32).eps) * largest
    return threshold * (1 - threshold) * 2 * UNITS * unit + threshold * unit


def by_torch(model, tokenizer, end: int, texts: list[str]) -> dict[str, np.ndarray]:
    """Return the tokens of some texts, their number and P, and the largest logit of each text."""
    ids = [tokenizer.encode(text).ids for text in texts]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    made: dict[int, Scores] = {}
    for start in range(0, len(order), 8):
        part = order[start : start + 8]
        made |= dict(zip(part, score(model, end, [ids[number] for number in part]), strict=True))
    return {
        "tokens": np.concatenate(ids),
        "lengths": np.array([len(one) for one in ids]),
        "probability": np.concatenate([made[number].probability for number in range(len(ids))]),
        "largest": np.array([made[number].largest for number in range(len(ids))]),
    }


def score_batches(chosen: list[tuple[str, str, str]], cache: pathlib.Path, seconds: float) -> bool:
    """Score what the cache does not hold yet; return whether it holds everything now."""
    started = time.perf_counter()
    peer, peer_tokenizer, end = smollm2()
    pretrained = load("smollm2")
    encoder = DocumentEncoder(pretrained.tokenizer)
    priors = {kind: prepare_prior(pretrained, compute=kind) for kind in ("float32", "bfloat16")}
    del pretrained
    for first in range(0, len(chosen), BATCH):
        batch = chosen[first : first + BATCH]
        missing = [kind for kind in ("torch", *priors) if not (cache / f"{first:05d}-{kind}.npz").exists()]
        documents = encoder([text.encode() for _, _, text in batch], [key for key, _, _ in batch]) if missing else []
        for kind in missing:
            path = cache / f"{first:05d}-{kind}.npz"
            if time.perf_counter() - started > seconds:
                return False
            if kind == "torch":
                arrays = by_torch(peer, peer_tokenizer, end, [text for _, _, text in batch])
            else:
                found = decisions(priors[kind], documents, CONFIG)
                arrays = {"tokens": np.concatenate([one.tokens for one in documents])}
                arrays["editable"] = np.concatenate([one.editable for one in documents])
                for name in ("probability", "selected"):
                    arrays[name] = np.concatenate([getattr(one, name) for one in found])
            beside = path.with_suffix(".part.npz")
            np.savez(beside, **arrays)
            beside.rename(path)
            print(f"{path.name} {time.perf_counter() - started:.0f} s", flush=True)
    return True


def compare(chosen: list[tuple[str, str, str]], cache: pathlib.Path) -> dict:
    """Count, by domain, selected positions and those that the implementations decide differently."""
    read: dict[str, list] = {kind: [] for kind in ("torch", "float32", "bfloat16")}
    for first in range(0, len(chosen), BATCH):
        for kind, found in read.items():
            with np.load(cache / f"{first:05d}-{kind}.npz", allow_pickle=False) as arrays:
                found.append(dict(arrays))
    whole = {
        kind: {name: np.concatenate([one[name] for one in found]) for name in found[0]} for kind, found in read.items()
    }
    for kind in ("float32", "bfloat16"):
        assert np.array_equal(whole[kind]["tokens"], whole["torch"]["tokens"]), "the tokenizers differ"
    domain_M = np.repeat([DOMAINS.index(domain) for _, domain, _ in chosen], whole["torch"]["lengths"])
    margin = tolerance(float(whole["torch"]["largest"].max()), CONFIG.threshold)
    expected, editable = whole["torch"]["probability"], whole["float32"]["editable"]
    near = editable & (np.abs(expected - CONFIG.threshold) <= margin)
    selected = editable & (expected >= CONFIG.threshold)
    rows = {}
    for number, domain in enumerate((*DOMAINS, "all")):
        here = domain_M == number if domain != "all" else np.ones(len(domain_M), bool)
        row = {
            "tokens": int(here.sum()),
            "selected": int(selected[here].sum()),
            "within_tolerance": int(near[here].sum()),
        }
        for kind in ("float32", "bfloat16"):
            ours = whole[kind]["selected"]
            differs = here & (ours != selected)
            known = here & np.isfinite(whole[kind]["probability"])
            distance = np.abs(whole[kind]["probability"][known] - expected[known])
            row[kind] = {
                "selected": int(ours[here].sum()),
                "different": int(differs.sum()),
                "different_outside_tolerance": int((differs & ~near).sum()),
                "largest_difference_of_p": float(distance.max()),
            }
        row["bfloat16_against_float32"] = int(
            (here & (whole["bfloat16"]["selected"] != whole["float32"]["selected"])).sum()
        )
        rows[domain] = row
    return {"tolerance": margin, "domains": rows}


def main() -> None:
    """Score, and write the result when everything is scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="folder of what is scored already")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no new scores are begun after so long")
    asked = parser.parse_args()
    before_jax()
    asked.cache.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    kept = asked.cache / "pieces.json"
    if not kept.exists():
        kept.write_text(json.dumps(pieces(smollm2()[1])), encoding="utf-8")
    chosen = [tuple(piece) for piece in json.loads(kept.read_text(encoding="utf-8"))]
    if not score_batches(chosen, asked.cache, asked.seconds):
        print("not finished; the same command goes on")
        return
    data = compare(chosen, asked.cache)
    config = CONFIG.to_json() | {"prior": "smollm2", "tokens_of_a_piece": PIECE, "split": "test"}
    result = record("edit-reference", config, data, time.perf_counter() - started)
    result["versions"] |= {"torch": torch.__version__, "transformers": transformers.__version__}
    write_record(RESULT, result)
    print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
