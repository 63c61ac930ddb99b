"""Lengths that the page's style and its charts share. Nothing is imported for them."""

PANELS = 5  # small histograms in a row
BLOCKS = 112  # pixels of the strip's blocks: as high as an upright name of 14 letters needs
STRIP = BLOCKS + 35  # of the whole strip, with the sentence below
