"""The training config: its schema, its settings, and the explanation of its faults."""
