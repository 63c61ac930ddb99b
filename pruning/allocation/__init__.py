"""Allocation: how a budget of weights is spread over the layers: scopes, the ranking they read,
schedules.
"""
