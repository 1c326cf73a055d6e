"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) and a reserved end-of-text id."""

import hashlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm.errors import InputError


def _byte_of() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for (GPT-2's printable alphabet)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_OF = _byte_of()


class Vocabulary:
    """Maps text to token ids and back, without loss.

    The end-of-text id is the last one and no entry of the BPE, so text that spells a special token is text.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        size = tokenizer.get_vocab_size()
        tokens = [tokenizer.id_to_token(number) or "" for number in range(size)]
        self._bytes = [bytes(BYTE_OF[character] for character in token) for token in tokens] + [b""]
        self.size: int = size + 1
        """Number of ids, end-of-text included."""
        self.end: int = size
        """Id of end-of-text: before every document, nowhere inside one."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; no id is added."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the ids; end-of-text is nothing. Sampled ids need not be valid UTF-8."""
        return b"".join(self._bytes[number] for number in ids)

    def to_json(self) -> str:
        """Return the vocabulary in the form of a tokenizer.json."""
        return self._tokenizer.to_str()

    @property
    def sha256(self) -> str:
        """Hash of `to_json`, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Return the vocabulary that `to_json` wrote."""
        return cls(tokenizers.Tokenizer.from_str(text))


def train_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """Learn a vocabulary of `size` ids: 256 bytes, size - 257 merges and end-of-text.

    Args:
        texts: of the training split only.
        size: at least 257.

    Raises:
        InputError: size below 257, or texts too small for so many merges.
    """
    if size < 257:
        raise InputError(f"a vocabulary of {size} cannot hold the 256 bytes and end-of-text; use at least 257")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=sorted(BYTE_OF), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = Vocabulary(tokenizer)
    if vocabulary.size != size:
        raise InputError(
            f"the training text supports only {vocabulary.size} ids, not {size}; "
            "give more text or ask for a smaller vocabulary"
        )
    return vocabulary
