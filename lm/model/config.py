"""What a decoder is made of: sizes and the choices in which the published families differ."""

import dataclasses
import math
from typing import Any, Literal

from lm.errors import InputError

Compute = Literal["float32", "bfloat16"]
Remat = Literal["none", "matmuls", "full"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pre-training.

    Attributes:
        kind: "linear" divides every frequency by `factor`; "llama3" divides the slow ones, keeps the fast
            ones and interpolates between (Llama 3.1).
        factor: of the stretch.
        low_frequency: llama3: waves longer than original_context / low_frequency are divided.
        high_frequency: llama3: waves shorter than original_context / high_frequency are kept.
        original_context: llama3: context of pre-training, tokens.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_context: int = 8192

    def __post_init__(self):
        """Check the ranges; raises InputError."""
        if not self.factor > 0 or not 0 < self.low_frequency < self.high_frequency or self.original_context < 1:
            raise InputError(f"a rotary scaling of {self} is impossible; correct its factors")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder. The families are values of it, not classes.

    Attributes:
        vocabulary: number of token ids, V.
        context: longest sequence that the model sees, in tokens.
        width: of the residual stream, D.
        layers: number of blocks, L.
        heads: query heads, H.
        kv_heads: key and value heads, G, a divisor of H; 0 stands for H.
        head_size: width of a head, K; 0 stands for D / H.
        hidden: width of the feed-forward layer, F.
        norm: "rms" (Zhang & Sennrich 2019), "layer" (Ba et al. 2016), "layer-plain" (the same without
            parameters, OLMo).
        norm_bias: whether "layer" has a bias.
        norm_place: "before" a branch (GPT-2 and most), or "after" it (OLMo-2).
        epsilon: added to the variance or the mean square.
        query_key_norm: RMS norm of queries and keys: "none", over each "head" (Qwen3), over the "whole"
            projection (OLMo-2).
        attention_bias: of the projections: "none", "qkv" (Qwen2), "all" (GPT-2).
        hidden_bias: whether the feed-forward layer has biases.
        activation: of the feed-forward layer; "gelu-tanh" is GPT-2's approximation.
        gated: down(activation(gate x) * up x) instead of down(activation(up x)) (Shazeer 2020).
        position: "rotary" (Su et al. 2021) or "learned" (GPT-2).
        rope_base: base of the rotary frequencies.
        rope_share: share of each head that is rotated, its leading part (StableLM 0.25).
        rope_scaling: stretch of the frequencies.
        clip_qkv: queries, keys and values are clipped to plus or minus this (OLMo); None does not.
        tied: whether the head is the embedding, transposed.
        compute: type of the factors of every matmul; parameters, sums, norms, softmax and logits are float32.
        remat: what the backward pass computes again: "none", all but the "matmuls", the "full" block.
    """

    vocabulary: int
    context: int = 256
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 0
    head_size: int = 0
    hidden: int = 512
    norm: Literal["rms", "layer", "layer-plain"] = "rms"
    norm_bias: bool = False
    norm_place: Literal["before", "after"] = "before"
    epsilon: float = 1e-5
    query_key_norm: Literal["none", "head", "whole"] = "none"
    attention_bias: Literal["none", "qkv", "all"] = "none"
    hidden_bias: bool = False
    activation: Literal["gelu-tanh", "silu"] = "silu"
    gated: bool = True
    position: Literal["rotary", "learned"] = "rotary"
    rope_base: float = 10_000.0
    rope_share: float = 1.0
    rope_scaling: RopeScaling | None = None
    clip_qkv: float | None = None
    tied: bool = True
    compute: Compute = "float32"
    remat: Remat = "none"

    def __post_init__(self):
        """Fill in what follows from the rest and check the sizes; raises InputError."""
        if min(self.vocabulary, self.context - 1, self.width, self.layers, self.heads, self.hidden) < 1:
            raise InputError("vocabulary, width, layers, heads and hidden must be at least 1 and context 2; raise them")
        if not self.head_size:
            if self.width % self.heads:
                raise InputError(f"a width of {self.width} cannot be cut into {self.heads} heads; change one")
            object.__setattr__(self, "head_size", self.width // self.heads)
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise InputError(f"{self.heads} query heads cannot share {self.kv_heads} key heads evenly; change one")
        for name in ("epsilon", "rope_base"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}; it must be a finite number above 0")
        if not 0 < self.rope_share <= 1:
            raise InputError(f"the share of a head that is rotated is {self.rope_share}; it must be in (0, 1]")
        if self.position == "rotary" and (self.rotated < 2 or self.rotated % 2):
            raise InputError(
                f"rotary positions need an even number of rotated coordinates, not {self.rotated} "
                f"of a head of {self.head_size}; change the head size or the share"
            )

    def changed(self, **changes: Any) -> "ModelConfig":
        """Return the configuration with some fields changed; what was derived from them is derived again.

        Raises:
            InputError: the fields do not fit each other.
        """
        if self.kv_heads == self.heads:
            changes = {"kv_heads": 0, **changes}
        if self.head_size * self.heads == self.width:
            changes = {"head_size": 0, **changes}
        return dataclasses.replace(self, **changes)

    @property
    def rotated(self) -> int:
        """Coordinates of each head that are rotated, R."""
        return int(self.head_size * self.rope_share)

    @property
    def query_width(self) -> int:
        """Width of all query heads together, H K."""
        return self.heads * self.head_size

    @property
    def key_width(self) -> int:
        """Width of all key heads together, G K."""
        return self.kv_heads * self.head_size
