"""One training run on a mixture of two sources with exact shares: its curves, and perplexity before and after."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lm.data.mixture import Mixture, Part
from lm.data.prepare import prepare
from lm.evaluation.perplexity import evaluate
from lm.model.config import ModelConfig
from lm.model.decoder import make
from lm.model.parameters import count_parameters
from lm.model.presets import preset
from lm.train.config import TrainConfig
from lm.train.loop import Data, train
from paper.steps import lm_data

CONFIG: dict[str, Any] = {
    "seed": 0,
    "preset": "tiny",
    "shares": {"sotu": "0.7", "novels": "0.3"},
    "steps": 600,
    "batch": 16,
    "learning_rate": 6e-3,
    "schedule": "wsd",
    "corpus": lm_data.CONFIG["corpus"],
}
SECONDS = 60.0
NEEDS: tuple[str, ...] = ("lm_data",)


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: pathlib.Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Train and evaluate; a run that was killed goes on from its last checkpoint."""
    del needs
    prepared = prepare(config["corpus"])
    model: ModelConfig = preset(config["preset"], vocabulary=prepared.tokenizer.size)
    settings = TrainConfig(
        config["steps"],
        config["batch"],
        config["learning_rate"],
        warmup=config["steps"] // 20,
        schedule=config["schedule"],
        seed=config["seed"],
        save_every=200,
    )
    domains = np.asarray(prepared.train.domains)
    parts = [
        Part(name, prepared.train.select(np.flatnonzero(domains == name)), share)
        for name, share in config["shares"].items()
    ]
    end = prepared.tokenizer.end
    use = Mixture(parts, end, model.context, config["seed"]).use(settings.steps * settings.batch)
    trained = train(model, settings, Data(parts, end), folder / "run", progress)
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for when, one in (("before", make(model, settings.seed)), ("after", trained)):
        found = evaluate(one, prepared.validation, end)
        for domain in sorted(config["shares"]):
            score = found.score(domain)
            rows.append(
                {
                    "domain": domain,
                    "when": when,
                    "perplexity": score.perplexity,
                    "perplexity_se": score.perplexity_error,
                    "bits_per_byte": score.bits_per_byte,
                    "bits_per_byte_se": score.bits_per_byte_error,
                    "tokens": score.tokens,
                    "documents": score.documents,
                }
            )
    return {
        "parameters": count_parameters(model),
        "curve": [json.loads(line) for line in lines],
        "tables": {
            "mixture": [
                {
                    "domain": one.name,
                    "share": float(one.share),
                    "rows": one.rows,
                    "tokens": one.tokens,
                    "epochs": one.epochs,
                }
                for one in use
            ],
            "validation": rows,
        },
    }
