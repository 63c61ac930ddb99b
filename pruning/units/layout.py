"""`Units`: which weights of a model are pruned together. Made once from a recipe and a workpiece.

Everything that asks "what is one unit here, what does it take along, what stays dense and why" asks
this: ranking, masks, coverage, the criterion check. It holds no scores. Units come in sets, named
after a layer. A set either tiles one weight (single weights, n of m, kernels, blocks: the dense
case) or owns slices: lists of (parameter, dimension, indices). Rows and columns are slices of one
layer; channels, neurons and heads are slices of all layers of a dependency group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning import registry
from pruning.coverage import embeddings
from pruning.errors import NotCaptured, OutOfRange, RecipeError, UnknownName
from pruning.evidence import Evidence
from pruning.measurement.counts import output_layer
from pruning.recipe import Recipe
from pruning.structure.dependency_graph import dependency_groups
from pruning.structure.groups import Blocked, DependencyGroups, Group, Member
from pruning.structure.labels import Place
from pruning.structure.unit_masks import masks_without, removed_units
from pruning.types import Masks, Scores, Workpiece
from pruning.units.counts import Side, UnitCounts, count_units
from pruning.units.granularities import Granularity, Slice, Tiling
from pruning.units.pooling import Pooling, pool_group

ANSWERS = "its outputs are the model's answers, one for each class."
LOOKED_UP = "it is an embedding: set embeddings in the recipe to prune it."
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class SliceSets:
    """Sets of units that own slices, numbered through: set after set.

    groups: each set's name, its units and the (parameter, dimension) that it owns indices of.
    unit_of_index: (parameter, dimension) -> the unit of each index, -1 for none. first_name: of
        tied
    parameters. pruned: numbers of the groups whose units the granularity prunes.
    """

    groups: tuple[Group, ...] = ()
    unit_of_index: Mapping[Place, NDArray[np.int64]] = field(default_factory=dict)
    first_name: Mapping[str, str] = field(default_factory=dict)
    pruned: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        return sum(group.units for group in self.groups)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(groups + 1,) the first unit of each group, and the end."""
        sizes = [group.units for group in self.groups]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @property
    def sets(self) -> dict[str, int]:
        """Name of each set that is pruned -> its number."""
        return {self.groups[number].name: number for number in self.pruned}


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one model by one granularity.

    shapes: of every prunable weight. tilings: weight -> its units, in the dense case; slices: all
    others. fixed: weights whose outputs are no unit that may be pruned -> why, a clause. leaders:
    weight -> the set that its outputs are pruned with. skipped: weights that the criterion has
    nothing to say of -> why. output_dims: weight -> the dimension its outputs lie on, where that is
    not the first. why_by_layer: why a granularity of dependency groups takes its units layer by
    layer here; None where it does not, or is none.
    """

    shapes: dict[str, torch.Size]
    tilings: dict[str, Tiling]
    slices: SliceSets
    pooling: Pooling
    fixed: dict[str, str]
    leaders: dict[str, str]
    skipped: dict[str, str]
    output_dims: dict[str, int] = field(default_factory=dict)
    multiple: int = 1
    why_by_layer: str | None = None

    @property
    def names(self) -> list[str]:
        """The sets of units, in order."""
        return [*self.tilings, *self.slices.sets]

    def size(self, name: str) -> int:
        """Units of a set."""
        if name in self.tilings:
            return self.tilings[name].units
        return self.slices.groups[self.slices.sets[name]].units

    def touched(self, name: str) -> set[str]:
        """The prunable weights that a set's units own parts of."""
        if name in self.tilings:
            return {name}
        members = self.slices.groups[self.slices.sets[name]].members
        return {member.parameter for member in members} & self.shapes.keys()

    def covered(self, exclude: Collection[str] = ()) -> set[str]:
        """The weights that a recipe may prune: its sparsity is a share of these.

        A set is closed as a whole: by its name, by one excluded weight, or where the criterion has
        nothing to say of any of its weights.
        """
        covered = set()
        for name in self.names:
            touched = self.touched(name)
            if (
                name not in self.fixed
                and not touched & set(exclude)
                and touched - set(self.skipped)
            ):
                covered |= touched
        return covered

    def kept_whole(self, exclude: Collection[str] = ()) -> dict[str, str]:
        """Weights that nothing is pruned of -> why."""
        covered = self.covered(exclude)
        return {
            name: self.fixed.get(self.leaders.get(name, name), "it is kept dense.")
            for name in self.shapes
            if name not in covered
        }

    # ------------------------------------------------------------ scores -> units

    def pool(self, scores: Scores, keep: Masks | None = None) -> dict[str, Tensor]:
        """Set -> (units,) one score each, in flat order; -inf for units that `keep` has removed.

        Sets that none of the scores is about are left out.
        """
        pooled = {}
        for name, tiling in self.tilings.items():
            values = tiling.pool(scores[name].float())
            if keep is not None:
                values = values.masked_fill(tiling.pool(keep[name].float()) <= 0, -torch.inf)
            pooled[name] = values
        # A weight under two names is scored once, under its first.
        slices = self.slices
        by_first_name = {
            slices.first_name.get(name, name): values
            for name, values in scores.items()
            if name not in self.skipped
        }
        # All at once: which units are removed whole takes one look at every mask.
        removed = None if keep is None else torch.from_numpy(removed_units(slices, keep))
        starts = slices.starts
        for name, number in slices.sets.items():
            group, start = slices.groups[number], int(starts[number])
            unit_of = {
                (m.parameter, m.dim): slices.unit_of_index[m.parameter, m.dim] - start
                for m in group.members
            }
            pooled_group = pool_group(group, unit_of, by_first_name, self.pooling, self.output_dims)
            if pooled_group is None:  # the criterion skips every weight of the set
                continue
            if removed is not None:
                pooled_group = pooled_group.masked_fill(
                    removed[start : start + group.units], -torch.inf
                )
            pooled[name] = pooled_group
        return pooled

    # ------------------------------------------------------------ units by their numbers

    def named(self, recipe: Recipe) -> dict[str, list[int]]:
        """Set -> its units that the recipe names, ascending.

        A layer whose outputs another set holds names that set's units, in the order of its own
        outputs. Raises UnknownName for a layer there is none of, OutOfRange for a unit that it does
        not have or that stays, RecipeError where none would be kept.
        """
        named: dict[str, set[int]] = {}
        for layer, numbers in recipe.removed.items():
            name = self.leaders.get(layer, layer)
            if name not in self.names and layer not in self.shapes:
                raise UnknownName("layer to remove units of", layer, {*self.names, *self.shapes})
            if why := self._why_kept(name, recipe):
                raise RecipeError(
                    f"Units of {layer} cannot be removed by {recipe.granularity}: {why} "
                    "Take the layer out of `removed`."
                )
            units = self.numbers(layer)
            if numbers[-1] >= len(units):
                raise OutOfRange(
                    f"A unit to remove of {layer}",
                    numbers[-1],
                    f"from 0 to {len(units) - 1:,}: it has {len(units):,} by {recipe.granularity}",
                )
            named.setdefault(name, set()).update(units[number] for number in numbers)
        for name, units_of_set in named.items():
            kept = self.size(name) - len(units_of_set)
            if kept < recipe.min_units:
                raise RecipeError(
                    f"{len(units_of_set):,} of the {self.size(name):,} units of {name} are named, "
                    f"and every layer keeps at least {recipe.min_units:,}: name fewer."
                )
        return {name: sorted(numbers) for name, numbers in named.items()}

    def _why_kept(self, name: str, recipe: Recipe) -> str:
        """Why a set's units may not be removed, a sentence; "" where they may."""
        if name in self.fixed:
            return self.fixed[name]
        if name not in self.names:
            return "it has no units of its own."
        touched = self.touched(name)
        if excluded := touched & set(recipe.exclude):
            return f"the recipe leaves {min(excluded)} dense, which is part of them."
        if not touched - set(self.skipped):
            return f"{recipe.criterion} has nothing to say of it."
        return ""

    def numbers(self, layer: str) -> list[int]:
        """The units of the set that a layer's outputs belong to, in the order of the outputs."""
        name = self.leaders.get(layer, layer)
        place = (layer, self.output_dims.get(layer, 0))
        if name == layer or place not in self.slices.unit_of_index:
            return list(range(self.size(name)))
        start = int(self.slices.starts[self.slices.sets[name]])
        # One unit may be several outputs: the first of them says where it stands.
        order = dict.fromkeys((self.slices.unit_of_index[place] - start).tolist())
        return [unit for unit in order if 0 <= unit < self.size(name)]

    # ------------------------------------------------------------ units -> masks

    def masks(self, kept: Mapping[str, Tensor], model: nn.Module) -> Masks:
        """Masks of the `kept` units: of every prunable weight and all that depends on it.

        kept: set -> (units,) True = keep; sets left out lose nothing.
        """
        slices, starts = self.slices, self.slices.starts
        removed_slices = np.zeros(slices.units, bool)
        for name, number in slices.sets.items():
            if name in kept:
                removed_slices[starts[number] : starts[number + 1]] = ~kept[name].numpy()
        # Also of parameters whose sets lose nothing, so that masks of two steps match.
        by_slices = masks_without(slices, removed_slices, model) if slices.groups else {}
        masks: Masks = {}
        for name, shape in self.shapes.items():
            if name in self.tilings and name in kept:
                masks[name] = self.tilings[name].spread(kept[name])
            elif name in by_slices:
                masks[name] = by_slices[name]
            else:
                masks[name] = torch.ones(shape, dtype=torch.bool)
        return masks | by_slices  # biases and norms, which are no prunable weights, come last

    def owned(self, name: str, unit: int, model: nn.Module) -> dict[str, Tensor]:
        """Parameter -> True for the weights that are removed with one unit of a set."""
        if name in self.tilings:
            tiling = self.tilings[name]
            return {name: tiling.spread(torch.arange(tiling.units) == unit)}
        number = self.slices.sets[name]
        unit += int(self.slices.starts[number])
        owned: dict[str, Tensor] = {}
        for member in self.slices.groups[number].members:
            shape = model.get_parameter(member.parameter).shape
            whole = owned.setdefault(member.parameter, torch.zeros(shape, dtype=torch.bool))
            indices = np.flatnonzero(
                self.slices.unit_of_index[member.parameter, member.dim] == unit
            )
            whole.index_fill_(member.dim, torch.from_numpy(indices), True)
        return owned

    # ------------------------------------------------------------ what units cost

    def uneven_costs(self) -> dict[str, NDArray[np.int64]]:
        """Set -> (units,) weights removed with each unit, where they differ (blocks at an edge)."""
        costs = {}
        for name, tiling in self.tilings.items():
            cost = tiling.cost
            # Equal costs are one number, and a faster way through the scopes.
            if isinstance(cost, Tensor) and bool((cost != cost[0]).any()):
                costs[name] = cost.numpy()
        return costs

    def counts(self) -> UnitCounts:
        """What the units take along, for counting without the model."""
        owned = owned_indices([self.slices.groups[number] for number in self.slices.pruned])
        for name, tiling in self.tilings.items():
            cost = tiling.cost
            # The most of any unit: uneven sets are counted one by one from `uneven_costs`.
            owned[name, -1] = {name: int(cost.max()) if isinstance(cost, Tensor) else cost}
        return count_units(self.names, self.shapes, owned)


def owned_indices(groups: Iterable[Group]) -> dict[Side, dict[str, int]]:
    """(parameter, dimension) -> group -> how many indices one of its units owns."""
    owned: dict[Side, dict[str, int]] = {}
    for group in groups:
        for member in group.members:
            owned.setdefault((member.parameter, member.dim), {})[group.name] = member.each
    return owned


# ---------------------------------------------------------------- made from recipe and model


def lay_out(recipe: Recipe, work: Workpiece, evidence: Evidence | None = None) -> Units:
    """The units of a recipe's granularity in a model, without those that its criterion skips.

    evidence: of the same workpiece and the recipe's seed, where there is one already.
    Raises NotFinite or NothingToPrune for a model that cannot be pruned.
    """
    evidence = evidence or Evidence.of(work, seed=recipe.seed)
    # The one look at every weight: from here on only names and shapes are asked for.
    weights = evidence.weights
    make = registry.get("granularity", recipe.granularity)
    form: Granularity = make(**recipe.granularity_options)
    # Asked here and not while scoring, so that coverage is known without scores.
    skips = registry.companion(recipe.criterion, "skips")
    skipped = skips(evidence) if skips else {}
    if not recipe.embeddings:
        # Their scores say nothing of a channel either: rare words have small gradients.
        skipped |= dict.fromkeys(embeddings(work.model), LOOKED_UP)
    if not form.kinds:
        return _layer_by_layer(form, work, weights, skipped, None)
    if work.example is None:
        why = "the model has no example input to follow through it."
        return _layer_by_layer(form, work, weights, skipped, why)
    try:
        graph = dependency_groups(work.model, work.example)
    except NotCaptured as error:
        return _layer_by_layer(form, work, weights, skipped, str(error))
    pooling = form.pooling
    tags = registry.entry("criterion", recipe.criterion).tags
    fits = tags.get("granularities")
    if tags.get("reads"):
        # It scores what a layer reads: what all readers lose is the sum of it.
        pooling = pooling._replace(how="sum", over="columns", whole=True)
    elif fits is not None and "weight" not in fits:
        # It scores whole outputs: the weights that read them say nothing of them.
        pooling = pooling._replace(over="rows", whole=True)
    return _by_dependency_group(form, pooling, graph, work.model, weights, skipped)


def _layer_by_layer(
    form: Granularity,
    work: Workpiece,
    weights: Mapping[str, Tensor],
    skipped: dict[str, str],
    why: str | None,
) -> Units:
    """Units that stay inside one layer, or inside the queries, keys and values of one attention."""
    fitted = {name: form.fit(work.model, name) for name in weights}
    # The granularity's reason is the plainer one where both have one.
    fixed = skipped | {name: fit for name, fit in fitted.items() if isinstance(fit, str)}
    output = output_layer(work) if form.whole_outputs else None
    if output is not None and output in weights and output not in fixed:
        fixed[output] = ANSWERS
    slices = {name: fit for name, fit in fitted.items() if isinstance(fit, Slice)}
    leaders = {name: fit.leader for name, fit in slices.items() if fit.leader}
    # A set is closed as a whole: where keys may not be pruned, their queries may not either.
    fixed |= {leader: fixed[name] for name, leader in leaders.items() if name in fixed}
    return Units(
        shapes={name: weight.shape for name, weight in weights.items()},
        tilings={name: fit for name, fit in fitted.items() if isinstance(fit, Tiling)},
        slices=_slice_sets(slices, work.model, form.whole_outputs),
        pooling=Pooling(form.pooling.how),  # normalising is for comparing dependency groups
        fixed=fixed,
        leaders=leaders,
        skipped=skipped,
        why_by_layer=why,
    )


def _slice_sets(slices: Mapping[str, Slice], model: nn.Module, with_bias: bool) -> SliceSets:
    """A set for each weight that leads, with those that follow it and their biases."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    groups: list[Group] = []
    places: dict[Place, NDArray[np.int64]] = {}
    start = 0
    # Keys and values of an attention follow its queries: head h is one unit of all three.
    for leader in [name for name, fit in slices.items() if not fit.leader]:
        followers = [name for name, fit in slices.items() if fit.leader == leader]
        units = int(slices[leader].unit.max()) + 1
        members = []
        for name in (leader, *followers):
            dim, unit, _ = slices[name]
            along = [(name, dim)]
            # Also "in_proj_weight" and "in_proj_bias" of packed attention.
            bias = name.removesuffix("weight") + "bias"
            if with_bias and bias in parameters and len(parameters[bias]) == len(unit):
                along.append((bias, 0))
            for place in along:
                places[place] = start + unit.numpy()
                members.append(Member(*place, len(unit) // units))
        groups.append(Group(leader, "slices", units, tuple(members)))
        start += units
    return SliceSets(tuple(groups), places, {}, tuple(range(len(groups))))


def _by_dependency_group(
    form: Granularity,
    pooling: Pooling,
    graph: DependencyGroups,
    model: nn.Module,
    weights: Mapping[str, Tensor],
    skipped: dict[str, str],
) -> Units:
    """Units of the dependency groups of the granularity's kinds, in all layers that hold them."""
    pruned = tuple(i for i, group in enumerate(graph.groups) if group.kind in form.kinds)
    sets = {graph.groups[i].name for i in pruned}
    set_of: dict[str, str] = {}  # weight -> the set that its outputs (dimension 0) belong to
    kind_of: dict[str, str] = {}  # weight -> the kind of group that its outputs belong to
    for number, group in enumerate(graph.groups):
        for member in group.members:
            if member.dim == 0:
                kind_of[member.parameter] = group.kind
                if number in pruned:
                    set_of[member.parameter] = group.name
    # Dimension 0 holds a layer's outputs; what blocks its inputs is another layer's affair.
    blocked = {block.parameter: block for block in graph.blocked if block.dim == 0}
    fixed = {
        name: _why_fixed(form, bool(pruned), kind_of.get(name), blocked.get(name))
        for name in weights
        if name not in sets and name not in set_of
    }
    modules = model.named_modules()
    transposed = [path for path, module in modules if isinstance(module, TRANSPOSED)]
    return Units(
        shapes={name: weight.shape for name, weight in weights.items()},
        tilings={},
        slices=SliceSets(graph.groups, graph.unit_of_index, graph.first_name, pruned),
        pooling=pooling,
        # A group named after an embedding holds what adds into it: it is no embedding itself.
        fixed=fixed
        | {name: why for name, why in skipped.items() if name in sets and why != LOOKED_UP},
        leaders={name: set_of[name] for name in weights if name in set_of and name not in sets},
        skipped=skipped,
        output_dims={f"{path}.weight" if path else "weight": 1 for path in transposed},
        multiple=form.multiple,
    )


def _why_fixed(form: Granularity, any_set: bool, kind: str | None, blocked: Blocked | None) -> str:
    """Why no unit holds a weight's outputs. kind: of the dependency groups that do hold them."""
    if "heads" in form.kinds:
        return (
            "its weights belong to no attention head." if any_set else "the model has no attention."
        )
    if kind is not None:
        return f"its outputs are {kind} of attention: they are pruned by granularity head."
    if blocked is None:
        return "it has one output, and no layer is emptied."
    if blocked.operation == "output":
        return ANSWERS
    return f"{blocked.why} ({blocked.operation})."
