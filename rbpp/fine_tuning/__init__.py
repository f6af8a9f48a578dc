"""Generalization bounds of real fine-tunes, from their losses on a supersample."""
