"""From the name of a model to the model.

digits-cnn · torchvision:resnet18 · timm:resnet10t · upload:<id> · run:<id>, and what the starter
named: code:my_file.py:build · hf:PATH; each also with a data set that somebody brought:
digits-cnn@data:<id>
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import ModelError, RecipeError, UnknownName, shown
from pruning.formats import datasets, load_network, load_upload
from pruning.formats.uploads import ONNX, Upload
from pruning.recipe import Recipe
from pruning.recorded import recorded
from pruning.runs import cache_keys, own_models
from pruning.runs.fitting_data import with_fitting_data
from pruning.runs.results import RunResult, has_result, load_run
from pruning.runs.store import Job, Store, state_word
from pruning.storage import default_workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruning.formats.datasets.batches import Scale
    from pruning.types import Workpiece

LONGEST_ID = 64

CHANGED = (
    "{name} has changed since these weights were brought, and they fit it no more: bring the file "
    "again."
)

CACHED = 3
"""Models that a worker keeps in memory: the current one, and what it is compared with."""

Progress = Callable[[str, int, int], None]
"""(what is being fetched, how much is done, of how much)"""

_cache: OrderedDict[tuple[object, ...], Workpiece] = OrderedDict()
"""The most recently used last."""


def resolve(
    model: str,
    workspace: Path | None = None,
    *,
    fetch: bool = True,
    progress: Progress | None = None,
) -> Workpiece:
    """The model of that name, with its data. It is shared: copy before you change it.

    workspace: whose uploads and runs are meant; fetch: download data that is not here (else do
    without it). Raises UnknownName, DataError when fetching fails, or what loading raises.
    """
    workspace = workspace or default_workspace()
    # The files' state is in the key: the same name may stand for other weights tomorrow.
    key = (model, workspace, cache_keys.facts(model, workspace), fetch)
    if key not in _cache:
        # Uploads and runs are new weights in a model that has a name itself.
        base = partial(resolve, workspace=workspace, fetch=fetch, progress=progress)
        own, data = datasets.parted(model)
        kind, id = split(own)
        if data is not None:
            # Its own data need not be fetched.
            own_data = partial(resolve, workspace=workspace, fetch=False, progress=progress)
            datasets.get(data, workspace)  # before the model, which may take a download
            work = on_data(own_data(own), own, data, workspace)
        elif kind == "run":
            work = _of_run(id, workspace, base)
        elif kind == "upload":
            work = _of_upload(id, workspace, base)
        elif own_models.is_own(model):
            work = _own(model, workspace)
        elif kind == "timm":
            from pruning.runs import hubs

            work = hubs.timm(id)
        else:
            import sample_models

            work = sample_models.load(model, data=fetch or _has_data(model), progress=progress)
        # Dropped only once the new one is loaded, as loading a run may use the one it began from.
        while len(_cache) >= CACHED:
            _cache.popitem(last=False)
        _cache[key] = work
    _cache.move_to_end(key)
    return _cache[key]


def describe(model: str, workspace: Path | None = None) -> dict[str, Any]:
    """What is known of a model without loading it, and its "kind".

    The card of a sample, what checking an upload found, or a run's recipe and result.
    """
    workspace = workspace or default_workspace()
    model, data = datasets.parted(model)
    if data is not None:
        return {**describe(model, workspace), "data": datasets.get(data, workspace).to_json()}
    kind, id = split(model)
    if kind == "run":
        job, result = _finished(id, workspace)
        finished = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
        return {"kind": kind, "name": model, "recipe": job.spec, "result": finished}
    if kind == "upload":
        return {"kind": kind, "name": model, **_upload(id, workspace)}
    if kind == "sample":
        import sample_models

        return {"kind": kind, **dataclasses.asdict(sample_models.card(id))}
    own_models.check(model)
    return {"kind": kind, "name": model, "architecture": id}


def split(model: str) -> tuple[str, str]:
    """("sample" | "torchvision" | "timm" | "upload" | "run" | "code" | "hf", the rest).

    UnknownName for another prefix.
    """
    model, _ = datasets.parted(model)
    kind, colon, rest = model.partition(":")
    if not colon:
        return "sample", model
    if kind not in (*own_models.OTHERS, own_models.CODE, own_models.HUGGING_FACE):
        known = (
            "torchvision:<architecture>",
            "timm:<architecture>",
            "upload:<id>",
            "run:<id>",
            "hf:<folder>",
        )
        raise UnknownName("source of models", kind, known)
    return kind, rest


def on_data(work: Workpiece, model: str, data: str, workspace: Path | None = None) -> Workpiece:
    """A model with a data set that somebody brought in place of its own.

    model: the name that says how its inputs were scaled. Raises RecipeError, DataError.
    """
    from pruning.formats.datasets.batches import joined

    workspace = workspace or default_workspace()
    usual = _usual_scale(model, workspace)
    return joined(work, datasets.get(data, workspace), usual, workspace)


def _usual_scale(model: str, workspace: Path) -> Scale | None:
    """How the inputs of a model's own training were scaled, where that is known."""
    from pruning.formats.datasets.batches import IMAGENET, scale_of

    model, _ = datasets.parted(model)
    kind, id = split(model)
    if kind == "run":
        return _usual_scale(recipe_of(_finished(id, workspace)[0].spec).model, workspace)
    if kind == "upload":
        return _usual_scale(str(_upload(id, workspace)["architecture"]), workspace)
    if kind in ("torchvision", "timm"):
        return scale_of(*IMAGENET)
    import sample_models

    if model not in sample_models.names():
        return None
    return scale_of(*sample_models.normalisation(model))


def recipe_of(spec: dict[str, Any]) -> Recipe:
    """The recipe of a run's job: its spec says too how many threads the run may use.

    Also one that today would be refused: `recorded.check` says so before it is run.
    """
    return recorded({name: value for name, value in spec.items() if name != "threads"})


def _has_data(model: str) -> bool:
    """Whether a model's data can be had without the network."""
    import sample_models

    # What is no sample has no data of ours to download.
    if model not in sample_models.names() or sample_models.card(model).needs == "nothing":
        return True
    from sample_models.data import find

    return find(sample_models.card(model).data) is not None


def _own(model: str, workspace: Path) -> Workpiece:
    """A model that whoever started this workbench named, and nobody else's."""
    own = own_models.known(model, workspace)
    if own.function:
        from pruning.runs import own_code

        return own_code.load(own)
    from pruning.runs import hubs

    return hubs.hugging_face(own.path, own.name)


def _of_upload(id: str, workspace: Path, base: Callable[[str], Workpiece]) -> Workpiece:
    """Uploaded weights in the architecture they were matched with, with that one's data."""
    architecture, state = load_upload(id, workspace)
    upload = Upload(**_upload(id, workspace))
    if architecture == ONNX:
        return _of_network(upload, load_network(id, workspace), state)
    return with_weights(base(architecture), upload, state)


def with_weights(work: Workpiece, upload: Upload, state: dict[str, Tensor]) -> Workpiece:
    """The weights of a file in the architecture of a model, with its data.

    work: of the architecture that the file was matched with; left as found. Raises ModelError where
    they fit it no more.
    """
    name = f"{upload.name} as {upload.architecture}"
    # What was pruned of that model says nothing of these weights.
    work = replace(work, name=name, dense=None, masks=None)
    own = {key: value.shape for key, value in work.model.state_dict().items()}
    if own == {key: value.shape for key, value in state.items()}:
        model = copy.deepcopy(work.model)
        _fill(model, state)
        return replace(work, model=model)
    # Of another number of classes, whose names the file does not hold.
    model = _of_classes(work, upload.architecture, upload.classes)
    _fill(model, state)
    return replace(work, model=model, classes=(), train=None, validation=None, test=None)


def _of_classes(work: Workpiece, architecture: str, classes: int | None) -> nn.Module:
    """The architecture, which gives so many outputs. Raises ModelError where it cannot."""
    import sample_models

    if architecture.startswith(sample_models.PREFIX):
        return sample_models.build(architecture, classes=classes)
    from pruning.runs.new_head import with_classes

    if classes is None:  # it fitted when it was brought
        raise ModelError(CHANGED.format(name=architecture))
    return with_classes(work, classes)


def _of_network(upload: Upload, program: dict[str, Any], state: dict[str, Tensor]) -> Workpiece:
    """A network that came as ONNX, with the data of a sample that its shapes fit."""
    from pruning.formats.onnx.module import example, module
    from pruning.types import Workpiece

    work = Workpiece(upload.name, module(program, state), example=example(program))
    shapes = [tuple(shape) for _, shape, _ in program["inputs"]]
    return with_fitting_data(work, shapes[0], upload.classes) if len(shapes) == 1 else work


def _fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights that match the model by name; of tied ones a file holds only one name."""
    from pruning.types import place_of

    own = model.state_dict()
    there = {place_of(own[name]): name for name in state if name in own}
    # A model may ask which version of itself wrote them, as MNASNet does: they fit this one.
    whole = OrderedDict(state)
    whole._metadata = own._metadata  # type: ignore[attr-defined]
    for name, value in own.items():
        if name not in state and place_of(value) in there:
            whole[name] = state[there[place_of(value)]]
    try:
        model.load_state_dict(whole)
    except RuntimeError:  # of code, which was edited since
        raise ModelError(CHANGED.format(name=type(model).__name__)) from None


def _of_run(id: str, workspace: Path, base: Callable[[str], Workpiece]) -> Workpiece:
    """The model that a run started from, with the weights and masks that the run ended with."""
    import torch
    from safetensors.torch import load_file

    from pruning.prepare import plain

    job, result = _finished(id, workspace)
    work = base(recipe_of(job.spec).model)
    # A copy, because the base stays in the cache for others, and plain, as the run pruned it.
    model = plain(work.model)
    _fill(model, load_file(result.weights))
    masks = {name: torch.from_numpy(keep) for name, keep in result.masks().items()}
    name = f"run {id} of {work.name}"
    return replace(work, name=name, model=model, dense=work.reference.model, masks=masks)


def _finished(id: str, workspace: Path) -> tuple[Job, RunResult]:
    """A run that ended with a model: it is finished, or was stopped after a whole epoch or step."""
    job = Store(workspace).job(id)
    kept = job.state == "finished" or (job.state == "stopped" and has_result(job.folder))
    if job.kind != "run" or not kept:
        is_now = state_word(job.state)
        raise RecipeError(
            f"Run {id} has no model to work on: it is {is_now}. Choose a finished run."
        )
    return job, load_run(job.folder)


def upload_architecture(id: str, workspace: Path) -> str:
    """The model whose architecture an upload's weights are of. Raises RecipeError."""
    return str(_upload(id, workspace)["architecture"])


def _upload(id: str, workspace: Path) -> dict[str, Any]:
    """What `upload.json` says. Raises RecipeError where there is none."""
    file = workspace / "uploads" / id / "upload.json"
    # The id may come from an address: it must not lead out of the folder, nor be too long for one.
    if not id.isalnum() or len(id) > LONGEST_ID or not file.is_file():
        raise RecipeError(
            f"There is no upload {shown(id)} in this workspace: open the file again on the Model "
            "page."
        )
    about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return about
