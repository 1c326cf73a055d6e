"""Closed forms, bounds and exact engines for the test error of iterated training."""
