"""Text to tokens: fetching, sources, readers, tokenizer, token files, mixtures."""
