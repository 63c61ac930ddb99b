"""The rewritten graph back as modules under their old names: layers, norms, dropouts and activations as they were, only narrower."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruning.structure import wide_norms
from pruning.structure.liveness import Liveness
from pruning.structure.propagate import bound, operation, place
from pruning.structure.rewrite import Rewrite

PLAIN = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.GELU,
        nn.SiLU,
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.Sigmoid,
        nn.Tanh,
        nn.LeakyReLU,
        nn.ELU,
        nn.Mish,
        nn.Softplus,
    ),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool1d,
        nn.AdaptiveMaxPool2d,
        nn.AdaptiveAvgPool3d,
    ),
)
"""Modules without weights that are put back whole, so that the slim model reads as the old one does."""


def build(model: nn.Module, work: Rewrite) -> fx.GraphModule:
    """A module that runs the rewritten graph, its parameters cut from the model's, under their old names."""
    root = _containers(model, work)
    put = _Modules(model, root, work.graph)
    put.run()
    for name, values in work.constants.items():
        if any(node.op == "get_attr" and node.target == name for node in work.graph.nodes):
            root.register_buffer(name, values, persistent=False)
    for node in list(work.graph.nodes):
        if node.op == "get_attr" and not node.users:
            work.graph.erase_node(node)
    work.graph._tracer_cls = fx.Tracer
    compact = fx.GraphModule(root, work.graph, type(model).__name__)
    compact.graph.eliminate_dead_code()
    compact.recompile()
    _tie(model, compact)
    return compact.train(model.training)


def cut(liveness: Liveness, name: str, tensor: Tensor) -> Tensor:
    """A parameter or buffer without what is gone."""
    for d, keep in _kept(liveness, name, tensor):
        tensor = tensor.index_select(d, keep.nonzero().flatten())
    return tensor.detach().clone()


def _kept(liveness: Liveness, name: str, tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The dimensions of a parameter or buffer that lost something, each with what is kept of its indices. (size,) bool"""
    name, start = (
        liveness.dependencies.first_name.get(name, name),
        liveness.dependencies.propagation.labels.origins,
    )
    for d in range(tensor.dim()):
        if (name, d) in start:
            keep = liveness.keep[start[name, d] : start[name, d] + tensor.size(d)]
            if not bool(keep.all()):
                yield d, keep


@torch.no_grad()
def paste(compact: nn.Module, liveness: Liveness, model: nn.Module) -> None:
    """Write what a slim module learned into the module it was cut from, in place; what is gone there stays as it is."""
    into: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
    for name, values in (
        *compact.named_parameters(remove_duplicate=False),
        *compact.named_buffers(remove_duplicate=False),
    ):
        if name not in into:
            continue
        places = [torch.arange(n) for n in into[name].shape]
        for d, keep in _kept(liveness, name, into[name]):
            places[d] = keep.nonzero().flatten()
        if places:
            into[name][torch.meshgrid(*places, indexing="ij")] = values
        else:  # a number, such as the batches that BatchNorm has seen
            into[name].copy_(values)


def _containers(model: nn.Module, work: Rewrite) -> nn.Module:
    """An empty tree with the model's module names, holding the tensors the graph uses, cut."""
    root = nn.Module()
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
    used = {str(node.target) for node in work.graph.nodes if node.op == "get_attr" and node.users}
    used |= {
        name
        for name in tensors
        if f"{name.removesuffix('num_batches_tracked')}running_mean" in used
    }
    kept = dict(model.state_dict(keep_vars=True))
    for name, tensor in tensors.items():
        if name in used:
            owner, short = _owner(root, name)
            value = cut(work.liveness, name, tensor)
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(short, nn.Parameter(value, tensor.requires_grad))
            else:
                owner.register_buffer(short, value, persistent=name in kept)
    for name in (
        used - set(tensors) - set(work.constants)
    ):  # constants that export lifted out of the code
        held: Any = work.liveness.dependencies.captured.graph
        for part in name.split("."):
            held = getattr(held, part)
        owner, short = _owner(root, name)
        if isinstance(held, Tensor):
            owner.register_buffer(short, held.detach().clone(), persistent=False)
        else:
            setattr(owner, short, held)
    return root


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a dotted name, made where there is none yet, and the last part of the name."""
    *path, short = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, short


def _tie(model: nn.Module, compact: nn.Module) -> None:
    """What was one parameter under several names is so again."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        same = first.setdefault(id(parameter), name)
        if same == name:
            continue
        held = dict(compact.named_parameters(remove_duplicate=False))
        value = held.get(same, held.get(name))
        for one in (same, name) if value is not None else ():
            owner, short = _owner(compact, one)
            owner.register_parameter(short, value)


class _Modules:
    """Replaces calls by modules. A class because the graph, the old model and the new tree go everywhere together."""

    def __init__(self, model: nn.Module, root: nn.Module, graph: fx.Graph) -> None:
        self.model, self.root, self.graph, self.dropouts = model, root, graph, 0
        self.old = dict(model.named_modules(remove_duplicate=False))
        self.made: dict[str, nn.Module] = {}
        self.calls = Counter(
            _call(node) for node in graph.nodes if node.op == "call_function" and _call(node)
        )

    def run(self) -> None:
        makers: dict[Any, Callable[[fx.Node], fx.Node | None]] = {
            **dict.fromkeys(("conv1d", "conv2d", "conv3d"), self._convolution),
            **dict.fromkeys(
                ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), self._convolution
            ),
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "layer_norm": self._norm,
            "rms_norm": self._norm,
            "embedding": self._embedding,
            "whole": self._whole,
            "dropout": self._dropout,
            "dropout_": self._dropout,
            "scaled_dot_product_attention": self._attention,
        }
        for node in list(self.graph.nodes):
            if node.op != "call_function":
                continue
            maker = makers.get(operation(node))
            new = maker(node) if maker else self._plain(node)
            if new is not None:
                new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
                self.graph.erase_node(node)

    def _call_module(
        self, node: fx.Node, path: str, make: Callable[[], nn.Module], args: tuple[Any, ...]
    ) -> fx.Node:
        if path not in self.made:
            self.made[path] = make()
            owner, short = _owner(self.root, path)
            held = owner._modules.get(short)
            for name, child in (held._modules if held is not None else {}).items():
                self.made[path].add_module(name, child)
            owner.add_module(short, self.made[path])
        with self.graph.inserting_before(node):
            return self.graph.call_module(path, args)

    def _owned(self, node: fx.Node, given: dict[str, Any], names: tuple[str, ...]) -> str | None:
        """The path of the module whose tensors these are, under just these names; None where there is none such."""
        first = given["weight"]
        if (
            not isinstance(first, fx.Node)
            or first.op != "get_attr"
            or not str(first.target).endswith(".weight")
        ):
            return None
        path = str(first.target).removesuffix(".weight")
        for name in names:
            tensor = given[name]
            if tensor is not None and not (
                isinstance(tensor, fx.Node)
                and tensor.op == "get_attr"
                and tensor.target == f"{path}.{name}"
            ):
                return None
        return path if path in self.old else None

    def _fill(self, path: str, module: nn.Module) -> nn.Module:
        """The tensors under a path, in a module of its own kind."""
        held = self.root.get_submodule(path)
        for name in [*module._parameters]:
            module.register_parameter(name, held._parameters.get(name))
        for name in [*module._buffers]:
            if name in held._buffers:
                module._buffers[name] = held._buffers[name]
        for name, parameter in held._parameters.items():
            module.register_parameter(name, parameter)
        return module

    def _convolution(self, node: fx.Node) -> fx.Node | None:
        given = bound(node)
        path = self._owned(node, given, ("weight", "bias"))
        if path is None:
            return None
        weight = self.root.get_parameter(f"{path}.weight")
        name, turned = operation(node), "transpose" in operation(node)
        kind = getattr(nn, ("ConvTranspose" if turned else "Conv") + name[-2:])
        own = {
            k: tuple(v) if isinstance(v, (list, tuple)) else v
            for k, v in given.items()
            if k in ("stride", "padding", "dilation")
        }
        groups, options = given["groups"], {}
        into, out = (
            (weight.shape[0], weight.shape[1] * groups)
            if turned
            else (weight.shape[1] * groups, weight.shape[0])
        )
        if turned:
            options["output_padding"] = tuple(given["output_padding"])

        def make() -> nn.Module:
            with torch.device("meta"):
                layer = kind(
                    into,
                    out,
                    tuple(weight.shape[2:]),
                    groups=groups,
                    bias=given["bias"] is not None,
                    **own,
                    **options,
                )
            return self._fill(path, layer)

        return self._call_module(node, path, make, (given["input"],))

    def _linear(self, node: fx.Node) -> fx.Node | None:
        given = bound(node)
        path = self._owned(node, given, ("weight", "bias"))
        if path is None:
            return None
        weight = self.root.get_parameter(f"{path}.weight")

        def make() -> nn.Module:
            return self._fill(
                path,
                nn.Linear(
                    weight.shape[1], weight.shape[0], bias=given["bias"] is not None, device="meta"
                ),
            )

        return self._call_module(node, path, make, (given["input"],))

    def _embedding(self, node: fx.Node) -> fx.Node | None:
        given = bound(node)
        path = self._owned(node, given, ("weight",))
        if path is None:
            return None
        weight, padding = self.root.get_parameter(f"{path}.weight"), given["padding_idx"]

        def make() -> nn.Module:
            rows, width = weight.shape
            return self._fill(
                path,
                nn.Embedding(
                    rows, width, padding_idx=padding if padding >= 0 else None, device="meta"
                ),
            )

        return self._call_module(node, path, make, (given["indices"],))

    def _batch_norm(self, node: fx.Node) -> fx.Node | None:
        given = bound(node)
        path = self._owned(node, given, ("weight", "bias", "running_mean", "running_var"))
        old = self.old.get(path or "")
        if (
            path is None
            or given["running_mean"] is None
            or not isinstance(old, nn.modules.batchnorm._BatchNorm)
        ):
            return None
        kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
        kind = kinds[node.meta["val"].dim()] if "val" in node.meta else type(old)

        def make() -> nn.Module:
            return self._fill(
                path,
                kind(
                    len(self.root.get_parameter(f"{path}.weight")),
                    given["eps"],
                    old.momentum,
                    device="meta",
                ),
            )

        return self._call_module(node, path, make, (given["input"],))

    def _norm(self, node: fx.Node) -> fx.Node | None:
        """Layer and RMS norms, as they were or remembering how wide they were."""
        widened = not hasattr(node.target, "_schema")
        names = [
            "input",
            "shape",
            "weight",
            *(["bias"] if operation(node) == "layer_norm" else []),
            "eps",
            "width",
        ]
        given: dict[str, Any] = dict(zip(names, node.args, strict=True)) if widened else bound(node)
        layer = operation(node) == "layer_norm"
        path = self._owned(node, given, ("weight", "bias") if layer else ("weight",))
        if path is None:
            return None
        shape, eps = list(given["shape" if widened else "normalized_shape"]), given["eps"]

        def make() -> nn.Module:
            if widened:
                return self._fill(
                    path,
                    (wide_norms.WideLayerNorm if layer else wide_norms.WideRMSNorm)(
                        shape, eps, given["width"]
                    ),
                )
            return self._fill(
                path, nn.LayerNorm(shape, eps=eps) if layer else nn.RMSNorm(shape, eps=eps)
            )

        return self._call_module(node, path, make, (given["input"],))

    def _whole(self, node: fx.Node) -> fx.Node:
        """Dropout, stochastic depth: the old module, copied."""
        path = str(node.args[1])
        return self._call_module(node, path, lambda: copy.deepcopy(self.old[path]), (node.args[0],))

    def _dropout(self, node: fx.Node) -> fx.Node | None:
        given = bound(node)
        if given["train"] is not False:
            return None
        if given["p"] == 0:
            return node.args[0]  # type: ignore[return-value]
        self.dropouts += 1
        return self._call_module(
            node, f"dropout_{self.dropouts}", lambda: nn.Dropout(given["p"]), (node.args[0],)
        )

    def _attention(self, node: fx.Node) -> fx.Node | None:
        """Where the old module drops attention weights in training, so does the new one."""
        old, given = self.old.get(place(node)), bound(node)
        p = (
            old.dropout
            if isinstance(old, nn.MultiheadAttention)
            else getattr(getattr(old, "attn_drop", None), "p", 0.0)
        )
        if not p or given["dropout_p"]:
            return None
        self.dropouts += 1
        args = tuple(
            given[name] for name in ("query", "key", "value", "attn_mask", "is_causal", "scale")
        )
        return self._call_module(
            node, f"attention_{self.dropouts}", lambda: wide_norms.Attention(float(p)), args
        )

    def _plain(self, node: fx.Node) -> fx.Node | None:
        path = place(node)
        old = self.old.get(path)
        if (
            old is None
            or type(old) not in PLAIN
            or self.calls[_call(node)] != 1
            or len(node.all_input_nodes) != 1
        ):
            return None
        return self._call_module(node, path, lambda: copy.deepcopy(old), (node.all_input_nodes[0],))


def _call(node: fx.Node) -> str:
    """Which call of which module a node comes from: "L__self__relu", "L__self__relu@1"."""
    return next(reversed(node.meta.get("nn_module_stack") or {}), "")
