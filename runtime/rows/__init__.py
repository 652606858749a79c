"""Rows: the prediction of each image as a row, written to a file and read back."""
