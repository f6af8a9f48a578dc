"""Gaussian mixtures: their distribution, posteriors over them, divergences between them."""
