"""Posterior of a process's world and latent sites, given rows that its owner has."""
