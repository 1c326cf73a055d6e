"""Measured speed and memory; each module prints its table and writes results/bench/."""
