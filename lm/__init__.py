"""Language models: data, tokens, training, evaluation, token-level editing."""
