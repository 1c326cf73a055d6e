"""Figures, drawn from result files only."""
