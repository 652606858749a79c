if not __name__.startswith("probrt."):
    raise ImportError("import probrt.trainer, not trainer: the bare folder would be a second copy of every class")
