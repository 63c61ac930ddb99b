"""Rules: how labels pass through ATen operations.

An operation without a rule blocks the labels that reach it, and says so.
"""

from pruning.structure.rules import contract, convolve, elementwise, lookup, moves, norms, reduce

__all__ = ["contract", "convolve", "elementwise", "lookup", "moves", "norms", "reduce"]
