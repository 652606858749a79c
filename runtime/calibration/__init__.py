"""What calibration means and how it is measured, in NumPy: conformal thresholds, sets, intervals, risk curves."""
