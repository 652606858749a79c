"""The training config: its schema, its settings, and what is wrong with one."""
