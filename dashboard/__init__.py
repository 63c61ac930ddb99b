"""The page of the Pruning Workbench. `dashboard.charts` draws its charts in a notebook too."""
