"""Chooses the images that a person should label next."""
