"""Fitting: the loop, one step, what is minimised, checkpoints, several devices."""
