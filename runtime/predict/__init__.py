"""Chooses the engine and files that answer a request, runs them, and combines their draws."""
