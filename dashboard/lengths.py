"""Lengths that the page's style and its charts share. Nothing is imported for them."""

PANELS = 5  # small histograms in a row
