"""Which layers can give: each pruned alone, at every ratio. `measure.sensitivity` is the way in; planning needs no torch."""
