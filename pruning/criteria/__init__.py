"""One file for each technique: a function `Evidence -> Scores`, higher = keep. The folder is discovered."""
