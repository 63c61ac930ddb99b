"""Sweeps: techniques × levels of sparsity × seeds (× models), as one picture. No torch.

plan: what is crossed; presets: plans for common questions; sweeps: a plan on its way through the
store; table: a run as a row of figures; shipped: sweeps that come with the sample models; make:
makes those; goal, search: the best recipe for a goal, by Optuna; driver: searches that a page asked
for.
"""
