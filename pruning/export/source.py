"""A network as plain PyTorch source, `model.py`, that needs torch and its weights file alone.

Written from the graph that a compact model is: layers by their old names in `__init__`, a line a
call in `forward`. The same weights load by name into the old architecture where nothing was cut.
"""

from __future__ import annotations

import inspect
import operator
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from pruning.errors import ModelError
from pruning.export import layers, parts
from pruning.export.layers import is_name
from pruning.export.spelling import NotWritten, Spelling
from pruning.structure import wide_norms
from pruning.structure.capture import Example, inputs, tensors_of
from pruning.structure.input_sizes import InputSizes, size_in_words
from pruning.structure.propagate import module_path, names

WEIGHTS = "model.safetensors"
"""The weights file that `load` of a written network reads."""

CLOSE = 1e-5
"""Largest difference of the written network's outputs, as a share of the largest output."""

POOL = ("x", "y", "z", "u", "v", "w")
SIZES = ("n", "m", "k")
"""Variables of `forward`: of tensors, and of sizes."""

WIDE = {
    name: thing
    for name, thing in vars(wide_norms).items()
    if getattr(thing, "__module__", "") == wide_norms.__name__
}
"""Functions and classes of ours that a compact network may use, in the order they are defined."""

OTHERS = names("self torch nn F math operator Tensor Sequence Path Any TIED load with_ties Model")
RESERVED = (*OTHERS, "Block", "DropPath", *WIDE)
"""Names that no variable of `forward` may have."""
WIDTH = 100


@dataclass(frozen=True)
class Source:
    """text: of `model.py`; state: the weights that its `load` reads, by name; ties once."""

    text: str
    state: dict[str, Tensor]


def write(module: fx.GraphModule, example: Example, title: str, weights: str = WEIGHTS) -> Source:
    """The source of a recorded network, tried on the example before it is handed out.

    module: as `shrink` makes it; title: what it is, in a sentence; weights: the file that its
    `load` reads by default.
    Raises ModelError, which says why it cannot be written.
    """
    wanted = answers(module, example)
    why = ""
    # A usual spelling that computes something else is a fault of ours: ATen's own names do not.
    for readable in (True, False):
        try:
            source = Source(*_Writer(module, example, title, readable, weights).run())
            difference = apart(wanted, answers(loaded(source), example))
        except NotWritten as error:
            raise ModelError(
                f"model.py is not written, for the network {error}: take its weights or ONNX."
            ) from None
        except Exception as error:  # whatever a network that nobody here wrote may do
            why = f"it fails with {type(error).__name__}: {error}"
            continue
        if difference <= CLOSE:
            return source
        why = f"its outputs differ by {difference:.2g}"
    raise ModelError(f"model.py is not handed out, for {why}. Take its weights or ONNX.")


def loaded(source: Source) -> nn.Module:
    """The written network with its weights, made in this process."""
    room = types.ModuleType("written_network")
    room.__file__ = "model.py"  # beside which its weights would lie
    exec(compile(source.text, "model.py", "exec"), room.__dict__)
    module = room.Model()
    module.load_state_dict(room.with_ties(dict(source.state)))
    assert isinstance(module, nn.Module)
    return module.eval()


@torch.no_grad()
def answers(module: nn.Module, example: Example) -> list[Tensor]:
    """All tensors of the outputs for the example, with the same random numbers each time."""
    mode = module.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = module.eval()(*inputs(example))
    module.train(mode)
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def apart(wanted: list[Tensor], outputs: list[Tensor]) -> float:
    """max |difference| / max(1, max |wanted|); infinite for other shapes, or not numbers."""
    if [x.shape for x in wanted] != [x.shape for x in outputs]:
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, outputs, strict=True):
        if not a.numel():
            continue
        a, b = a.double(), b.double()
        difference = float((a - b).abs().max() / max(1.0, float(a.abs().max())))
        worst = difference if not difference <= worst else worst
    return worst if worst == worst else float("inf")


# ---------------------------------------------------------------- the tree of layers


@dataclass
class _Part:
    """What stands under one name: a layer, a tensor, or a container of more."""

    module: nn.Module | None = None
    tensor: Tensor | None = None
    parts: dict[str, _Part] = field(default_factory=dict)

    def at(self, path: str) -> _Part:
        part = self
        for name in path.split(".") if path else ():
            part = part.parts.setdefault(name, _Part())
        return part

    @property
    def kind(self) -> str:
        """How the container is written: "list", "dict" or "block"."""
        names = list(self.parts)
        plain = all(part.tensor is None for part in self.parts.values())
        if plain and names == [str(i) for i in range(len(names))]:
            return "list"
        return "dict" if plain and all(name.isdigit() for name in names) else "block"


class _Writer:
    """Writes one network. A class because __init__ and forward share the tree and the names."""

    def __init__(
        self,
        module: fx.GraphModule,
        example: Example,
        title: str,
        readable: bool,
        weights: str = WEIGHTS,
    ) -> None:
        self.weights = weights
        self.module = module
        self.graph = module.graph
        self.example = inputs(example)
        self.title = title
        self.readable = readable
        self.names: dict[Node, str] = {}
        self.needs: set[type[nn.Module]] = set()
        self.root = _Part()
        # Constants of the rewriting are read like buffers, and come with the weights.
        tensors = tensors_of(module)
        first: dict[int, str] = {}
        self.first = {name: first.setdefault(id(t), name) for name, t in tensors.items()}
        self.ties = {name: one for name, one in self.first.items() if name != one}
        self.tensors = tensors

    def run(self) -> tuple[str, dict[str, Tensor]]:
        self._plant()
        forward = list(self._forward())
        init = list(self._init())
        body = "\n".join([*self._classes(), *init, "", *forward, *self._tail()])
        body = "\n".join([*self._head(), *_imports(body), "", "", body])
        state = {
            name: tensor.detach().clone().contiguous()
            for name, tensor in self.tensors.items()
            if name not in self.ties
        }
        return body + "\n", state

    # ---------------------------------------------------------------- __init__

    def _plant(self) -> None:
        """Put every layer that is called, and every tensor of none, into the tree."""
        called = [str(node.target) for node in self.graph.nodes if node.op == "call_module"]
        inside: set[str] = set()
        for path in dict.fromkeys(called):
            module = self.module.get_submodule(path)
            if isinstance(module, InputSizes):
                continue  # written as lines of forward
            self.root.at(path).module = module
            own = (*module._parameters, *module._buffers)
            inside |= {f"{path}.{name}" for name in own}
        for name, tensor in self.tensors.items():
            if name not in inside:
                self.root.at(name).tensor = tensor

    def _init(self) -> Iterator[str]:
        # Parts called by numbers, as those of an nn.Sequential, are no attributes.
        yield f"class Model(nn.{'ModuleDict' if self._numbered else 'Module'}):"
        yield '    """The network that is described above."""'
        yield ""
        yield "    def __init__(self) -> None:"
        yield "        super().__init__()"
        for name, part in self.root.parts.items():
            text = self._part(part, 8)
            if part.tensor is not None and not isinstance(part.tensor, nn.Parameter):
                yield f"        self.register_buffer({name!r}, {text})"
            elif is_name(name):
                yield f"        self.{name} = {text}"
            elif self._numbered:
                yield f"        self[{name!r}] = {text}"
            else:
                yield f"        setattr(self, {name!r}, {text})"
        # Layers below a layer of torch's own are rare, and set one by one.
        for path, part in self._below_layers("", self.root):
            yield f"        {self._access(path)} = {self._part(part, 8)}"
        for name, first in self.ties.items():
            if isinstance(self.tensors[name], nn.Parameter):
                yield f"        {self._access(name)} = {self._access(first)}"

    @property
    def _numbered(self) -> bool:
        parts = self.root.parts
        return bool(parts) and all(
            not is_name(name) and part.tensor is None for name, part in parts.items()
        )

    def _below_layers(self, path: str, part: _Part) -> Iterator[tuple[str, _Part]]:
        for name, child in part.parts.items():
            where = f"{path}.{name}" if path else name
            if part.module is not None:
                if not is_name(name) or child.tensor is not None:
                    raise NotWritten(f"has {where} below a layer of torch's own")
                yield where, child
            yield from self._below_layers(where, child)

    def _part(self, part: _Part, indent: int) -> str:
        """The expression that makes a layer, a tensor or a container."""
        if part.module is not None:
            text, needed = layers.layer(part.module)
            if needed is not None:
                self.needs.add(needed)
            return text
        if part.tensor is not None:
            return layers.tensor(part.tensor)
        texts = {name: self._part(child, indent + 4) for name, child in part.parts.items()}
        kind = part.kind
        if kind == "list":
            return _wrapped("nn.ModuleList([", list(texts.values()), "])", indent)
        entries = [f"{name!r}: {text}" for name, text in texts.items()]
        if kind == "dict":
            return _wrapped("nn.ModuleDict({", entries, "})", indent)
        self.needs.add(parts.Block)
        if not all(map(is_name, texts)):
            return _wrapped("Block(**{", entries, "})", indent)
        keywords = [f"{name}={text}" for name, text in texts.items()]
        return _wrapped("Block(", keywords, ")", indent)

    def _access(self, path: str) -> str:
        """`self.layer1[0].conv1`"""
        text, part = "self", self.root
        for name in path.split("."):
            kind = part.kind
            whole = part is not self.root and part.module is None
            if part is self.root and self._numbered:
                text += f"[{name!r}]"
            elif whole and kind == "list":
                text += f"[{name}]"
            elif whole and kind == "dict":
                text += f"[{name!r}]"
            elif is_name(name):
                text += f".{name}"
            else:
                text = f"getattr({text}, {name!r})"
            part = part.parts.get(name) or _Part()
        return text

    # ---------------------------------------------------------------- forward

    def _forward(self) -> Iterator[str]:
        nodes = list(self.graph.nodes)
        arguments = self._placeholders(nodes)
        spelling = Spelling(self.names, f"{arguments[0]}.device", readable=self.readable)
        yield f"    def forward(self, {', '.join(f'{name}: Tensor' for name in arguments)}) -> Any:"
        last = {source: i for i, node in enumerate(nodes) for source in node.all_input_nodes}
        taken = set(arguments)
        section = ""
        for i, node in enumerate(nodes):
            if node.op == "get_attr":
                self.names[node] = self._constant(str(node.target))
            if node.op not in ("call_module", "call_function"):
                continue
            if node.op == "call_module":
                target = str(node.target)
                module = self.module.get_submodule(target)
                if isinstance(module, InputSizes):
                    yield from self._sizes(module, arguments)
                    continue
                place = target.rpartition(".")[0]
                called = self._access(target)
                text: str | None = f"{called}({spelling.arguments(node.args, node.kwargs)})"
            else:
                place = module_path(node) if node.meta.get("nn_module_stack") else section
                text = spelling.call(node)
            if text is None:
                continue
            if place and place != section:
                section = place
                yield f"        # {_comment(place)}"
            ended = [source for source in node.all_input_nodes if last[source] == i]
            free = [self.names[source] for source in ended if self.names[source] in taken]
            taken -= set(free)
            name = self._variable(node, free, taken)
            self.names[node] = name
            yield f"        {name} = {text}"
            if node in last:
                taken.add(name)
        yield f"        return {self._output(nodes[-1], spelling)}"

    def _sizes(self, check: InputSizes, arguments: list[str]) -> Iterator[str]:
        """Lines that refuse inputs of sizes that the graph does not hold for."""
        known = " or ".join(
            f"{name}.shape[1:] != {tuple(shape[1:])}"
            for name, shape in zip(arguments, check.recorded, strict=True)
        )
        recorded = " and ".join(map(size_in_words, check.recorded))
        yield f"        if {known}:"
        for condition in check.conditions:
            for name, argument in zip(check.names, arguments, strict=True):
                condition = re.sub(rf"\b{name}\.shape", f"{argument}.shape", condition)
            needed = check.words or condition
            message = f"This network was made for inputs of {recorded}: it holds for {needed}."
            yield f"            if not ({condition}):"
            yield f"                raise ValueError({message!r})"

    def _placeholders(self, nodes: list[Node]) -> list[str]:
        names: list[str] = []
        for node in nodes:
            if node.op != "placeholder":
                continue
            name = re.sub(r"\W", "_", node.name, flags=re.ASCII)
            while not is_name(name) or name in RESERVED or name in names:
                name = f"input_{name}" if not is_name(name) else f"{name}_"
            self.names[node] = name
            names.append(name)
        if not names:
            raise NotWritten("takes no inputs")
        return names

    def _constant(self, target: str) -> str:
        value = operator.attrgetter(target)(self.module)
        if isinstance(value, Tensor):
            return self._access(target)
        return Spelling({}, "None").value(value)

    def _variable(self, node: Node, free: list[str], taken: set[str]) -> str:
        """A name for a node's value: one that is not read any more, so that memory is let go."""
        value = node.meta.get("val")
        pool = SIZES if value is not None and not isinstance(value, Tensor | tuple | list) else POOL
        # A name of the other pool, or an input's own, would say the wrong thing.
        reused = [name for name in free if name.rstrip("0123456789") in pool]
        if reused:
            return reused[0]
        for name in pool:
            if name not in taken:
                return name
        number = 1
        while f"{pool[0]}{number}" in taken:
            number += 1
        return f"{pool[0]}{number}"

    def _output(self, node: Node, spelling: Spelling) -> str:
        info = getattr(self.graph._codegen, "pytree_info", None)
        leaves = node.args[0]
        if info is None or info.out_spec is None:
            return spelling.value(leaves)
        flat = list(leaves) if isinstance(leaves, list | tuple) else [leaves]
        return self._nested(pytree.tree_unflatten(flat, info.out_spec), spelling)

    def _nested(self, value: Any, spelling: Spelling) -> str:
        """Outputs in dicts, lists and tuples; what is like a dict becomes one."""
        if isinstance(value, dict):
            entries = [f"{key!r}: {self._nested(x, spelling)}" for key, x in value.items()]
            return f"{{{', '.join(entries)}}}"
        if isinstance(value, list | tuple):
            inside = ", ".join(self._nested(x, spelling) for x in value)
            if isinstance(value, list):
                return f"[{inside}]"
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        return spelling.value(value)

    # ---------------------------------------------------------------- the rest of the file

    def _head(self) -> Iterator[str]:
        shapes = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in self.example)
        first, *others = textwrap.wrap(_comment(self.title), 95)
        yield f'"""{first}'
        yield from others
        yield ""
        yield "Written by the Pruning Workbench from the network's graph. It needs torch, and"
        yield f"safetensors to read {_comment(self.weights)} beside it:"
        yield ""
        yield "    from model import load"
        yield ""
        yield f"    model = load()  # in eval mode; takes {shapes}"
        yield '"""'
        yield ""
        yield "from __future__ import annotations"
        yield ""

    def _classes(self) -> Iterator[str]:
        """The classes and functions of ours that the network uses, as they stand here."""
        calls = {node.target for node in self.graph.nodes if node.op == "call_function"}
        needed = {name for name, thing in WIDE.items() if thing in calls or thing in self.needs}
        texts = {name: inspect.getsource(thing) for name, thing in WIDE.items()}
        while True:  # what they use themselves, too
            used = {name for name in WIDE for n in needed if re.search(rf"\b{name}\(", texts[n])}
            if used <= needed:
                break
            needed |= used
        ours: list[Any] = [thing for name, thing in WIDE.items() if name in needed]
        ours += [kind for kind in (parts.DropPath, parts.Block) if kind in self.needs]
        for thing in ours:
            yield from inspect.getsource(thing).rstrip().splitlines()
            yield ""
            yield ""

    def _tail(self) -> Iterator[str]:
        yield ""
        yield ""
        entries = [f"{name!r}: {first!r}" for name, first in self.ties.items()]
        yield _wrapped("TIED: dict[str, str] = {", entries, "}", 0)
        yield '"""Names of weights that are the same as another, which the file holds once."""'
        yield ""
        yield ""
        yield "def with_ties(state: dict[str, Tensor]) -> dict[str, Tensor]:"
        yield "    return state | {name: state[first] for name, first in TIED.items()}"
        yield ""
        yield ""
        yield f"def load(file: str | Path = Path(__file__).parent / {self.weights!r}) -> Model:"
        yield '    """The network with its weights, in eval mode."""'
        yield "    from safetensors.torch import load_file"
        yield ""
        yield "    model = Model()"
        yield "    model.load_state_dict(with_ties(load_file(file)))"
        yield "    return model.eval()"
        yield ""
        yield ""
        yield 'if __name__ == "__main__":'
        yield f"    example = ({', '.join(map(_example, self.example))},)"
        yield "    with torch.no_grad():"
        yield "        outputs = load()(*example)"
        yield "    print(outputs.shape if isinstance(outputs, Tensor) else outputs)"


def _imports(body: str) -> Iterator[str]:
    """What a written file imports, of what it may need."""
    if "math." in body:
        yield "import math"
    if "operator." in body:
        yield "import operator"
    if "Sequence" in body:
        yield "from collections.abc import Sequence"
    yield "from pathlib import Path"
    yield "from typing import Any"
    yield ""
    yield "import torch"
    yield "from torch import Tensor, nn"
    if re.search(r"\bF\.", body):
        yield "from torch.nn import functional as F"


def _example(x: Tensor) -> str:
    if x.is_floating_point():
        dtype = "" if x.dtype is torch.float32 else f", dtype={x.dtype}"
        return f"torch.randn({list(x.shape)}{dtype})"
    return f"torch.zeros({list(x.shape)}, dtype={x.dtype})"


def _wrapped(start: str, entries: list[str], end: str, indent: int) -> str:
    """On one line where it fits, else an entry a line."""
    line = f"{start}{', '.join(entries)}{end}"
    if "\n" not in line and indent + len(line) < WIDTH - 24:
        return line
    space = " " * (indent + 4)
    return "\n".join([start, *[f"{space}{entry}," for entry in entries], f"{' ' * indent}{end}"])


def _comment(text: str) -> str:
    """Text within a docstring or comment: whatever a name holds, it ends neither."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain.replace("\\", "/").replace('"', "'")
