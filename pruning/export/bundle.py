"""bundle.zip and the files in it: everything of a result that somebody may take home."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file, save_model
from torch import fx, nn

from pruning.errors import ModelError, NotCaptured
from pruning.events import Certificate
from pruning.export import read_sparse, replay, source
from pruning.export.card import card
from pruning.export.report import report
from pruning.export.result import Result
from pruning.export.source import WEIGHTS
from pruning.measurement import sparse_file
from pruning.measurement.onnx import NotExported, exported
from pruning.measurement.sizes import prunable_names
from pruning.storage import whole, write_json
from pruning.structure.shrink import shrink_certified
from pruning.types import Inputs

BUNDLE = "bundle.zip"

SMALL_ALREADY = (".gz", ".onnx", ".zip")
"""Files that another compression gains nothing of: ONNX holds the same floats as the weights."""


@dataclass
class Contents:
    """What was written: file -> bytes, in the order in which people look at them; and what there
    is to say, a sentence each (what is missing and why, how far ONNX is from torch).
    """

    files: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write(result: Result, folder: Path) -> Contents:
    """All files of a result into a folder, and the bundle of them.

    What cannot be made is left out, and the card says why. Raises StoreError or DiskFull.
    """
    contents = Contents()
    put = _Put(folder, contents)
    network, certificate = _network(result, contents.notes)
    _weights(result, network, put)
    _onnx(result, network, put)
    _sparse(result, put)
    put.by("state_dict.pt", lambda file: torch.save(result.model.state_dict(), file))
    _recipe(result, certificate, put)
    put.text("report.html", report(result, contents.notes))
    put.text("card.md", card(result, list(contents.files), contents.notes))
    put.by(BUNDLE, lambda file: _zip(file, folder, list(contents.files)))
    return contents


class _Put:
    """Writes files whole, and counts them. A class because every step writes some."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self.folder = folder
        self.contents = contents

    def by(self, name: str, save: Callable[[Path], object]) -> None:
        with whole(self.folder / name) as draft:
            save(draft)
        self.contents.files[name] = (self.folder / name).stat().st_size

    def text(self, name: str, text: str) -> None:
        self.by(name, lambda file: file.write_text(text, encoding="utf-8"))

    def json(self, name: str, data: Any) -> None:
        write_json(self.folder / name, data)
        self.contents.files[name] = (self.folder / name).stat().st_size


# ---------------------------------------------------------------- the network


def _network(result: Result, notes: list[str]) -> tuple[fx.GraphModule | None, Certificate | None]:
    """The network that is handed out, recorded: compact where it can be, else with its zeros."""
    example = result.example
    if example is None:
        notes.append("model.py is missing: the model has no example input to be recorded with.")
        return None, None
    attempts = [result.masks, {}] if result.masks else [{}]
    why = ""
    for masks in attempts:
        try:
            module, certificate = shrink_certified(result.model, masks, example)
        except NotCaptured as error:
            why = str(error)
            break
        except ModelError as error:
            why = str(error)
            continue
        smaller = certificate.kept < certificate.parameters
        if masks and why:
            notes.append(why)
        return cast(fx.GraphModule, module.eval()), certificate if smaller else None
    notes.append(f"model.py is missing: {why}")
    return None, None


def _weights(result: Result, network: fx.GraphModule | None, put: _Put) -> None:
    """model.safetensors and model.py, which belong together."""
    if network is not None and result.example is not None:
        try:
            title = f"{result.name}. {result.sentence}."
            written = source.write(network, result.example, title)
        except ModelError as error:
            put.contents.notes.append(str(error))
        else:
            put.by(WEIGHTS, lambda file: save_file(written.state, file, {"format": "pt"}))
            put.text("model.py", written.text)
            return
    model = network if network is not None else result.model
    save_weights(model, put.folder / WEIGHTS)
    put.contents.files[WEIGHTS] = (put.folder / WEIGHTS).stat().st_size


def _onnx(result: Result, network: fx.GraphModule | None, put: _Put) -> None:
    notes = put.contents.notes
    if result.example is None:
        notes.append("model.onnx is missing: the model has no example input to be recorded with.")
        return
    model = network if network is not None else result.model
    try:
        program, apart = exported(model, result.example)
    except NotExported as error:
        notes.append(f"model.onnx is missing: the network {error}.")
        return
    put.by("model.onnx", lambda file: file.write_bytes(program))
    notes.append(
        f"model.onnx gives PyTorch's outputs in ONNX Runtime within {apart:.1e} (max |difference|)."
    )


def _sparse(result: Result, put: _Put) -> None:
    state = result.model.state_dict()
    packed = sparse_file.compressed(state, prunable_names(result.model))
    put.by("sparse.safetensors.gz", lambda file: file.write_bytes(packed))
    put.text("read_sparse.py", inspect.getsource(read_sparse))


def _recipe(result: Result, certificate: Certificate | None, put: _Put) -> None:
    """recipe.json, certificate.json and replay.py with what it needs."""
    certificate = result.certificate or certificate
    if certificate is not None:
        put.json("certificate.json", certificate.to_dict())
    if result.recipe is None or result.finished is None:
        put.contents.notes.append(
            "There is no recipe.json and no replay.py: these weights came from a file."
        )
        return
    put.text("recipe.json", json.dumps(result.recipe.to_dict(), indent=2) + "\n")
    if result.stopped:
        put.contents.notes.append(
            "There is no replay.py: the run was stopped, and its recipe would go on to the end."
        )
        return
    put.text("replay.py", replay.SCRIPT)
    put.json("expected.json", replay.expected(result))
    start = replay.start_state(result)
    if start:
        put.by("start.safetensors", lambda file: save_file(start, file))


def _zip(file: Path, folder: Path, names: list[str]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            stored = zipfile.ZIP_STORED if name.endswith(SMALL_ALREADY) else None
            archive.write(folder / name, name, stored)


# ---------------------------------------------------------------- single files, for the shell


def save_weights(model: nn.Module, file: Path) -> None:
    """A model's state as safetensors. Raises StoreError or DiskFull."""
    with whole(file) as draft:
        save_model(model, str(draft), metadata={"format": "pt"})


def save_network(network: fx.GraphModule | None, example: Inputs | None, file: Path) -> None:
    """A compact model's weights, and beside them its source, under the same name.

    Raises ModelError where there is no compact model, or it cannot be written out.
    """
    if network is None or example is None:
        raise ModelError(
            f"{file.name} was not written, for this run made no compact model: prune whole "
            "channels or heads (--granularity channel)."
        )
    written = source.write(network, example, f"The compact model of {file.name}.", file.name)
    with whole(file) as draft:
        save_file(written.state, draft, {"format": "pt"})
    with whole(file.with_suffix(".py")) as draft:
        draft.write_text(written.text, encoding="utf-8")


def save_onnx(model: nn.Module, example: Inputs | None, file: Path) -> None:
    """A model as an ONNX program, held against torch. Raises ModelError where it cannot be."""
    if example is None:
        raise ModelError(f"{file.name} was not written, for the model has no example input.")
    try:
        program, _ = exported(model, example)
    except NotExported as error:
        raise ModelError(f"{file.name} was not written, for the model {error}.") from None
    with whole(file) as draft:
        draft.write_bytes(program)
