"""Reconstruction: after pruning, each layer is solved anew so that it gives what it gave before.

Dense and pruned network run side by side, operation by operation, on a few hundred unlabelled
training examples. Where the pruned one comes to a layer, its weights are solved on the inputs that
it really gets now, towards the outputs of the dense one: later layers so make up for what earlier
ones could not. A convolution without a bias moves the mean of the BatchNorm behind it. The last
layer of a residual sum is solved towards the whole sum. Norms (LayerNorm, GroupNorm, BatchNorm that
follows no layer) get their scales and shifts by the same rule.

Layer after layer on the pruned network's own inputs: He et al., 2017,
https://arxiv.org/abs/1707.06168, and ThiNet, Luo et al., 2017, https://arxiv.org/abs/1707.06342.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from pruning.adapted import Widened, fit_to, precision
from pruning.devices import device_of, double, with_device
from pruning.errors import DataError, Stopped
from pruning.evidence import evaluating
from pruning.evidence.activations import Layout
from pruning.structure.capture import Example, tensors_of
from pruning.structure.captured import Captured
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.propagate import Args, arguments, operation
from pruning.training.finetune import Stop
from pruning.training.layer_inputs import (
    CONVOLUTIONS,
    choose,
    inputs_at,
    outputs_at,
    positions,
)
from pruning.training.least_squares import solve
from pruning.types import Batches, Inputs, Masks, count, parts_of, take

EXAMPLES = 512
"""Training examples, at most."""

ROWS = 12_000
"""Rows of one least-squares problem, at most: places are drawn at random where there are more."""

NUMBERS = 2**25
"""Numbers of a problem's unfolded inputs, at most: 256 MB in float64."""

LIVE_BYTES = 2**30
"""Of values that later operations still read, of both networks and all examples, at most."""

RIDGE = 1e-3
"""Share of the inputs' mean square that draws towards the old weights."""

SMALLEST = 1e-3
"""Share of a BatchNorm's largest scale below which nothing is asked of a channel through it."""

NORMS = ("layer_norm", "group_norm", "rms_norm")
UNMOVED = ("whole", "dropout", "alias", "contiguous", "clone", "detach")
"""Operations that give back what they read."""

Values = dict[Node, Any]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """layers: parameter name -> (before, after), the squared error of its layer's outputs over
    their variance; examples: that were run; left: weights that were not solved -> why, a clause.
    """

    layers: dict[str, tuple[float, float]]
    examples: int
    left: dict[str, str]


def reconstruct(
    model: nn.Module,
    reference: nn.Module,
    masks: Masks,
    data: Batches,
    example: Example | None = None,
    *,
    ridge: float = RIDGE,
    seed: int = 0,
    stop: Stop | None = None,
) -> Reconstruction:
    """Solve the layers of `model` anew, in place, so that it gives what `reference` gives.

    model: pruned by `masks` (True = keep); what they prune stays zero. reference: the same
    architecture before that pruning; left as it is. data: training examples, whose labels are not
    looked at. example: one input to follow through the model; where None, the data's own.

    A layer without pruned weights whose inputs are those of the reference is left as it is: where
    nothing was pruned, nothing changes.
    Raises NotCaptured for a model that cannot be followed, DataError for fewer than two examples,
    Stopped.
    """
    if data.examples < 2:
        raise DataError(
            "Reconstruction needs at least 2 training examples, and there is 1: give more, or "
            "switch it off."
        )
    few = take(data.x, slice(2))
    with Widened(model, reference), evaluating(model), evaluating(reference), torch.no_grad():
        kind = precision(model)
        seen = few if example is None else example
        seen = tuple(fit_to(part, kind) for part in parts_of(seen))
        captured = dependency_graph(model, seen).captured
        both = _Networks(captured, model, reference, masks, ridge, seed)
        sample = data.sample(_examples(both, few), seed)
        both.run(sample.x, stop)
    return Reconstruction(both.layers, sample.examples, both.left)


def _examples(both: _Networks, x: Inputs) -> int:
    """How many examples fit into LIVE_BYTES, as measured on a few."""
    live = peak = 0
    values: Values = {}
    for node in both.nodes:
        values[node] = both.value(node, values, both.old, x)
        live += _bytes(node, values[node])
        peak = max(peak, live)
        for read in both.last_reads.get(node, ()):
            live -= _bytes(read, values.pop(read))
    each = max(1, 2 * peak // count(x))  # of both networks
    return max(2, min(EXAMPLES, LIVE_BYTES // each))


def _bytes(node: Node, value: Any) -> int:
    return value.nbytes if isinstance(value, Tensor) and node.op != "get_attr" else 0


@dataclass
class _Networks:
    """The pruned and the dense network on their way through one graph. A class because every layer
    reads all of this.

    new, old: their parameters and buffers by name; pruned, dense: node -> its value in each, the
    very same tensor where they do not differ so far.
    """

    captured: Captured
    model: nn.Module
    reference: nn.Module
    masks: Masks
    ridge: float
    seed: int
    layers: dict[str, tuple[float, float]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    pruned: Values = field(default_factory=dict)
    dense: Values = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.new, self.old = tensors_of(self.model), tensors_of(self.reference)
        self.generator = torch.Generator().manual_seed(self.seed % 2**63)
        self.kind, self.there = precision(self.model), device_of(self.model)
        *self.nodes, _ = self.captured.graph.graph.nodes  # without the output
        self.inputs = [node for node in self.nodes if node.op == "placeholder"]
        place = {node: i for i, node in enumerate(self.nodes)}
        # Values are dropped after their last reader; what the model returns is not needed.
        self.last_reads: dict[Node, list[Node]] = {}
        self.reads: Counter[str] = Counter()  # of each tensor, by the first of its names
        for node in self.nodes:
            users = [user for user in node.users if user in place]
            last = max(users, key=place.__getitem__, default=node)
            self.last_reads.setdefault(last, []).append(node)
            if node.op == "get_attr":
                self.reads[self._first_name(node)] += len(users)

    def _first_name(self, node: Node) -> str:
        return self.captured.first_name.get(str(node.target), str(node.target))

    # ------------------------------------------------------------ side by side

    def run(self, x: Inputs, stop: Stop | None) -> None:
        """Follow both networks through the graph, solving each layer where it is met."""
        for node in self.nodes:
            if stop is not None and stop():
                raise Stopped("Stopped while layers were reconstructed.")
            self.dense[node] = self.value(node, self.dense, self.old, x)
            if node.op != "get_attr" and all(map(self._same, node.all_input_nodes)):
                self.pruned[node] = self.dense[node]
            else:
                if node.op == "call_function":
                    self._solve(node)
                self.pruned[node] = self.value(node, self.pruned, self.new, x)
            for read in self.last_reads.get(node, ()):
                del self.pruned[read], self.dense[read]

    def value(self, node: Node, values: Values, tensors: Tensors, x: Inputs) -> Any:
        """What a node gives, from the values before it."""
        if node.op == "placeholder":
            part = parts_of(x)[self.inputs.index(node)]
            return fit_to(part.to(self.there), self.kind)
        if node.op == "get_attr":
            name = str(node.target)
            # What is no parameter or buffer was recorded with the graph.
            if name in tensors:
                return tensors[name]
            recorded = _recorded(self.captured.graph, name)
            return recorded.to(self.there) if isinstance(recorded, Tensor) else recorded
        # The graph was recorded on the CPU, and names it wherever it makes a tensor.
        args: Any = fx.node.map_arg(with_device(node.args, self.there), values.__getitem__)
        kwargs: Any = fx.node.map_arg(with_device(node.kwargs, self.there), values.__getitem__)
        if getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            # What it writes into may be the same tensor in both networks.
            args = (args[0].clone(), *args[1:])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _same(self, node: Node) -> bool:
        """Whether a node has the same value in both networks."""
        pruned, dense = self.pruned[node], self.dense[node]
        if node.op == "get_attr":  # each network's own tensor
            return torch.equal(pruned, dense)
        return pruned is dense

    def _solve(self, node: Node) -> None:
        """Solve a node's weights, where it is a layer or a norm of its own."""
        # Behind a layer, BatchNorm gives what that layer was solved for.
        own_norm = operation(node) == "batch_norm" and not _is_layer(node.args[0])
        if _is_layer(node):
            self._solve_layer(node, arguments(node))
        elif operation(node) in NORMS or own_norm:
            self._solve_norm(node, arguments(node))

    # ------------------------------------------------------------ convolutions, linear layers

    def _solve_layer(self, node: Node, args: Args) -> None:
        name = self._own(args["weight"])
        if name is None:
            return
        weight = self.new[name]
        x, output = self.pruned[args["input"]], self.dense[node]
        convolution = operation(node) in CONVOLUTIONS
        if convolution and x.dim() != weight.dim():
            self.left[name] = "its input has no batch dimension."
            return
        groups = int(args["groups"]) if convolution else 1
        layout = Layout(groups)
        inputs = weight[0].numel() * groups  # of all groups, at one place
        most = max(2, min(ROWS, NUMBERS // inputs))
        places = choose(positions(output, convolution), most, self.generator).to(x.device)
        bias = self._bias(args)
        norm = None if bias is not None else self._norm_behind(node)
        seen = inputs_at(args, x, weight, output, places)
        targets = self._targets(node, convolution, places)
        solved = solve(
            layout.matrices(weight),
            (weight.new_zeros(len(weight)) if bias is None else bias).reshape(groups, -1),
            layout.matrices(self._keep(name, weight)),
            seen.transpose(0, 1),
            targets.reshape(len(places), groups, -1).transpose(0, 1),
            ridge=self.ridge,
            intercept=bias is not None or norm is not None,
        )
        self.layers[name] = (solved.before, solved.after)
        weight.copy_(layout.weight(solved.weight, weight.shape))
        if bias is not None:
            bias.copy_(solved.bias.flatten())
        elif norm is not None:
            # BatchNorm subtracts its mean: a bias before it is a mean that is smaller by it.
            mean = self.pruned[norm["running_mean"]]
            mean.sub_(solved.bias.flatten().to(mean.device))

    def _targets(self, node: Node, convolution: bool, places: Tensor) -> Tensor:
        """(places, units) what a layer should give for all that follows to be the dense network's.

        Behind a BatchNorm that is what the BatchNorm gives; in a sum whose other part is known
        already, it is the sum.
        """
        plain = double(outputs_at(self.dense[node], places, convolution))
        norm = self._norm_behind(node)
        behind = node if norm is None else next(iter(node.users))
        lacking = self._lacking(behind, self.dense[node].shape)
        wanted = plain
        if norm is not None:
            scale, shift = _affine(norm, self.dense)
            wanted = wanted * scale + shift
        if lacking is not None:
            wanted = wanted + outputs_at(lacking, places, convolution)
        if norm is None:
            return wanted
        scale, shift = _affine(norm, self.pruned)
        # Through a scale of nearly 0 nothing can be made up for.
        tiny = scale.abs() <= SMALLEST * scale.abs().max()
        return torch.where(tiny, plain, (wanted - shift) / torch.where(tiny, 1, scale))

    def _lacking(self, node: Node, shape: torch.Size) -> Tensor | None:
        """What the other part of the sum that a value goes into lacks; None where it is in none.

        The part that is computed last makes up for all: what the others lack is known by then.
        """
        while len(node.users) == 1:
            reader = next(iter(node.users))
            if operation(reader) not in UNMOVED:
                break
            node = reader
        else:
            return None
        if operation(reader) != "add" or arguments(reader).get("alpha", 1) != 1:
            return None
        others = [read for read in reader.all_input_nodes if read is not node]
        if len(others) != 1 or others[0] not in self.dense:
            return None
        pruned, dense = self.pruned[others[0]], self.dense[others[0]]
        if pruned is dense or dense.shape != shape:
            return None
        return double(dense - pruned)

    def _norm_behind(self, node: Node) -> Args | None:
        """The arguments of the BatchNorm that alone reads a layer, with statistics of its own."""
        reader = next(iter(node.users), node)
        if len(node.users) != 1 or operation(reader) != "batch_norm":
            return None
        norm = arguments(reader)
        mean = norm["running_mean"]
        fixed = isinstance(mean, Node) and not norm["training"]
        return norm if fixed and self.reads[self._first_name(mean)] == 1 else None

    # ------------------------------------------------------------ norms

    def _solve_norm(self, node: Node, args: Args) -> None:
        """A scale and a shift for each unit, of what the pruned network's norm is given now."""
        if not isinstance(args["weight"], Node):
            return
        name = self._own(args["weight"])
        if name is None or self.new[name].dim() != 1:
            return
        weight, bias = self.new[name], self._bias(args)
        bare = {**args, "weight": None, "bias": None}
        values: Any = fx.node.map_arg(bare, self.pruned.__getitem__)
        normal = node.target(**values)  # type: ignore[operator]
        first = operation(node) not in ("layer_norm", "rms_norm")  # units on dimension 1
        places = choose(positions(normal, first), ROWS, self.generator).to(normal.device)
        seen = outputs_at(normal, places, first)  # (places, units)
        wanted = outputs_at(self.dense[node], places, first)
        solved = solve(
            weight.reshape(-1, 1, 1),
            (torch.zeros_like(weight) if bias is None else bias).reshape(-1, 1),
            self._keep(name, weight).reshape(-1, 1, 1),
            seen.T.unsqueeze(2),
            wanted.T.unsqueeze(2),
            ridge=self.ridge,
            intercept=bias is not None,
        )
        self.layers[name] = (solved.before, solved.after)
        weight.copy_(solved.weight.flatten())
        if bias is not None:
            bias.copy_(solved.bias.flatten())

    # ------------------------------------------------------------ parameters

    def _own(self, node: Any) -> str | None:
        """The name of a node's parameter, where one operation alone reads it as a whole."""
        if not isinstance(node, Node) or node.op != "get_attr":
            return None
        name = self._first_name(node)
        if not isinstance(self.new.get(name), nn.Parameter):
            return None
        if self.reads[name] != 1:
            self.left[name] = "it is used more than once."
            return None
        return name

    def _bias(self, args: Args) -> Tensor | None:
        """The bias that an operation alone reads."""
        node = args["bias"]
        name = None if node is None else self._own(node)
        return None if name is None else self.new[name]

    def _keep(self, name: str, weight: Tensor) -> Tensor:
        keep = self.masks.get(name)
        whole = torch.ones_like(weight, dtype=torch.bool)
        return whole if keep is None else keep.to(weight.device)


def _is_layer(node: Any) -> bool:
    return isinstance(node, Node) and operation(node) in (*CONVOLUTIONS, "linear")


def _affine(norm: Args, values: Values) -> tuple[Tensor, Tensor]:
    """(scale, shift) of a BatchNorm with fixed statistics: it gives z · scale + shift. (units,)"""
    mean = double(values[norm["running_mean"]])
    scale = (double(values[norm["running_var"]]) + norm["eps"]).rsqrt()
    if norm["weight"] is not None:
        scale = scale * double(values[norm["weight"]])
    shift = -mean * scale
    if norm["bias"] is not None:
        shift = shift + double(values[norm["bias"]])
    return scale, shift


def _recorded(graph: fx.GraphModule, name: str) -> Any:
    path, _, short = name.rpartition(".")
    return getattr(graph.get_submodule(path), short)
