"""Mutual information of paired rows when no conditional density is known."""
