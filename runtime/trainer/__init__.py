"""Training on the chip: which operations lie on the path that is trained, and what a step of it does."""
