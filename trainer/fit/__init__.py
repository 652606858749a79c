"""Fitting: the loop, one training step, the objective, checkpoints, validation, several devices."""
