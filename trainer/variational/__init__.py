"""Variational inference over weights: posteriors, priors, handlers, estimators, noise."""
