"""Events, studies and results as tables and lines. Pure but for asking the queue which runs there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import colours, example, jobs, words
from pruning.events import Finished
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

SIDE = 72  # pixels of an answer's picture
MOST_ANSWERS = 12


# ---------------------------------------------------------------- runs


def latest_finished() -> Job | None:
    """The newest finished run that removed something; the example when nothing else has."""
    return next(iter(jobs.finished(1)), None)


def is_example(job: Job) -> bool:
    return example.is_example(job)


def headline(result: Finished) -> list[tuple[str, str, str]]:
    """(what, dense, final): accuracy, weights, bytes."""
    dense, final = result.dense, result.final
    file = ("file, packed", words.size(dense.size.dense), words.size(final.size.sparse))
    lines = [("weights", words.count(dense.kept), words.count(final.kept)), file]
    if dense.accuracy and final.accuracy:
        lines.insert(
            0, ("accuracy", words.percent(dense.accuracy.value), words.percent(final.accuracy))
        )
    return lines


# ---------------------------------------------------------------- a model


def layers(study: Study) -> pd.DataFrame:
    """One row for each layer of a "card" study."""
    held = study.data["layers"]
    weights = [layer["weights"] for layer in held]
    return pd.DataFrame(
        {
            "layer": [words.layer_name(layer["name"]) for layer in held],
            "kind": [layer["kind"] for layer in held],
            "shape": [words.shape(layer["shape"]) for layer in held],
            "weights": weights,
            "share": [100 * n / max(sum(weights), 1) for n in weights],
            "MACs": [layer["macs"] for layer in held],
        }
    )


def totals(study: Study) -> str:
    """The line under the table."""
    data = study.data
    macs = data["measurement"]["macs"]
    work = (
        f"{words.count(macs)} multiply-accumulates for one example"
        if macs
        else "multiply-accumulates not measured"
    )
    covered = f"{data['weights']:,} weights that techniques may remove, of {data['parameters']:,} parameters"
    return " · ".join([words.plural(len(data["layers"]), "layer"), covered, work])


@dataclass(frozen=True)
class Answer:
    """A test input and what the model says it is. picture: (high, wide, 4) RGBA."""

    picture: NDArray[np.uint8]
    caption: str
    alt: str
    right: bool


def answers(study: Study, dark: bool) -> list[Answer]:
    """The wrong ones among the first, so that there is something to see."""
    held = study.arrays
    if "predicted" not in held:
        return []
    names = study.data["classes"]
    wrong = np.flatnonzero(held["predicted"] != held["targets"])[: MOST_ANSWERS // 3]
    right = np.flatnonzero(held["predicted"] == held["targets"])[: MOST_ANSWERS - len(wrong)]
    return [_answer(held, int(i), names, dark) for i in np.sort(np.concatenate([right, wrong]))]


def _answer(held: dict[str, NDArray[Any]], i: int, names: list[str], dark: bool) -> Answer:
    said, true = int(held["predicted"][i]), int(held["targets"][i])
    sure = f", {held['confidence'][i] * 100:.0f} % sure" if "confidence" in held else ""
    named = [names[k] if k < len(names) else str(k) for k in (said, true)]
    caption = named[0] if said == true else f"{named[0]}, not {named[1]}"
    alt = f"A test input of class {named[1]}; the model says {named[0]}{sure}."
    inputs = held["images"] if "images" in held else held["series"]
    return Answer(picture(inputs[i], said == true, dark), caption, alt, said == true)


def picture(image: NDArray[Any], right: bool, dark: bool, side: int = SIDE) -> NDArray[np.uint8]:
    """An input as RGBA in the theme's ink, with a frame where the answer is wrong. image: (high, wide[, 3]) in [0, 1], or (length,)."""
    board = _series(image, side) if image.ndim == 1 else np.asarray(image, float)
    factor = max(1, math.ceil(side / board.shape[0]))
    board = board.repeat(factor, 0).repeat(factor, 1)
    rgba = np.zeros((*board.shape[:2], 4))
    if board.ndim == 3:
        rgba[..., :3], rgba[..., 3] = board, 1
    else:
        rgba[..., :3], rgba[..., 3] = _rgb(colours.palette(dark).text), board
    if not right:
        rim = max(3, rgba.shape[0] // 24)
        rgba = np.pad(rgba, ((rim, rim), (rim, rim), (0, 0)))
        inside = np.zeros(rgba.shape[:2], bool)
        inside[rim:-rim, rim:-rim] = True
        rgba[~inside] = [*_rgb(colours.palette(dark).highlight), 1]
    return (rgba.clip(0, 1) * 255).round().astype(np.uint8)


def _series(values: NDArray[Any], side: int) -> NDArray[Any]:
    """A series as a drawn line."""
    span = float(values.max() - values.min()) or 1.0
    at = np.interp(np.linspace(0, len(values) - 1, side), np.arange(len(values)), values)
    y = ((1 - (at - values.min()) / span) * (side - 7) + 3).round().astype(int)
    board = np.zeros((side, side))
    for x in range(side):
        low, high = sorted((y[x], y[max(x - 1, 0)]))
        board[low - 1 : high + 1, x] = 1
    return board


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


# ---------------------------------------------------------------- studies


def scores_spec(recipe: Recipe) -> dict[str, Any]:
    """What a "scores" study depends on: nothing that a slider moves. The seed only where scores are drawn by lot or from data."""
    asked = {
        "model": recipe.model,
        "criterion": recipe.criterion,
        "options": recipe.options,
        "granularity": recipe.granularity,
        "granularity_options": recipe.granularity_options,
        "seed": recipe.seed,
    }
    if recipe.scope == "by_sensitivity":  # what is measured depends on which layers may give
        asked |= {
            "scope": recipe.scope,
            "exclude": list(recipe.exclude),
            "min_units": recipe.min_units,
        }
    return asked


def finished_of(model: str) -> list[Job]:
    """Finished runs of a model, newest first."""
    return [job for job in jobs.finished() if job.spec.get("model") == model]
