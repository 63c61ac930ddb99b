"""Coupled channels, physically smaller models, and certificates that they compute the same."""
