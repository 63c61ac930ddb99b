"""Names for layers and weights: those they had before the export, where the file kept any."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from onnx import NodeProto

LONGEST = 200

WEIGHT_WORDS = ("weight", "kernel", "bias", "gamma", "beta", "scale")
"""Last parts of a weight's name that say which of its layer's it is."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes down which modules a node comes from, outermost first."""

_RESERVED = """
    T_destination add_module add_submodule apply bfloat16 buffers call_super_init children code
    compile cpu cuda delete_all_unused_submodules delete_submodule double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule graph half
    ipu load_state_dict meta modules mtia named_buffers named_children named_modules
    named_parameters parameters print_readable recompile register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule shape_env share_memory
    state_dict to to_empty to_folder train training type xpu zero_grad
"""
RESERVED = frozenset(_RESERVED.split())
"""What a module has already. Checked in a test against torch's own list."""


class Names:
    """Names that no two layers or weights share. A class because each depends on those before."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.inside: set[str] = set()
        """Of modules that others lie in: they can be no layer themselves."""

    def free(self, wanted: str) -> str:
        """The name, made one that a module can have, with a number after it where it is taken."""
        name = clean(wanted) or "layer"
        # Nothing lies inside a layer or a weight: beside it there is room.
        if any(parent in self.taken for parent in parents(name)):
            name = name.replace(".", "_")
        number, tried = 2, name
        while not self.fits(tried):
            tried = f"{name}_{number}"
            number += 1
        self.taken.add(tried)
        self.inside.update(parents(tried))
        return tried

    def fits(self, name: str) -> bool:
        return (
            name not in self.taken
            and name not in self.inside
            and not any(parent in self.taken for parent in parents(name))
        )

    def of_layer(self, node: NodeProto, kind: str, weights: tuple[str, ...]) -> str:
        """A layer's name: its weight's, its module's, its node's, or its kind with a number."""
        candidates = [*map(of_weight, weights), of_scopes(node), of_node(node)]
        # One weight may name many layers where an exporter merged equal ones: only the first.
        for name in map(clean, filter(None, candidates)):
            if name and self.fits(name):
                return self.free(name)
        return self.free(kind)


def clean(name: str) -> str:
    """Letters, digits and underscores between dots, none of them a word that means something."""
    parts = re.split(r"[./]+", re.sub(r"[^A-Za-z0-9_./]", "_", name[-LONGEST:]))
    usable = [_usable(part) for part in parts if part.strip("_")]
    return ".".join(usable)


def _usable(part: str) -> str:
    clash = part in RESERVED or keyword.iskeyword(part) or part.startswith("__")
    return f"{part.strip('_')}_" if clash else part


def parents(name: str) -> Iterator[str]:
    """The modules that something lies in: a, a.b of a.b.c."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def of_weight(weight: str) -> str:
    """layer1.0.conv1.weight -> layer1.0.conv1; "" where the name says nothing."""
    # "onnx::Conv_193" and "val_14" are the exporter's own counting.
    if "::" in weight or re.fullmatch(r"(val|t|tensor|const|initializer|_)?_?\d+", weight):
        return ""
    name = weight.removesuffix(":0").removesuffix("/ReadVariableOp").replace("/", ".")
    base, dot, last = name.rpartition(".")
    if last in WEIGHT_WORDS:
        return base
    for word in WEIGHT_WORDS:
        # in_proj_weight lies beside out_proj.weight: in_proj is a layer like it.
        if last.endswith(f"_{word}"):
            return f"{base}{dot}{last.removesuffix(f'_{word}')}"
    return ""


def of_scopes(node: NodeProto) -> str:
    """The module that torch's exporter wrote down; "" for none."""
    for each in node.metadata_props:
        if each.key == SCOPES:
            scopes = re.findall(r"'([^']*)'", each.value[:5000])
            # The last is the operation itself.
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def of_node(node: NodeProto) -> str:
    """/layer1/layer1.0/conv1/Conv -> layer1.0.conv1; block/conv2d_1/Conv2D -> block.conv2d_1."""
    if "/" not in node.name:
        return ""
    *parts, _ = node.name.strip("/").split("/")
    path: list[str] = []
    for part in parts:
        # torch writes a module in a list with its list's name before it.
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)
