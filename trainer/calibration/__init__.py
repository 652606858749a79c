"""Calibration on held-out examples: temperatures and scales, conformal thresholds, risk curves."""
