"""From the name of a model to the model: a sample, a torchvision architecture, an upload, or what a run left.

digits-cnn · torchvision:resnet18 · upload:<id> · run:<id>
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import RecipeError, UnknownName
from pruning.recipe import Recipe
from pruning.runs import cache_keys
from pruning.runs.results import RunResult, load_run
from pruning.runs.store import Job, Store
from pruning.storage import default_workspace

if TYPE_CHECKING:
    from pruning.types import Workpiece

KEPT = 3
"""Models that a worker holds on to: the one on the bench, and what it is compared with."""

Progress = Callable[[str, int, int], None]
"""(what is being fetched, how much is done, of how much)"""

_kept: OrderedDict[tuple[object, ...], Workpiece] = OrderedDict()


def resolve(
    model: str,
    workspace: Path | None = None,
    *,
    fetch: bool = True,
    progress: Progress | None = None,
) -> Workpiece:
    """The model of that name, with its data. It is shared: copy before you change it, as the engine does.

    workspace: the workspace whose uploads and runs are meant; fetch: download data that is not here (else do without it).
    Raises UnknownName, DataError when fetching fails, or what loading raises.
    """
    workspace = workspace or default_workspace()
    key = (model, workspace, cache_keys.facts(model, workspace), fetch)
    if key not in _kept:
        work = _load(model, workspace, _Ways(fetch, progress))
        while len(_kept) >= KEPT:
            _kept.popitem(last=False)
        _kept[key] = work
    _kept.move_to_end(key)
    return _kept[key]


@dataclass(frozen=True)
class _Ways:
    """How to come by data."""

    fetch: bool
    progress: Progress | None


def describe(model: str, workspace: Path | None = None) -> dict[str, Any]:
    """What is known of a model without loading it, under "kind": its card, what the upload said, or the run's recipe and result."""
    workspace = workspace or default_workspace()
    kind, id = split(model)
    if kind == "run":
        job, result = _run(id, workspace)
        finished = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
        return {"kind": kind, "name": model, "recipe": job.spec, "result": finished}
    if kind == "upload":
        return {"kind": kind, "name": model, **_upload(id, workspace)}
    if kind == "torchvision":
        return {"kind": kind, "name": model, "architecture": id}
    import sample_models

    return {"kind": kind, **dataclasses.asdict(sample_models.card(id))}


def split(model: str) -> tuple[str, str]:
    """("sample" | "torchvision" | "upload" | "run", the rest). Raises UnknownName for another prefix."""
    kind, colon, rest = model.partition(":")
    if not colon:
        return "sample", model
    if kind not in ("torchvision", "upload", "run"):
        raise UnknownName(
            "source of models", kind, ("torchvision:<architecture>", "upload:<id>", "run:<id>")
        )
    return kind, rest


def _load(model: str, workspace: Path, ways: _Ways) -> Workpiece:
    kind, id = split(model)
    if kind == "run":
        return _pruned(id, workspace, ways)
    if kind == "upload":
        return _brought(id, workspace, ways)
    import sample_models

    return sample_models.load(model, data=ways.fetch or _here(model), progress=ways.progress)


def _here(model: str) -> bool:
    """Whether a model's data can be had without the network."""
    import sample_models

    if model not in sample_models.names() or sample_models.card(model).needs == "nothing":
        return True
    from sample_models.data import find

    return find(sample_models.card(model).data) is not None


def _brought(id: str, workspace: Path, ways: _Ways) -> Workpiece:
    """Somebody's weights in the architecture they chose, with that one's data."""
    from pruning.formats import load_upload

    architecture, state = load_upload(id, workspace)
    base = resolve(architecture, workspace, fetch=ways.fetch, progress=ways.progress)
    model = copy.deepcopy(base.model)
    model.load_state_dict(state)
    return replace(base, name=f"{_upload(id, workspace)['name']} as {architecture}", model=model)


def _pruned(id: str, workspace: Path, ways: _Ways) -> Workpiece:
    """The model that a run started from, with the weights that the run ended with."""
    from safetensors.torch import load_model

    job, result = _run(id, workspace)
    base = resolve(
        Recipe.from_dict(_plain(job.spec)).model,
        workspace,
        fetch=ways.fetch,
        progress=ways.progress,
    )
    model = copy.deepcopy(base.model)
    load_model(model, str(result.weights))
    return replace(base, name=f"run {id} of {base.name}", model=model)


def _run(id: str, workspace: Path) -> tuple[Job, RunResult]:
    job = Store(workspace).job(id)
    if job.kind != "run" or job.state != "finished":
        raise RecipeError(
            f"Run {id} has no model to work on: it is {job.state}. Choose a finished run."
        )
    return job, load_run(job.folder)


def _upload(id: str, workspace: Path) -> dict[str, Any]:
    file = workspace / "uploads" / id / "upload.json"
    if not id.isalnum() or not file.is_file():
        raise RecipeError(
            f"There is no upload {id!r} in this workspace: open the file again on the Model page."
        )
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return held


def _plain(spec: dict[str, Any]) -> dict[str, Any]:
    """A run's spec without what is not of its recipe."""
    return {name: value for name, value in spec.items() if name != "threads"}
