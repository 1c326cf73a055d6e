"""Literal simulations of iterated training, independent of theory/."""
