"""Greedy decoding of SmolLM2 against transformers' generate."""

import pytest
import torch
import transformers

from lm.generation import decode
from lm.generation.sampling import SamplingConfig
from lm.weights.huggingface import write
from lm.weights.load import load

pytestmark = pytest.mark.peers

QUESTIONS = (
    "Why is the sky blue?",
    "Write a story about a fox and 3 hens.",
    "What is a prime number?",
)
TOKENS = 60


def test_greedy_text_is_that_of_transformers(tmp_path):
    pretrained = load("smollm2")
    tokenizer = pretrained.tokenizer
    write(tmp_path, pretrained.model, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    asked = [tokenizer.chat([("user", question)]) for question in QUESTIONS]
    request = decode.Request(SamplingConfig(temperature=0), TOKENS, tokenizer.stops, tokenizer.size)
    found = decode.decode(decode.prepare(pretrained.model), asked, QUESTIONS, request, 0, prompt_places=32, rows=4)
    for prompt, one in zip(asked, found, strict=True):
        ids = peer.generate(
            torch.tensor([prompt]),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=list(tokenizer.stops),
            pad_token_id=tokenizer.end,
        )[0, len(prompt) :].tolist()
        wanted = [number for number in ids if number not in tokenizer.stops]
        assert one.tokens.tolist() == wanted
        assert (one.finished == "end") == (len(wanted) < len(ids))
