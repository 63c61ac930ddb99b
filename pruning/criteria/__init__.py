"""Importance criteria: one file each, a function `Evidence -> Scores`, higher = keep.

The folder is discovered: a new file is a new criterion.
"""
