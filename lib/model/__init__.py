"""Learning: network, optimiser, batches, training loop, sampling, rewards. Knows datasets, but no stage."""
