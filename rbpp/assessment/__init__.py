"""Estimators on samples of rows: divergences and entropies, without a model of the source."""
