"""Units: which weights are pruned together. `layout.lay_out` makes one `Units` of a recipe and a
model.
"""
