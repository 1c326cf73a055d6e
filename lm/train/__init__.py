"""Training: optimiser, loss, loop, checkpoints, several processes."""
