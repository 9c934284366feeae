"""Training: one loop for every task, with its optimiser, sharding, checkpoints and scalars."""
