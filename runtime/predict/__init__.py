"""Prediction: which engine and files answer, and how their draws combine."""
