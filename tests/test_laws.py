"""The laws of DESIGN.md, for every member of every registry, on every toy."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

import pruning
from pruning import events, masks, registry
from pruning.errors import ModelError, RecipeError
from pruning.evidence import Evidence
from pruning.granularity import fitted
from pruning.recipe import Recipe
from pruning.schedules import grow
from pruning.scope import Ranked
from pruning.types import Workpiece, prunable
from tests.toys import TOYS, toy

CRITERIA = registry.names("criterion")
GRANULARITIES = registry.names("granularity")
SCOPES = registry.names("scope")
SCHEDULES = registry.names("schedule")
PAIRS = [(c, g) for c in CRITERIA for g in GRANULARITIES if not registry.misfit(c, g)]
MISFITS = [(c, g) for c in CRITERIA for g in GRANULARITIES if registry.misfit(c, g)]
TOGETHER = ("global", "erk", "lamp", "by_sensitivity")  # scopes that spend one budget over all layers
