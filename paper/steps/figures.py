"""Draw every figure as PDF and PNG from the result files."""

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from figures import (
    confidence,
    curves,
    discrete,
    gaussian,
    gerstgrasser,
    kde,
    limits,
    lm_edit,
    lm_edit_again,
    lm_edited,
    lm_iterate,
    lm_larger,
    lm_mixture,
    lm_smollm2,
    lm_train,
    markov,
    one_edit,
    paper_bound,
    phase,
    tokens,
)
from paper.results import write_bytes

MODULES: tuple[ModuleType, ...] = (
    curves,
    paper_bound,
    one_edit,
    limits,
    confidence,
    phase,
    gerstgrasser,
    gaussian,
    discrete,
    kde,
    tokens,
    markov,
    lm_smollm2,
    lm_edit,
    lm_edit_again,
    lm_train,
    lm_mixture,
    lm_edited,
    lm_iterate,
    lm_larger,
)
CONFIG: dict[str, Any] = {"formats": ["pdf", "png"]}
SECONDS = 20.0
NEEDS = tuple(dict.fromkeys(name for module in MODULES for name in module.NEEDS))


def run(
    config: dict[str, Any],
    needs: dict[str, dict[str, Any]],
    folder: Path,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Draw the figures into the step's folder; return captions by name and the files' hashes."""
    import hashlib

    home = folder.parent.parent
    captions, files = {}, {}
    for index, module in enumerate(MODULES):
        name = module.__name__.rsplit(".", 1)[1]
        progress(index / len(MODULES), name)
        drawn = module.draw({need: needs[need] for need in module.NEEDS})
        captions[name] = module.CAPTION
        for kind in config["formats"]:
            buffer = io.BytesIO()
            # No date in the file: the same numbers give the same bytes.
            drawn.savefig(buffer, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
            write_bytes(home / f"{name}.{kind}", buffer.getvalue())
            files[f"{name}.{kind}"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    return {"captions": captions, "files": files}
