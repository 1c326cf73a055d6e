"""Prompts in the manner of Cosmopedia (Ben Allal et al. 2024): a kind, an audience, and a human snippet as a seed.

An instruct model is asked for a textbook section, a story or an article that takes its topic from a snippet of human
text; the choices of source, document, snippet and audience are keyed by (seed, id). Other models get no prompt
but end-of-text.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from lm.data.sources import Document
from lm.data.tokenizer import Tokenizer
from lm.errors import InputError

Kind = Literal["textbook", "story", "article"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PLACES = 128  # tokens of a prompt at most
SNIPPET = 64  # tokens of a snippet at most
SHORTEST = 20  # words of a document that can give a snippet

_SYSTEM = re.compile(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", re.DOTALL)

# Short, because small models lose the thread of long requests.
REQUESTS: dict[Kind, str] = {
    "textbook": 'Write a textbook lesson for {audience} on the subject of this text: "{snippet}"',
    "story": 'Write a story {audience} inspired by this text: "{snippet}"',
    "article": 'Write {audience} on the subject of this text: "{snippet}"',
}
AUDIENCES: dict[Kind, tuple[str, ...]] = {
    "textbook": ("young children", "middle school pupils", "high school students", "college students", "professionals"),
    "story": (
        "for small children",
        "told in the first person",
        "about two friends who disagree",
        "set in the distant future",
        "from everyday life",
        "with a surprising end",
    ),
    "article": (
        "a blog post",
        "a newspaper article",
        "an encyclopedia entry",
        "practical advice for beginners",
        "an opinion piece",
    ),
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is asked to continue.

    Attributes:
        id: of the document to be written.
        kind: of text; "unconditional" without a request.
        text: of the request; empty if unconditional.
        source: of the snippet; empty if unconditional.
        document: that the snippet is from; empty if unconditional.
        ids: tokens, special tokens of the chat form included.
    """

    id: str
    kind: Kind | Literal["unconditional"]
    text: str
    source: str
    document: str
    ids: tuple[int, ...]


Asked = Callable[[int], Prompt]  # by the number of the document to be written


def unconditional(tokenizer: Tokenizer) -> Asked:
    """Return prompts of end-of-text alone."""
    return lambda number: Prompt(f"unconditional-{number:06d}", "unconditional", "", "", "", (tokenizer.end,))


def seeded(
    kinds: Sequence[Kind], documents: Mapping[str, Sequence[Document]], tokenizer: Tokenizer, seed: int
) -> Asked:
    """Return a request for each number, made when it is asked for; the kinds take turns.

    Args:
        kinds: at least one.
        documents: by source, from the training split, so that test text stays unseen.
        tokenizer: of an instruct model.
        seed: of the choices.

    Raises:
        InputError: no source, or one without a document long enough for a snippet; the model has no chat form; and
            for a request, if it is too long since the tokenizer cuts text so finely.
    """
    if not documents:
        raise InputError("the list of sources is empty and requests take their topics from one; name it (--sources)")
    usable = {
        name: [one for one in some if len(one.text.split(maxsplit=SHORTEST)) >= SHORTEST]
        for name, some in documents.items()
    }
    for name, some in usable.items():
        if not some:
            raise InputError(f"{name} has no document of {SHORTEST} words for a snippet; leave this source out")
    sources, system = sorted(usable), _system(tokenizer)

    def asked(number: int) -> Prompt:
        kind = kinds[number % len(kinds)]
        name = f"{kind}-{number:06d}"
        random = np.random.default_rng(np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest(), np.uint32))
        source = sources[random.integers(len(sources))]
        document = usable[source][random.integers(len(usable[source]))]
        audience = AUDIENCES[kind][random.integers(len(AUDIENCES[kind]))]
        piece = snippet(document.text, random, tokenizer)
        text = REQUESTS[kind].format(audience=audience, snippet=piece)
        ids = tokenizer.chat([*system, ("user", text)])
        if len(ids) > PLACES:
            raise InputError(
                f"the model's tokenizer needs {len(ids)} tokens for a request and {PLACES} are kept for it; "
                "use a model with a larger vocabulary"
            )
        return Prompt(name, kind, text, source, document.id, tuple(ids))

    return asked


@functools.lru_cache(512)  # a whole novel is cut at once, and asked for again
def _sentences(text: str) -> list[str]:
    """Return the sentences of a text, each of at least one word."""
    return re.split(r"(?<=[.!?;:])\s+", " ".join(text.split()))


def snippet(text: str, random: np.random.Generator, tokenizer: Tokenizer) -> str:
    """Return whole sentences, or else whole words, from a random place of a text, at most `SNIPPET` tokens of them.

    Args:
        text: at least `SHORTEST` words.
        random: that chooses the place.
        tokenizer: that counts.
    """
    sentences = _sentences(text)
    first = int(random.integers(len(sentences)))
    # A snippet at the very end of the text would be a few words.
    while first and len(" ".join(sentences[first : first + SHORTEST]).split()) < SHORTEST:
        first -= 1
    chosen: list[str] = []
    for sentence in sentences[first : first + SNIPPET]:
        if len(tokenizer.encode([" ".join([*chosen, sentence])])[0]) > SNIPPET:
            break
        chosen.append(sentence)
    if chosen:
        return " ".join(chosen)
    words = sentences[first].split()[:SNIPPET]
    while len(words) > 1 and len(tokenizer.encode([" ".join(words)])[0]) > SNIPPET:
        words.pop()
    # A single endless word is cut where its tokens say, to text that is valid.
    ids = tokenizer.encode([" ".join(words)])[0][:SNIPPET]
    return tokenizer.decode(ids).decode(errors="ignore")


def _system(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return the system message that the model's chat template puts first where a conversation has none."""
    found = _SYSTEM.search(tokenizer.chat_template or "")
    return [("system", found[1])] if found and "{" not in found[1] else []
