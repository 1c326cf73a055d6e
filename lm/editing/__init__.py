"""Token-level editing of text with a language model as the prior (Zhu et al. 2025, arXiv 2412.14689)."""
