"""The dependency graph, compact (structurally pruned) models, and certificates of equal outputs."""
