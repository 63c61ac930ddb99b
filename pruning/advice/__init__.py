"""Should this model be pruned at all? A target, measured rows, and an answer that cites them.

rows: everything that was measured of a model, wherever it was; target: what is asked for; advise:
the answer; shipped: alternatives that come with the sample models, which `make` makes. No torch.
"""
