"""Keras's config -> a program: the layers of a Sequential or Functional model, each in its turn.

Keras has channels last, torch first: every value of more than one dimension is turned once and for
all, and turned back only where a layer looks at the order (Flatten, Reshape, Dense over places).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats.keras import layers
from pruning.formats.keras.layers import READERS, At, Value
from pruning.formats.keras.load import AGAIN, EXPORT, Weights, load
from pruning.formats.onnx.naming import clean
from pruning.formats.onnx.program import Program
from pruning.formats.types import shown

MODELS = ("Sequential", "Functional", "Model")
LAYERS = 2_000
DEEPEST = 8  # models in models
OPEN = 64  # pixels a side, where the model takes any


def program(file: BinaryIO, folder: Path) -> Program:
    """The network that the file describes. FileRefused in words for what is not read."""
    config, weights = load(file, folder)
    converter = _Converter(weights)
    try:
        outputs = converter.model(config, "", "", [], 0)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        raise FileRefused(f"has a config.json that Keras does not write: {AGAIN}.") from None
    finally:
        weights.file.close()
    made = converter.program
    made.outputs = [_kept(converter, value).ref for value in outputs]
    if len(outputs) == 1 and len(outputs[0].shape) == 1:
        made.classes = outputs[0].shape[0]
    return made


def _kept(converter: _Converter, value: Value) -> Value:
    """An output; a softmax at the very end is taken off, as of an ONNX file: the loss has its
    own.
    """
    if value.logits is None or len(value.shape) != 1:
        return value
    made = converter.program
    if f'"{value.ref}"' in json.dumps([step[:-1] for step in made.steps]):
        return value  # something else looks at it, too
    made.steps = [step for step in made.steps if step[-1] != value.ref]
    made.notes.append("The softmax at its end is taken off: the loss has its own.")
    return Value(value.logits, value.shape)


class _Converter:
    """The program on its way. A class because every layer adds to it."""

    def __init__(self, weights: Weights) -> None:
        self.program = Program()
        self.weights = weights
        self.count = 0
        self.paths: dict[str, str] = {}

    def model(
        self, config: dict[str, Any], group: str, path: str, inputs: list[Value], depth: int
    ) -> list[Value]:
        """The outputs of a model, or of one in another.

        group: where its weights lie in the file; path: where its layers lie in the module.
        """
        kind = config["class_name"]
        if kind not in MODELS or depth > DEEPEST:
            raise FileRefused(
                f"is a {shown(kind, 40)}, which is a program of its own: Sequential and Functional "
                f"models are read. {EXPORT.capitalize()}."
            )
        listed = config["config"]["layers"]
        self.count += len(listed)
        if self.count > LAYERS:
            raise FileRefused(f"has more than the {LAYERS:,} layers that are read: {EXPORT}.")
        places = _places(listed, group)
        if kind == "Sequential":
            return self.sequential(listed, places, path, inputs, depth)
        return self.functional(config["config"], listed, places, path, inputs, depth)

    def sequential(
        self,
        listed: list[dict[str, Any]],
        places: list[str],
        path: str,
        inputs: list[Value],
        depth: int,
    ) -> list[Value]:
        values = inputs
        for layer, place in zip(listed, places, strict=True):
            if layer["class_name"] == "InputLayer":
                values = values or [self.input(layer["config"])]
                continue
            if not values:
                values = [self.input(layer.get("build_config", {}) | layer["config"])]
            values = self.layer(layer, place, path, values, depth)
        return values

    def functional(
        self,
        config: dict[str, Any],
        listed: list[dict[str, Any]],
        places: list[str],
        path: str,
        inputs: list[Value],
        depth: int,
    ) -> list[Value]:
        """Calls are made as soon as what they take is there: the list is in no certain order."""
        values: dict[tuple[str, int, int], Value] = {}
        names = [name for name, _, _ in _references(config["input_layers"])]
        waiting: list[tuple[dict[str, Any], str, int, list[tuple[str, int, int]]]] = []
        for layer, place in zip(listed, places, strict=True):
            name = layer["config"]["name"]
            if layer["class_name"] == "InputLayer":
                own = inputs[names.index(name)] if inputs else self.input(layer["config"])
                values[name, 0, 0] = own
                continue
            for number, node in enumerate(layer["inbound_nodes"]):
                waiting.append((layer, place, number, _taken(layer, node)))
        while waiting:
            ready = [call for call in waiting if all(key in values for key in call[3])]
            if not ready:
                raise FileRefused(f"has layers that wait for each other: {AGAIN}.")
            for call in ready:
                layer, place, number, keys = call
                results = self.layer(layer, place, path, [values[key] for key in keys], depth)
                for index, value in enumerate(results):
                    values[layer["config"]["name"], number, index] = value
                waiting.remove(call)
        return [values[key] for key in _references(config["output_layers"])]

    def layer(
        self, layer: dict[str, Any], place: str, path: str, values: list[Value], depth: int
    ) -> list[Value]:
        kind, config = layer["class_name"], layer["config"]
        # A dot in it would make one layer lie in another.
        own = clean(re.sub(r"[./]", "_", str(config["name"]))) or "layer"
        name = f"{path}.{own}" if path else own
        if kind in MODELS:
            return self.model(layer, place, name, values, depth + 1)
        # A class of the owner's own may call itself Dense, and be something else.
        ours = layer.get("registered_name") is None and str(layer.get("module")).startswith("keras")
        if not ours or kind not in READERS:
            raise FileRefused(
                f"has a layer {shown(config['name'])} of kind {shown(kind, 40)}, which is not "
                f"read: {EXPORT}."
            )
        # Called twice it is one layer, with one name.
        if place not in self.paths:
            if path in self.program.names.taken:
                raise FileRefused(f"calls a layer and a model alike, {shown(path)}: {AGAIN}.")
            self.paths[place] = self.program.names.free(name)
        at = At(self.program, self.weights, config, place, self.paths[place], kind)
        return [layers.read(at, values)]

    def input(self, config: dict[str, Any]) -> Value:
        """A new input of the network, channels first."""
        shape = config.get("batch_shape") or config.get("input_shape")
        if not isinstance(shape, list) or not 2 <= len(shape) <= 5:
            raise FileRefused(f"does not say the shape of its inputs: build it, and {AGAIN}.")
        sizes = list(shape[1:])
        if sizes[-1] is None:
            raise FileRefused(f"leaves the number of its input's channels open: {AGAIN}.")
        if None in sizes:
            note = f"It takes inputs of any size; {OPEN} a side is what it is tried and timed at."
            self.program.notes.append(note)
        plain = tuple(OPEN if size is None else layers.whole(size) for size in sizes)
        dtype = "int64" if str(config.get("dtype")).startswith(("int", "uint")) else "float32"
        ref = self.program.result()
        self.program.inputs.append((ref, list(layers.first(plain)), dtype))
        return Value(ref, plain)


def _places(listed: list[dict[str, Any]], group: str) -> list[str]:
    """Where Keras keeps each layer's weights: named by its class, and numbered."""
    used: dict[str, int] = {}
    places = []
    for layer in listed:
        name = _snake(str(layer["class_name"]))
        number = used.get(name, 0)
        used[name] = number + 1
        numbered = f"{name[:60]}_{number}" if number else name[:60]
        places.append(f"{group}{'/' if group else ''}layers/{numbered}")
    return places


def _snake(name: str) -> str:
    """SeparableConv2D -> separable_conv2d, as Keras has it."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _references(value: Any) -> list[tuple[str, int, int]]:
    """["name", 0, 0] or a list of such."""
    if value and isinstance(value[0], str):
        value = [value]
    return [(str(name), int(node), int(index)) for name, node, index in value]


def _taken(layer: dict[str, Any], node: dict[str, Any]) -> list[tuple[str, int, int]]:
    """What a call takes: tensors by where they came from, alone or in one list."""
    keys: list[tuple[str, int, int]] = []
    for argument in node["args"]:
        for each in argument if isinstance(argument, list) else [argument]:
            if not isinstance(each, dict) or each.get("class_name") != "__keras_tensor__":
                raise FileRefused(
                    f"calls its layer {shown(layer['config']['name'])} with more than tensors: "
                    f"{EXPORT}."
                )
            keys += _references(each["config"]["keras_history"])
    extra = {name: value for name, value in node.get("kwargs", {}).items() if value}
    if not keys or {name for name in extra if name not in ("training",)}:
        raise FileRefused(
            f"calls its layer {shown(layer['config']['name'])} with options: {EXPORT}."
        )
    return keys
