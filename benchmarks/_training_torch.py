"""The model of benchmarks.training in PyTorch, served to it by an interpreter that has torch.

`python _training_torch.py SIZES SECONDS SHAPES`: SIZES is the JSON of the sizes, by the names below, SHAPES that of the
products of a step: rows, inner size, columns. A run gives the median seconds of a step over about SECONDS, the first
one the seconds of the first three steps.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from _serve import serve
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), as in GPT-2."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(self.attention_norm(x)).split(D, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(B, T, D))
        return x + self.down(functional.gelu(self.up(self.hidden_norm(x)), approximate="tanh"))


class Decoder(nn.Module):
    """Learned positions, layer norms with biases, head tied to the embedding."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int, hidden: int):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads, hidden) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, token: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = self.embedding(token) + self.position.weight[: token.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


def prepared(sizes: dict, seconds: float, compiled: bool, low: bool) -> Callable[[], dict]:
    """Return what trains on random tokens: three steps at first, then for about `seconds` whenever it is called."""
    torch.manual_seed(0)
    batch = sizes["batch"]
    model = Decoder(**{name: value for name, value in sizes.items() if name != "batch"})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if compiled else model
    data = torch.randint(sizes["vocabulary"], (batch, sizes["context"] + 1))
    token, target = data[:, :-1].contiguous(), data[:, 1:].contiguous()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext():
            loss = loss_of(token, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    started = False

    def run() -> dict:
        nonlocal started
        start = time.perf_counter()
        if not started:
            step(), step(), step()
            started = True
            return {"seconds": time.perf_counter() - start}
        times, loss = [], 0.0
        while sum(times) < seconds or len(times) < 3:
            start = time.perf_counter()
            loss = step()
            times.append(time.perf_counter() - start)
        return {"seconds": statistics.median(times), "loss": loss}

    return run


def products(shapes: list[list[int]]) -> dict:
    """Return the seconds of bfloat16 products, each alone, the median of 5; results are bfloat16."""
    seconds = {}
    for n, i, o in {tuple(shape) for shape in shapes}:
        x, w = torch.ones(n, i, dtype=torch.bfloat16), torch.ones(i, o, dtype=torch.bfloat16)
        torch.matmul(x, w)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            torch.matmul(x, w)
            times.append(time.perf_counter() - start)
        seconds[n, i, o] = statistics.median(times)
    return {"seconds": sum(seconds[tuple(shape)] for shape in shapes)}


def main() -> None:
    """Offer eager and compiled, float32 and bfloat16, and the products of a step."""
    sizes, seconds, shapes = json.loads(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
    ways = {
        f"torch, {'compiled' if compiled else 'eager'}, {'bfloat16' if low else 'float32'}": prepared(
            sizes, seconds, compiled, low
        )
        for compiled in (False, True)
        for low in (False, True)
    }
    serve(ways | {"torch, products": lambda: products(shapes)}, {"versions": {"torch": torch.__version__}})


if __name__ == "__main__":
    main()
