"""Write tests/data/decoder.npz: inputs, weights, logits, loss, gradients and one AdamW step, by PyTorch in float64.

Run where PyTorch is installed, from the repository's root:  python tests/peers/make_references.py
"""

import json
import pathlib

import numpy as np
import torch
from decoder_torch import BLOCK, logits, loss

CONFIG = {
    "vocabulary": 40,
    "context": 70,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "hidden": 24,
    "rope_base": 10_000.0,
    "epsilon": 1e-5,
}
ADAMW = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip": 0.5}


def main():
    """Make the arrays and write them."""
    random = np.random.default_rng(0)
    D, F, V, T = CONFIG["width"], CONFIG["hidden"], CONFIG["vocabulary"], CONFIG["context"]
    shapes = {"attention_norm": (D,), "attention_in": (D, 3 * D), "attention_out": (D, D)}
    shapes |= {"hidden_norm": (D,), "hidden_in": (D, F), "hidden_out": (F, D)}
    names = {"embedding": (V, D), "norm": (D,)}
    names |= {f"blocks.{i}.{name}": shapes[name] for i in range(CONFIG["layers"]) for name in BLOCK}
    arrays = {
        name: (1 + 0.1 * random.normal(size=shape) if "norm" in name else 0.3 * random.normal(size=shape)).astype(
            np.float32
        )
        for name, shape in names.items()
    }
    tokens, targets = random.integers(0, V, (2, 2, T))
    segments = np.stack([np.repeat([0, 1, 2], [20, 47, 3]), np.zeros(T, int)])
    weights = {name: torch.tensor(array, dtype=torch.float64, requires_grad=True) for name, array in arrays.items()}
    inputs = [torch.tensor(array) for array in (tokens, targets, segments)]
    value = loss(weights, CONFIG, *inputs)
    value.backward()
    saved = {f"weight/{name}": array for name, array in arrays.items()}
    saved |= {f"gradient/{name}": leaf.grad.numpy().astype(np.float32) for name, leaf in weights.items()}
    saved["logits"] = logits(weights, CONFIG, inputs[0], inputs[2]).detach().numpy().astype(np.float32)
    saved["loss"] = np.float64(value.item())
    torch.nn.utils.clip_grad_norm_(weights.values(), ADAMW["clip"])
    groups = [
        {"params": [leaf for leaf in weights.values() if leaf.ndim > 1], "weight_decay": ADAMW["weight_decay"]},
        {"params": [leaf for leaf in weights.values() if leaf.ndim == 1], "weight_decay": 0.0},
    ]
    betas = (ADAMW["beta1"], ADAMW["beta2"])
    torch.optim.AdamW(groups, lr=ADAMW["learning_rate"], betas=betas, eps=1e-8).step()
    saved |= {f"stepped/{name}": leaf.detach().numpy().astype(np.float32) for name, leaf in weights.items()}
    saved |= {"tokens": tokens, "targets": targets, "segments": segments}
    saved |= {"config": np.array(json.dumps(CONFIG)), "adamw": np.array(json.dumps(ADAMW))}
    np.savez_compressed(pathlib.Path(__file__).parents[1] / "data" / "decoder.npz", **saved)


if __name__ == "__main__":
    main()
