"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): trained here, or read from published files."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm.errors import InputError

END_NAMES = ("<|endoftext|>", "<|end_of_text|>")  # how the published families spell end-of-text
TURN_BEGINS, TURN_ENDS = "<|im_start|>", "<|im_end|>"  # of ChatML
GPT2_FILES = ("vocab.json", "merges.txt")
MOST_IDS = 1 << 20  # that are learned; several times the published ones, and the library sets memory aside for each

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclasses.dataclass(frozen=True)
class _Split:
    """How a GGUF file's pre-tokenizer cuts a text before merging.

    Attributes:
        digits: whether every digit stands alone before GPT-2's pattern applies.
        pattern: instead of GPT-2's.
        whole: whether a piece that is in the vocabulary is taken whole, whatever the merges say.
    """

    digits: bool = False
    pattern: str | None = None
    whole: bool = False


_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_OTHERS}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_OTHERS}"
# By tokenizer.ggml.pre, as llama.cpp reads them.
_GGUF_SPLITS = {
    "smollm": _Split(digits=True),
    "gpt-2": _Split(),
    "olmo": _Split(),
    "llama-bpe": _Split(pattern=_LLAMA3, whole=True),
    "dbrx": _Split(pattern=_LLAMA3),
    "qwen2": _Split(pattern=_QWEN2),
    "stablelm2": _Split(pattern=_QWEN2),
}
_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type

# A text is cut before every lone space between two other characters, before whitespace that follows an ASCII letter or
# digit, and between an ASCII letter and punctuation (but the apostrophe, of which contractions are made). Every
# pre-tokenizer above cuts there too and looks at nothing beyond, so pieces can be encoded one by one. The first three
# alternatives are the frequent cases of the fourth, for speed. No group is possessive, as Python 3.11.0 to 3.11.4 match
# such groups wrongly; all that can follow one here may be empty, so that nothing is ever tried again.
_MARK = r"!-&(-/:-@\[-`{-~"
_BODY = rf"(?=\S)(?:[^\sA-Za-z]++|[A-Za-z]++(?![{_MARK}]))*[A-Za-z]*+"
PIECE = re.compile(
    rf" [A-Za-z]++(?=[\s{_MARK}])|[,.;:!?]++(?= \S)|\n[A-Za-z]++(?=[\s{_MARK}])"
    rf"|(?:^\s++|\s++(?=\S))?{_BODY}(?:(?! \S)(?<![A-Za-z0-9])\s++{_BODY})*(?:\s++\Z)?|\s++\Z"
)
_KEPT_PIECES = 200_000  # about 40 MB
_LONGEST_KEPT = 40  # characters; longer pieces hardly ever come again


def _byte_of() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for (GPT-2's printable alphabet)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_OF = _byte_of()


class Tokenizer:
    """Maps text to token ids and back.

    Special tokens (end-of-text, the turns of a chat) stand for no text: text that spells one is encoded as the
    text it is, and decoding one gives nothing.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, chat_template: str | None = None, end_name: str | None = None):
        """Wrap a tokenizer of the library.

        Args:
            tokenizer: byte-level BPE; its truncation, padding and treatment of special tokens are reset.
            chat_template: as text; kept for export, never run.
            end_name: spelling of end-of-text where it is none of `END_NAMES`.

        Raises:
            InputError: not a byte-level BPE, or without an end-of-text token.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as text, that is
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token.content: number for number, token in added.items() if token.special}
        ids = tokenizer.get_vocab(with_added_tokens=True)
        if not isinstance(tokenizer.model, models.BPE) or not ids:
            raise InputError("the tokenizer is not a BPE; use a model with a byte-level BPE tokenizer")
        self.size: int = max(ids.values()) + 1
        """Number of ids, special tokens included: the rows of the embedding that are used."""
        self.bytes: list[bytes] = [b""] * self.size
        """What each id stands for, by id; special tokens stand for nothing."""
        for token, number in ids.items():
            if number not in added:
                self.bytes[number] = _bytes_of(token)
            elif not added[number].special:
                self.bytes[number] = added[number].content.encode()
        end_name = next((name for name in (*END_NAMES, end_name) if name in self._special), None)
        if end_name is None:
            raise InputError(
                f"the tokenizer has no end-of-text token ({' or '.join(END_NAMES)}); add one as a special token"
            )
        self.end_name: str = end_name
        """Spelling of end-of-text."""
        self.end: int = self._special[end_name]
        """Id of end-of-text: before every document, nowhere inside one."""
        self.chat_template: str | None = chat_template
        """The files' chat template, as text."""
        about = json.loads(tokenizer.to_str())
        self.separable: bool = _separable(about)
        """Whether the pieces that `PIECE` cuts a text into can be encoded one by one."""
        self.like_gpt2: bool = self.separable and _like_gpt2(about)
        """Whether text is cut by GPT-2's pattern and nothing else but perhaps, before, into single digits."""
        self._kept: dict[str, list[int]] = {}

    @property
    def instruct(self) -> bool:
        """Whether the files have a chat template of the form that `chat` writes (ChatML)."""
        return self.chat_template is not None and {TURN_BEGINS, TURN_ENDS} <= self._special.keys()

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids at which a generated text is over: end-of-text, and the end of a turn for instruct models."""
        return (self.end, self._special[TURN_ENDS]) if self.instruct else (self.end,)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; no id is added, and none is a special token's.

        Raises:
            InputError: a text holds half a surrogate pair, which no UTF-8 can spell.
        """
        if not self.separable:
            return self.encode_whole(texts)
        cut = [PIECE.findall(text) for text in texts]
        if len(self._kept) > _KEPT_PIECES:
            self._kept = {}
        kept = self._kept
        missing = list({piece for pieces in cut for piece in pieces if piece not in kept})
        new = dict(zip(missing, self.encode_whole(missing), strict=True))
        kept.update((piece, ids) for piece, ids in new.items() if len(piece) <= _LONGEST_KEPT)
        return [
            list(itertools.chain.from_iterable([new[piece] if piece in new else kept[piece] for piece in pieces]))
            for pieces in cut
        ]

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what `encode` returns, without cutting the texts into pieces first; slower on much text."""
        try:
            return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        except (TypeError, UnicodeEncodeError) as error:
            raise InputError("a text holds half a surrogate pair; decode its file as UTF-8") from error

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the ids; sampled ids need not be valid UTF-8, and special tokens are nothing."""
        return b"".join([self.bytes[number] for number in ids])

    def round_trips(self, text: str) -> bool:
        """Return whether decoding the text's ids gives its bytes; some published tokenizers normalise."""
        return self.decode(self.encode([text])[0]) == text.encode()

    def chat(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """Return the ids of a conversation in ChatML, up to where the assistant's answer begins.

        Args:
            messages: (role, content), role "system", "user" or "assistant"; contents are text whatever they spell.

        Raises:
            InputError: the tokenizer has no ChatML tokens.
        """
        if not self.instruct:
            raise InputError("the model has no ChatML chat form; use an instruct model such as smollm2, or plain text")
        begins, ends = self._special[TURN_BEGINS], self._special[TURN_ENDS]
        newline, answer = self.encode(["\n", "assistant\n"])
        ids = []
        for turn in self.encode([f"{role}\n{content}" for role, content in messages]):
            ids += [begins, *turn, ends, *newline]
        return [*ids, begins, *answer]

    def check_fits(self, vocabulary: int) -> None:
        """Refuse a model whose embedding does not have this tokenizer's rows.

        Args:
            vocabulary: rows of the model's embedding. Published models round it up, by a few hundred at most.

        Raises:
            InputError: fewer rows than ids, or 1,024 more or beyond.
        """
        if not self.size <= vocabulary < self.size + 1024:
            raise InputError(
                f"the tokenizer has {self.size} ids and the model's vocabulary {vocabulary}; "
                "use the tokenizer that the model was trained with"
            )

    def to_json(self) -> str:
        """Return the tokenizer in the form of a tokenizer.json."""
        return self._tokenizer.to_str()

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of `to_json`, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, folder: pathlib.Path, context: int) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers reads; each beside and renamed.

        Args:
            folder: that exists.
            context: longest sequence of the model, in tokens.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.end_name,
            "eos_token": TURN_ENDS if self.instruct else self.end_name,
            "unk_token": self.end_name,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        for name, text in (
            ("tokenizer.json", self.to_json()),
            ("tokenizer_config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n"),
        ):
            with tempfile.TemporaryDirectory(dir=folder, prefix=".tokenizer-") as beside:
                path = pathlib.Path(beside) / name
                path.write_text(text, encoding="utf-8")
                path.replace(folder / name)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Tokenizer":
        """Learn a tokenizer of `size` ids: 256 bytes, size - 257 merges and end-of-text, the last id.

        Args:
            texts: of the training split only.
            size: from 257 to `MOST_IDS`.

        Raises:
            InputError: another size, or texts too small for so many merges.
        """
        if size < 257:
            raise InputError(f"a vocabulary of {size} cannot hold the 256 bytes and end-of-text; use at least 257")
        if size > MOST_IDS:
            raise InputError(f"a vocabulary of {size} is too large to be learned; use at most {MOST_IDS}")
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size - 1, initial_alphabet=sorted(BYTE_OF), special_tokens=[], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([_special(END_NAMES[0])])
        found = cls(tokenizer)
        if found.size != size:
            raise InputError(
                f"the training text supports only {found.size} ids, not {size}; "
                "give more text or ask for a smaller vocabulary"
            )
        return found

    @classmethod
    def from_json(cls, text: str, chat_template: str | None = None, end_name: str | None = None) -> "Tokenizer":
        """Return the tokenizer that a tokenizer.json describes.

        Raises:
            InputError: not a tokenizer.json, not a byte-level BPE, or without an end-of-text token.
        """
        with _readable("tokenizer.json"):
            tokenizer = tokenizers.Tokenizer.from_str(text)
        return cls(tokenizer, chat_template, end_name)

    @classmethod
    def from_file(cls, path: pathlib.Path) -> "Tokenizer":
        """Return the tokenizer of a tokenizer.json, with what a tokenizer_config.json beside it says.

        Raises:
            InputError: the file is missing, damaged, not a byte-level BPE, or without an end-of-text token.
        """
        chat_template, end_name = _about(path.parent)
        with _readable(path):
            text = path.read_text(encoding="utf-8")
            tokenizer = tokenizers.Tokenizer.from_str(text)
        return cls(tokenizer, chat_template, end_name)

    @classmethod
    def from_folder(cls, folder: pathlib.Path) -> "Tokenizer":
        """Return the tokenizer of a model's folder: its tokenizer.json, or GPT-2's vocab.json and merges.txt.

        Raises:
            InputError: the folder has neither, or they cannot be used.
        """
        if (folder / "tokenizer.json").is_file():
            return cls.from_file(folder / "tokenizer.json")
        vocabulary, merges = (folder / name for name in GPT2_FILES)
        if not vocabulary.is_file() or not merges.is_file():
            raise InputError(f"{folder} has no tokenizer.json and no {' and '.join(GPT2_FILES)}; add the tokenizer")
        with _readable(vocabulary):
            ids, pairs = models.BPE.read_file(str(vocabulary), str(merges))
            tokenizer = _byte_level(ids, pairs, _Split())
        tokenizer.add_special_tokens([_special(name) for name in END_NAMES if name in ids])
        return cls(tokenizer, *_about(folder))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "Tokenizer":
        """Return the tokenizer in a GGUF file's metadata.

        Text is cut as llama.cpp does; it is never normalised, so that every text round-trips.

        Args:
            metadata: plain values by key.

        Raises:
            InputError: no byte-level BPE, incomplete, or cut by rules that are not known here.
        """
        model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
        if model != "gpt2":
            raise InputError(f"the GGUF file's tokenizer is {model!r}; only byte-level BPE (gpt2) can be read")
        if pre not in _GGUF_SPLITS:
            raise InputError(f"the GGUF file's pre-tokenizer is {pre!r}; only {', '.join(_GGUF_SPLITS)} can be read")
        try:
            tokens = metadata["tokenizer.ggml.tokens"]
            kinds = metadata["tokenizer.ggml.token_type"]
            merges = metadata["tokenizer.ggml.merges"]
        except KeyError as error:
            raise InputError(f"the GGUF file's tokenizer has no {error.args[0]}; fetch the file again") from error
        lists = all(isinstance(one, list) for one in (tokens, kinds, merges))
        if not lists or len(tokens) != len(kinds) or not all(isinstance(one, str) for one in (*tokens, *merges)):
            raise InputError("the GGUF file's tokenizer has tokens, types or merges that do not fit; fetch it again")
        pairs = [tuple(merge.split(" ")) for merge in merges]
        with _readable("the GGUF file's metadata"):
            tokenizer = _byte_level({token: number for number, token in enumerate(tokens)}, pairs, _GGUF_SPLITS[pre])
        for token, kind in zip(tokens, kinds, strict=True):
            if kind == _CONTROL:
                tokenizer.add_special_tokens([_special(token)])
            elif kind == _USER_DEFINED:
                tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False)])
        end = metadata.get("tokenizer.ggml.eos_token_id")
        name = tokens[end] if isinstance(end, int) and 0 <= end < len(tokens) else None
        return cls(tokenizer, metadata.get("tokenizer.chat_template"), name)


def _steps(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the steps by which a tokenizer.json cuts text."""
    steps = about["pre_tokenizer"] or {}
    return steps.get("pretokenizers", [steps])


def _separable(about: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer of a tokenizer.json treats the pieces of `PIECE` one by one."""
    steps = _steps(about)
    known = all(map(_cuts_at_spaces, steps)) and any(one["type"] == "Split" or one.get("use_regex") for one in steps)
    plain = about["normalizer"] is None or about["normalizer"]["type"] == "NFC"  # nothing composes with a space
    words = not any(
        token["lstrip"]
        or token["rstrip"]
        or token["single_word"]
        or any(map(str.isspace, token["content"]))
        or len(PIECE.findall(token["content"])) > 1
        for token in about["added_tokens"]
        if not token["special"]
    )
    return known and plain and words


def _like_gpt2(about: Mapping[str, Any]) -> bool:
    """Return whether `like_gpt2` holds for the separable tokenizer of a tokenizer.json."""
    *before, last = (step["type"] for step in _steps(about))
    return (
        set(before) <= {"Digits"} and last == "ByteLevel" and all(token["special"] for token in about["added_tokens"])
    )


def _cuts_at_spaces(step: Mapping[str, Any]) -> bool:
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return True
        case {"type": "Digits", "individual_digits": True}:
            return True
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return pattern in (_LLAMA3, _QWEN2)
    return False


def _bytes_of(token: str) -> bytes:
    try:
        return bytes([BYTE_OF[character] for character in token])
    except KeyError as error:
        raise InputError(
            f"the tokenizer is not byte-level ({token!r} is one of its tokens); "
            "use a model with a byte-level BPE tokenizer"
        ) from error


def _special(name: str) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(name, special=True, normalized=False)


def _byte_level(ids: Mapping[str, int], pairs: Sequence[Any], split: _Split) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(dict(ids), list(pairs), ignore_merges=split.whole))
    steps: list[pre_tokenizers.PreTokenizer] = []
    if split.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if split.pattern is not None:
        steps.append(pre_tokenizers.Split(tokenizers.Regex(split.pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@contextlib.contextmanager
def _readable(what: pathlib.Path | str) -> Iterator[None]:
    """Turn a tokenizer that cannot be read into one sentence; the library raises bare exceptions."""
    try:
        yield
    except Exception as error:
        raise InputError(f"the tokenizer in {what} cannot be read ({error}); fetch it again") from error


def _about(folder: pathlib.Path) -> tuple[str | None, str | None]:
    """Return the chat template and the end-of-text's spelling that a folder's settings give."""
    template, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    about: Any = {}
    with _readable(config):
        if config.is_file():
            about = dict(json.loads(config.read_text(encoding="utf-8")))
        chat = template.read_text(encoding="utf-8") if template.is_file() else about.get("chat_template")
    end = about.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    return (chat if isinstance(chat, str) else None), (end if isinstance(end, str) else None)
