"""Rows: what a prediction says of each image, written and read back."""
