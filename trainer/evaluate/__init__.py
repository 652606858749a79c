"""Evaluation: what a trained model's answers are worth on held-out examples and on inputs of another kind."""
