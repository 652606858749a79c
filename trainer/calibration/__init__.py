"""Calibration on held-out examples: temperatures, conformal thresholds, risk curves."""
