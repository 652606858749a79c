"""Predict with a probrt bundle: NumPy and an engine, never TensorFlow unless its engine is asked for."""

if not __name__.startswith("probrt."):
    raise ImportError("import probrt.runtime, not runtime: the bare folder would be a second copy of every class")
