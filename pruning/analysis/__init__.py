"""Analysis: whether a criterion's scores order units as their removal does (leave-one-out)."""
