"""The rewritten graph back as modules under their old names, only narrower.

Layers, norms, dropouts and activations are modules again, so that the compact model reads, trains
and saves as the old one does; what lies between them stays a call in the graph.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from pruning.masks import zero
from pruning.structure import wide_norms
from pruning.structure.capture import tensors_of
from pruning.structure.captured import Sizes
from pruning.structure.input_sizes import InputSizes
from pruning.structure.liveness import Liveness
from pruning.structure.propagate import Args, arguments, module_path, names, operation
from pruning.structure.rewrite import Rewrite
from pruning.structure.rules.convolve import CONVOLUTIONS
from pruning.types import Masks

PLAIN = names("""
    ReLU ReLU6 GELU SiLU Hardswish Hardsigmoid Sigmoid Tanh LeakyReLU ELU Mish Softplus
    MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d GLU
""")
"""Classes of torch.nn without weights, whose modules are put back as they were."""


def build(model: nn.Module, rewrite: Rewrite, masks: Masks) -> fx.GraphModule:
    """A module that runs the rewritten graph, its parameters cut from the model's, and masked.

    masks: under the first name of each parameter.
    """
    graph = rewrite.graph
    root = _containers(model, rewrite, masks)
    _Modules(model, root, graph, rewrite.liveness.graph.first_name).run()
    # Modules have taken over most of what the graph read by itself.
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    for name, values in rewrite.constants.items():
        if name in read:
            root.register_buffer(name, values, persistent=False)
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    _refuse_other_sizes(root, graph, rewrite.liveness.graph.captured.sizes)
    graph._tracer_cls = fx.Tracer  # pickling traces the module again, and not with export's tracer
    compact = fx.GraphModule(root, graph, type(model).__name__)
    if compact.graph.eliminate_dead_code():
        compact.recompile()
    return compact.train(model.training)


def _refuse_other_sizes(root: nn.Module, graph: fx.Graph, sizes: Sizes) -> None:
    """Put a check of the inputs' sizes first, where the graph does not hold for all."""
    if not sizes.conditions:
        return
    name = "input_sizes"
    while hasattr(root, name):
        name += "_"
    root.add_module(
        name, InputSizes(sizes.names, sizes.recorded, sizes.conditions, sizes.in_words())
    )
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(placeholders[-1]):
        graph.call_module(name, tuple(placeholders))


def cut(liveness: Liveness, name: str, tensor: Tensor) -> Tensor:
    """What is kept of a parameter or buffer, or of anything of its shape. A copy."""
    indices = _kept_indices(liveness, name, tensor)
    tensor = tensor.detach()
    if not indices:
        return tensor.clone()
    for d, kept in indices.items():
        tensor = tensor.index_select(d, kept)  # a copy already
    return tensor


def _kept_indices(liveness: Liveness, name: str, tensor: Tensor) -> dict[int, Tensor]:
    """Dimension -> the indices kept, int64, for those dimensions that lost something."""
    name = liveness.graph.first_name.get(name, name)
    origins = liveness.graph.propagation.labels.origins
    indices: dict[int, Tensor] = {}
    for d, size in enumerate(tensor.shape):
        start = origins.get((name, d))
        if start is None:
            continue
        keep = liveness.keep[start : start + size]
        if not bool(keep.all()):
            indices[d] = keep.nonzero().flatten()
    return indices


@torch.no_grad()
def paste(compact: nn.Module, liveness: Liveness, model: nn.Module) -> None:
    """Write what a compact module learned into the module it was cut from, in place.

    What was removed stays there as it is.
    """
    targets = tensors_of(model)
    for name, values in tensors_of(compact).items():
        target = targets.get(name)
        if target is None:
            continue  # a constant of the rewriting
        places = [torch.arange(n, device="cpu") for n in target.shape]
        for d, indices in _kept_indices(liveness, name, target).items():
            places[d] = indices
        if places:
            target[torch.meshgrid(*places, indexing="ij")] = values.to(target.device)
        else:  # a number, such as the batches that BatchNorm has seen
            target.copy_(values)


def _containers(model: nn.Module, rewrite: Rewrite, masks: Masks) -> nn.Module:
    """An empty tree with the model's module names, holding the tensors the graph uses, cut.

    masks: of the whole model, under the first name of each parameter. They are applied to what is
    cut, which is less than the model.
    """
    root = nn.Module()
    first_name = rewrite.liveness.graph.first_name
    tensors = tensors_of(model)
    read = [node for node in rewrite.graph.nodes if node.op == "get_attr" and node.users]
    used = {str(node.target) for node in read}
    # Tied tensors are there under all their names, as in the model.
    firsts = {first_name.get(name) for name in used} - {None}
    used |= {name for name, first in first_name.items() if first in firsts}
    # BatchNorm's counter stands beside its statistics, but only training reads it.
    counter = "num_batches_tracked"
    used |= {name for name in tensors if f"{name.removesuffix(counter)}running_mean" in used}
    persistent = set(model.state_dict(keep_vars=True))
    made: dict[int, Tensor] = {}  # tied ones once
    for name, tensor in tensors.items():
        if name not in used:
            continue
        owner, short = _owner(root, name)
        if id(tensor) in made:
            _register(owner, short, made[id(tensor)], name in persistent)
            continue
        value = cut(rewrite.liveness, name, tensor)
        keep = masks.get(first_name.get(name, name))
        if keep is not None:
            keep = cut(rewrite.liveness, name, keep)
            if not bool(
                keep.all()
            ):  # most often whole units were pruned, and nothing is left to do
                zero(value, keep)
        if isinstance(tensor, nn.Parameter):
            # What was frozen for training stays so.
            value = nn.Parameter(value, tensor.requires_grad)
        made[id(tensor)] = value
        _register(owner, short, value, name in persistent)
    # The rest of what is read belongs to no module of the model.
    captured = rewrite.liveness.graph.captured.graph
    for name in used - set(tensors) - set(rewrite.constants):
        # Constants that export lifted out of the code.
        value = operator.attrgetter(name)(captured)
        owner, short = _owner(root, name)
        if isinstance(value, Tensor):
            owner.register_buffer(short, value.detach().clone(), persistent=False)
        else:
            setattr(owner, short, value)
    return root


def _register(owner: nn.Module, name: str, value: Tensor, persistent: bool) -> None:
    if isinstance(value, nn.Parameter):
        owner.register_parameter(name, value)
    else:
        owner.register_buffer(name, value, persistent=persistent)


@cache
def _bare(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of layers whose weights are not drawn at random: they get those of another layer."""
    return type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})


def _made(kind: type[nn.Module], *args: Any, **options: Any) -> nn.Module:
    """A layer without values. Drawing weights only to replace them takes half of a layer's time."""
    module = _bare(kind)(*args, device="meta", **options)  # type: ignore[arg-type]
    module.__class__ = kind
    return module


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a dotted name, made where there is none yet; the name's last part."""
    *path, short = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, short


class _Modules:
    """Replaces calls by modules. A class because every maker needs the old and the new tree."""

    def __init__(
        self, model: nn.Module, root: nn.Module, graph: fx.Graph, first_name: dict[str, str]
    ) -> None:
        self.root = root
        self.graph = graph
        self.old = dict(model.named_modules(remove_duplicate=False))
        self.made: dict[str, tuple[str, str]] = {}  # path -> class and options
        self.first_name = first_name
        self.extra = 0  # dropouts that were functions, and are modules now
        calls = [_call(node) for node in graph.nodes if node.op == "call_function"]
        self.calls = Counter(call for call in calls if call)

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.op != "call_function":
                continue
            make = MAKERS.get(operation(node), _Modules._plain)
            new = make(self, node)
            if new is not None:
                new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
                self.graph.erase_node(node)

    def _call_module(self, node: Node, path: str, module: nn.Module, *args: Any) -> Node | None:
        """A call of the module at `path`, which is put there if no earlier call did.

        None where an earlier call put another one there: one weight, used in two ways.
        """
        described = type(module).__name__, module.extra_repr()
        if path in self.made and self.made[path] != described:
            return None
        if path not in self.made:
            self.made[path] = described
            owner, short = _owner(self.root, path)
            # The tree has plain modules so far; what is below one moves into the new one.
            before = owner._modules.get(short)
            if before is not None:
                for name, child in before._modules.items():
                    module.add_module(name, child)
            owner.add_module(short, module)
        with self.graph.inserting_before(node):
            return self.graph.call_module(path, args)

    def _path(self, node: Node, args: Args, *tensors: str) -> str | None:
        """The path of the module whose own tensors these are, under these names; or None.

        A weight that is computed first, or another module's, makes no module of its kind. Tied
        weights belong to several modules: the one that the call comes from is asked first.
        """
        weight = args["weight"]
        if not isinstance(weight, Node):
            return None
        read = {name: args[name] for name in tensors if args[name] is not None}
        for path in (module_path(node), str(weight.target).rpartition(".")[0]):
            own = all(self._is(tensor, f"{path}.{name}") for name, tensor in read.items())
            if path and path in self.old and own:
                return path
        return None

    def _is(self, read: Any, name: str) -> bool:
        """Whether what a call reads is the tensor of this name."""
        if not isinstance(read, Node) or read.op != "get_attr":
            return False
        target = str(read.target)
        return name in self.first_name and self.first_name[name] == self.first_name.get(target)

    def _layer(self, node: Node, path: str, module: nn.Module, x: Node) -> Node | None:
        """A call of a layer, with the tensors under its path in place of its own."""
        source = self.root.get_submodule(path)
        for name in (*module._parameters, *source._parameters):
            module.register_parameter(name, source._parameters.get(name))
        for name in module._buffers:
            if name in source._buffers:
                module._buffers[name] = source._buffers[name]
        return self._call_module(node, path, module, x)

    def _convolution(self, node: Node) -> Node | None:
        args = arguments(node)
        path = self._path(node, args, "weight", "bias")
        if path is None:
            return None
        name = operation(node)
        sizes = self.root.get_parameter(f"{path}.weight").shape
        groups = args["groups"]
        copied = ["stride", "padding", "dilation"]
        if "transpose" in name:
            kind = getattr(nn, f"ConvTranspose{name[-2:]}")
            channels = sizes[0], sizes[1] * groups
            copied.append("output_padding")
        else:
            kind = getattr(nn, f"Conv{name[-2:]}")
            channels = sizes[1] * groups, sizes[0]
        options = {option: args[option] for option in copied}
        bias = args["bias"] is not None
        module = _made(kind, *channels, tuple(sizes[2:]), groups=groups, bias=bias, **options)
        return self._layer(node, path, module, args["input"])

    def _linear(self, node: Node) -> Node | None:
        args = arguments(node)
        path = self._path(node, args, "weight", "bias")
        if path is None:
            return None
        out, into = self.root.get_parameter(f"{path}.weight").shape
        bias = args["bias"] is not None
        module = _made(nn.Linear, into, out, bias=bias)
        return self._layer(node, path, module, args["input"])

    def _embedding(self, node: Node) -> Node | None:
        args = arguments(node)
        path = self._path(node, args, "weight")
        if path is None:
            return None
        rows, width = self.root.get_parameter(f"{path}.weight").shape
        padding = args["padding_idx"] if args["padding_idx"] >= 0 else None  # -1: there is none
        module = _made(nn.Embedding, rows, width, padding_idx=padding)
        return self._layer(node, path, module, args["indices"])

    def _batch_norm(self, node: Node) -> Node | None:
        args = arguments(node)
        path = self._path(node, args, "weight", "bias", "running_mean", "running_var")
        if path is None or args["running_mean"] is None:
            return None
        old = self.old[path]
        if not isinstance(old, nn.modules.batchnorm._BatchNorm):
            return None
        # By what it reads: models have BatchNorm classes of their own.
        kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
        kind = type(old)
        if "val" in node.meta:
            kind = kinds[node.meta["val"].dim()]
        channels = len(self.root.get_parameter(f"{path}.weight"))
        module = _made(kind, channels, args["eps"], old.momentum)
        return self._layer(node, path, module, args["input"])

    def _norm(self, node: Node) -> Node | None:
        """Layer and RMS norms, as they were or remembering how wide they were."""
        layer = operation(node) == "layer_norm"
        wide = node.target in (wide_norms.layer_norm, wide_norms.rms_norm)
        if wide:
            parameters = signature(node.target).parameters  # type: ignore[arg-type]
            args: Args = dict(zip(parameters, node.args, strict=True))
        else:
            args = arguments(node)
        tensors = ("weight", "bias") if layer else ("weight",)
        path = self._path(node, args, *tensors)
        if path is None:
            return None
        shape, eps = list(args["normalized_shape"]), args["eps"]
        module: nn.Module
        if wide and layer:
            module = wide_norms.WideLayerNorm(shape, eps, args["width"])
        elif wide:
            module = wide_norms.WideRMSNorm(shape, eps, args["width"])
        elif layer:
            module = nn.LayerNorm(shape, eps=eps)
        else:
            module = nn.RMSNorm(shape, eps=eps)
        return self._layer(node, path, module, args["input"])

    def _group_norm(self, node: Node) -> Node | None:
        wide = node.target is wide_norms.group_norm
        if wide:
            parameters = signature(wide_norms.group_norm).parameters
            args: Args = dict(zip(parameters, node.args, strict=True))
        else:
            args = arguments(node)
        if args["weight"] is None:
            return None
        path = self._path(node, args, "weight", "bias")
        if path is None:
            return None
        channels = len(self.root.get_parameter(f"{path}.weight"))
        module: nn.Module
        if wide:
            module = wide_norms.WideGroupNorm(channels, args["eps"], args["width"])
        else:
            module = nn.GroupNorm(args["num_groups"], channels, eps=args["eps"])
        return self._layer(node, path, module, args["input"])

    def _whole(self, node: Node) -> Node | None:
        """Dropout, stochastic depth: the old module, copied."""
        path = str(node.args[1])
        module = copy.deepcopy(self.old[path])
        return self._call_module(node, path, module, node.args[0])

    def _dropout(self, node: Node) -> Node | None:
        """A dropout function was recorded in eval mode: as a module it acts in training again."""
        args = arguments(node)
        if args["train"] is not False:
            return None
        if args["p"] == 0:
            return node.args[0]  # type: ignore[return-value]
        # It had no name of its own in the old model.
        self.extra += 1
        module = nn.Dropout(args["p"])
        return self._call_module(node, f"dropout_{self.extra}", module, node.args[0])

    def _attention(self, node: Node) -> Node | None:
        """Where the old module drops attention weights in training, so does the new one."""
        old = self.old.get(module_path(node))
        args = arguments(node)
        if isinstance(old, nn.MultiheadAttention):
            p = old.dropout
        else:
            p = getattr(getattr(old, "attn_drop", None), "p", 0.0)  # timm's
        if not p or args["dropout_p"]:
            return None
        self.extra += 1
        module = wide_norms.Attention(float(p))
        order = ("query", "key", "value", "attn_mask", "is_causal", "scale")
        operands = [args[name] for name in order]
        return self._call_module(node, f"attention_{self.extra}", module, *operands)

    def _plain(self, node: Node) -> Node | None:
        path = module_path(node)
        old = self.old.get(path)
        plain = [getattr(nn, name) for name in PLAIN]
        # A module that makes several calls cannot stand in the place of one of them.
        if type(old) not in plain or self.calls[_call(node)] != 1:
            return None
        if len(node.all_input_nodes) != 1:
            return None
        assert old is not None
        return self._call_module(node, path, copy.deepcopy(old), node.all_input_nodes[0])


Maker = Callable[[_Modules, Node], Node | None]
MAKERS: dict[str, Maker] = {
    **dict.fromkeys(CONVOLUTIONS, _Modules._convolution),
    "linear": _Modules._linear,
    "batch_norm": _Modules._batch_norm,
    "layer_norm": _Modules._norm,
    "rms_norm": _Modules._norm,
    "group_norm": _Modules._group_norm,
    "embedding": _Modules._embedding,
    "whole": _Modules._whole,
    "dropout": _Modules._dropout,
    "dropout_": _Modules._dropout,
    "scaled_dot_product_attention": _Modules._attention,
}
"""Operation -> what makes a module of its call, or None; the others are `_plain`."""


def _call(node: Node) -> str:
    """Which call of which module a node comes from: "L__self__relu", "L__self__relu@1"."""
    return next(reversed(node.meta.get("nn_module_stack") or {}), "")
