"""What a recipe keeps at each stop of its share, for the sliders that look it up."""

from __future__ import annotations

import streamlit as st

from dashboard.charts import preview
from pruning.allocation.ranking import Ranking
from pruning.recipe import Recipe


def stop_table(ranking: Ranking, folder: str, recipe: Recipe) -> preview.StopTable:
    """One table for each selection: moving a slider asks nothing anew. folder: of the scores."""
    return _table(ranking, folder, preview.selection(recipe).to_json())


# The folder stands for the ranking, which cannot be hashed; the selection is text, which can.
@st.cache_resource(max_entries=64)
def _table(_ranking: Ranking, folder: str, selection: str) -> preview.StopTable:
    recipe = Recipe.from_json(selection)
    stops = preview.STOPS if recipe.budgeted else (recipe.sparsity,)
    return preview.stop_table(_ranking, recipe, stops)
