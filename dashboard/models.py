"""What is known of a model, from its shipped card or from a study; which techniques fit it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import sample_models
from dashboard import jobs, words
from dashboard.components.strip import Block
from pruning import registry
from pruning.errors import PruningError
from pruning.events import Accuracy, Score
from pruning.formats import datasets
from pruning.recipe import Recipe
from pruning.registry import Entry
from pruning.runs.resolve import describe
from pruning.runs.results import Study
from pruning.storage import default_workspace

TORCHVISION = "torchvision:"
TIMM = "timm:"
CODE = "code:"
HUGGING_FACE = "hf:"
UPLOAD = "upload:"
RUN = "run:"
KINDS = ("conv", "depthwise", "linear", "attention")


@dataclass(frozen=True)
class Facts:
    """The lines at the side. accuracy: on test data, None without any; score: by a metric of the
    task's own; bytes: of the dense file; measured: whether its loss is known.
    """

    title: str
    accuracy: Accuracy | None
    weights: int
    bytes: int
    random: bool = False
    score: Score | None = None
    measured: bool = False

    @property
    def has_data(self) -> bool:
        """Whether anything was measured on test data: a loss, where answers are no classes."""
        return self.accuracy is not None or self.measured


def is_sample(model: str) -> bool:
    return model in _samples()


@cache  # pages ask at every control, and each time it would look for a file of each model
def _samples() -> frozenset[str]:
    return frozenset(sample_models.names())


def examples(model: str) -> int:
    """Training examples of a sample model; 0 where that is not known without loading it."""
    return sample_models.card(model).train if is_sample(model) else 0


def title(model: str) -> str:
    """A model's name for people: of an upload, its file's; with a data set, that one's too."""
    model, data = datasets.parted(model)
    if data is not None:
        return f"{title(model)} on {_data_name(data, default_workspace())}"
    if model.startswith(UPLOAD):
        return _file_name(model, default_workspace())
    if model.startswith(RUN):
        return f"result of run {model.removeprefix(RUN)[:6]}"
    if model.startswith(HUGGING_FACE):
        return Path(model.removeprefix(HUGGING_FACE)).name or model
    return model.removeprefix(TORCHVISION).removeprefix(TIMM).removeprefix(CODE)


def parent_of(model: str) -> str | None:
    """The run whose result a model is; None for a model of any other source."""
    own, _ = datasets.parted(model)
    return own.removeprefix(RUN) if own.startswith(RUN) else None


def root_of(model: str) -> str:
    """The model that a line of runs began with: of a model that is no run's result, itself."""
    seen: set[str] = set()
    while (parent := parent_of(model)) is not None and parent not in seen:
        seen.add(parent)
        try:
            model = str(jobs.job(parent).spec.get("model", ""))
        except PruningError:  # removed long ago
            break
    return model


def data_of(model: str) -> str | None:
    """The name of the data that a model is measured on; None where that is not known at once."""
    own, data = datasets.parted(model)
    if data is not None:
        return _data_name(data, default_workspace())
    root = root_of(own)
    if root != own:
        return data_of(root)
    return sample_models.card(own).data_title if is_sample(own) else None


@lru_cache(maxsize=256)
def _file_name(model: str, place: Path) -> str:
    try:
        return str(describe(model, place)["name"])
    except PruningError:  # of another workspace, or deleted
        return f"upload {model.removeprefix(UPLOAD)[:6]}"


@lru_cache(maxsize=256)
def _data_name(id: str, place: Path) -> str:
    try:
        return datasets.get(id, place).name
    except PruningError:  # of another workspace, or deleted
        return f"data set {id[:6]}"


def facts(model: str) -> Facts | None:
    """None while the study of it runs. Raises PruningError for a model that cannot be loaded."""
    if is_sample(model):
        card = sample_models.card(model)
        return Facts(card.name, card.accuracy, card.weights, card.bytes)
    study = jobs.study("card", model=model)
    if study is None:
        return None
    data = study.data
    return Facts(
        title(model),
        accuracy(study),
        data["weights"],
        data["measurement"]["size"]["dense"],
        data["labelled_random"],
        score(study),
        data["measurement"]["loss"] is not None,
    )


def validation(model: str) -> int:
    """Validation images of a model; 0 while that is not known, or where there are none."""
    if is_sample(model):
        return sample_models.card(model).validation
    study = jobs.study("card", model=model)
    return int(study.data.get("validation") or 0) if study else 0


def accuracy(study: Study) -> Accuracy | None:
    """Of a "card" study, on test data."""
    counts = study.data["measurement"]["accuracy"]
    return Accuracy(counts["correct"], counts["total"]) if counts else None


def score(study: Study) -> Score | None:
    """Of a "card" study of another task than classification, on test data."""
    values = study.data["measurement"].get("score")
    return Score(**values) if values else None


def blocks(study: Study, kept: dict[str, float] | None = None) -> list[Block]:
    """The strip's blocks of a "card" study. kept: layer -> share of its weights."""
    return [
        Block(
            layer["name"],
            layer["kind"],
            tuple(layer["shape"]),
            layer["weights"],
            kept.get(layer["name"], 1.0) if kept else None,
        )
        for layer in study.data["layers"]
    ]


def blocks_of(model: str, study: Study | None) -> list[Block]:
    """The strip's blocks: of the study; while it runs, of a sample's card; none without either."""
    if study is not None:
        return blocks(study)
    if not is_sample(model):
        return []
    # The card lists norms and pools, too: the strip shows what techniques may prune.
    return [
        Block(f"{block.name}.weight", block.kind, block.shape, block.weights)
        for block in sample_models.card(model).blocks
        if block.weights and block.kind in KINDS
    ]


def layer_weights(model: str) -> dict[str, int] | None:
    """Layer that techniques may prune -> its weights; None while that is not known."""
    try:
        study = None if is_sample(model) else jobs.study("card", model=model)
    except PruningError:  # the page says so where it needs the model
        return None
    blocks = blocks_of(model, study)
    return {block.name: block.weights for block in blocks} or None


def layer_outputs(model: str) -> dict[str, int] | None:
    """Layer that techniques may prune -> its outputs, at most; None while that is not known."""
    try:
        study = None if is_sample(model) else jobs.study("card", model=model)
    except PruningError:  # the page says so where it needs the model
        return None
    # Outputs come first, of a transposed convolution second.
    return {block.name: max(block.shape[:2]) for block in blocks_of(model, study)} or None


# ---------------------------------------------------------------- which techniques fit


def why_not(kind: str, entry: Entry, recipe: Recipe, card: dict[str, Any] | None) -> str:
    """Why a technique cannot be picked now, in a sentence; "" where it can.

    card: of the model; None while it is not known, and then everything is offered.
    """
    if kind == "criterion":
        return _mismatch(entry, recipe.granularity) or (_missing(entry, card) if card else "")
    if kind == "granularity":
        criterion = registry.entry("criterion", recipe.criterion)
        return _mismatch(criterion, entry.name) or (_no_units(entry.name, card) if card else "")
    return ""


def _mismatch(criterion: Entry, granularity: str) -> str:
    """Why a criterion cannot score a granularity's units, and which it can."""
    if registry.misfit(criterion.name, granularity) is None:
        return ""
    known = registry.names("granularity")
    offered = [words.technique(name) for name in criterion.tags["granularities"] if name in known]
    return (
        f"{words.capitalized(criterion.name)} does not work by {words.technique(granularity)}: "
        f"{criterion.tags['why']}. It works by {' or '.join(offered)}."
    )


def _missing(criterion: Entry, card: dict[str, Any]) -> str:
    """What a criterion looks at and the model does not have."""
    needs = str(criterion.tags.get("needs", "nothing"))
    if needs == "data" and card["measurement"].get("loss") is None:
        return "It needs data, and there is none for this model."
    if needs == "BatchNorm" and not card.get("norms"):
        return "It looks at the scales of BatchNorm, and this model has none."
    return ""


def _no_units(granularity: str, card: dict[str, Any]) -> str:
    """Why the model has no units of a granularity."""
    why = str(card.get("fits", {}).get(granularity, ""))
    return f"It fits no layer of this model: {why}" if why else ""
