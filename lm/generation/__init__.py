"""Text from a model: sampling, decoding with a key-value cache, prompts, corpora."""
