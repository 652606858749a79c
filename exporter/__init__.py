if not __name__.startswith("probrt."):
    raise ImportError("import probrt.exporter, not exporter: the bare folder would be a second copy of every class")
