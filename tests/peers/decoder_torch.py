"""The decoder of lm/model.py written again from its definition in PyTorch, float64, one loop a row and a head."""

import math

import torch


def rotate(x, base):
    """Rotary embedding of (T, K): the pair (i, i + K/2) turns by t * base^(-2i/K)."""
    T, K = x.shape
    out = torch.empty_like(x)
    for i in range(K // 2):
        angle = torch.arange(T, dtype=x.dtype) * base ** (-2 * i / K)
        a, b = x[:, i], x[:, i + K // 2]
        out[:, i] = a * torch.cos(angle) - b * torch.sin(angle)
        out[:, i + K // 2] = b * torch.cos(angle) + a * torch.sin(angle)
    return out


def norm(x, scale, epsilon):
    """RMSNorm."""
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + epsilon) * scale


def logits(weights, config, tokens, segments):
    """Return logits (B, T, V) of the model with these named weights."""
    rows = []
    D, H = config["width"], config["heads"]
    K = D // H
    for ids, owner in zip(tokens, segments, strict=True):
        T = len(ids)
        x = weights["embedding"][ids]
        position = torch.arange(T)
        allowed = (position[:, None] >= position[None, :]) & (owner[:, None] == owner[None, :])
        for layer in range(config["layers"]):
            w = {name: weights[f"blocks.{layer}.{name}"] for name in BLOCK}
            qkv = norm(x, w["attention_norm"], config["epsilon"]) @ w["attention_in"]
            heads = []
            for h in range(H):
                q, k, v = (qkv[:, part * D + h * K : part * D + (h + 1) * K] for part in range(3))
                score = rotate(q, config["rope_base"]) @ rotate(k, config["rope_base"]).T / math.sqrt(K)
                heads.append(torch.softmax(score.masked_fill(~allowed, -math.inf), -1) @ v)
            x = x + torch.cat(heads, -1) @ w["attention_out"]
            inner = norm(x, w["hidden_norm"], config["epsilon"]) @ w["hidden_in"]
            x = x + torch.nn.functional.gelu(inner, approximate="tanh") @ w["hidden_out"]
        rows.append(norm(x, weights["norm"], config["epsilon"]) @ weights["embedding"].T)
    return torch.stack(rows)


BLOCK = ("attention_norm", "attention_in", "attention_out", "hidden_norm", "hidden_in", "hidden_out")


def loss(weights, config, tokens, targets, segments):
    """Return the mean negative log-likelihood of the targets in nats."""
    scores = logits(weights, config, tokens, segments)
    return torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))
