"""Runs, studies and results as tables, lines and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import colours, example, jobs, words
from dashboard.charts.results import file_bytes
from pruning.events import Finished
from pruning.recipe import ONE_STEP, Recipe
from pruning.runs.results import Answers, Study
from pruning.runs.store import Job

SIDE = 72  # pixels of an answer's picture
MOST_ANSWERS = 12


# ---------------------------------------------------------------- runs


def latest_finished() -> Job | None:
    """The newest finished run; the example while there is no other."""
    return next(iter(jobs.finished(1)), None)


def is_example(job: Job) -> bool:
    return example.is_example(job)


def headline(result: Finished) -> list[tuple[str, str, str]]:
    """(what, dense, final): accuracy or the task's own metric, weights, bytes.

    Of the compact model where there is one.
    """
    dense, final = result.dense, result.deliverable
    lines = []
    if dense.quality and final.quality:
        qualities = dense.quality.text, words.percent(final.quality)
        lines.append((final.quality.name, *qualities))
    lines.append(("weights", words.count(dense.kept), words.count(final.kept)))
    sizes = words.size(dense.size.dense), words.size(file_bytes(final))
    lines.append(("compact file" if result.compact else "sparse file", *sizes))
    return lines


# ---------------------------------------------------------------- a model


def layers(study: Study) -> pd.DataFrame:
    """One row for each layer of a "card" study."""
    layers = study.data["layers"]
    weights = [layer["weights"] for layer in layers]
    return pd.DataFrame(
        {
            "layer": [words.layer_name(layer["name"]) for layer in layers],
            "kind": [layer["kind"] for layer in layers],
            "shape": [words.shape(layer["shape"]) for layer in layers],
            "weights": weights,
            "share": [100 * n / max(sum(weights), 1) for n in weights],
            "MACs": [layer["macs"] for layer in layers],
        }
    )


def totals(study: Study) -> str:
    """The line under the table."""
    data = study.data
    layers = words.plural(len(data["layers"]), "layer")
    covered = (
        f"{data['weights']:,} weights that techniques may remove, "
        f"of {data['parameters']:,} parameters"
    )
    macs, other = data["measurement"]["macs"], data["measurement"].get("macs_other") or 0
    work = f"{words.count((macs or 0) + other)} multiply-accumulates for one example"
    if other:
        work += f" ({words.count(other)} of them belong to no weight)"
    if not macs:
        work = "multiply-accumulates not measured"
    return " · ".join([layers, covered, work])


@dataclass(frozen=True)
class Answer:
    """A test input and the class the model gives it. picture: (high, wide, 4) RGBA."""

    picture: NDArray[np.uint8]
    caption: str
    alt: str
    right: bool


def answers(study: Study, dark: bool) -> list[Answer]:
    """Test inputs in their order: the first ones, and enough later ones with a wrong answer."""
    arrays = study.arrays
    if "predicted" not in arrays:
        return []
    correct = arrays["predicted"] == arrays["targets"]
    # A good model is wrong so rarely that the first inputs alone would show no mistake.
    wrong = np.flatnonzero(~correct)[: MOST_ANSWERS // 3]
    right = np.flatnonzero(correct)[: MOST_ANSWERS - len(wrong)]
    names = study.data["classes"]
    shown = np.sort(np.concatenate([right, wrong]))
    return [_answer(arrays, int(i), names, dark) for i in shown]


def _answer(arrays: dict[str, NDArray[Any]], i: int, names: list[str], dark: bool) -> Answer:
    def name(arr: str) -> str:
        number = int(arrays[arr][i])
        return names[number] if number < len(names) else str(number)

    predicted, target = name("predicted"), name("targets")
    right = bool(arrays["predicted"][i] == arrays["targets"][i])
    caption = predicted if right else f"{predicted}, not {target}"
    alt = f"A test input of class {target}; the model says {predicted}"
    if "confidence" in arrays:
        alt += f", {arrays['confidence'][i] * 100:.0f} % sure"
    inputs = arrays["images"] if "images" in arrays else arrays["series"]
    return Answer(picture(inputs[i], right, dark), caption, f"{alt}.", right)


def flips(
    study: Study, start: int, numbers: Sequence[int], wrong: Answers, dark: bool
) -> list[Answer]:
    """Test examples that one run answers correctly and another does not; none without pictures.

    study: "examples"; start: of these examples in it; wrong: the answers of the run that is wrong.
    """
    arrays = study.arrays
    inputs = arrays.get("images", arrays.get("series"))
    if inputs is None:
        return []
    names = study.data["classes"]

    def name(number: int) -> str:
        return names[number] if 0 <= number < len(names) else str(number)

    shown = []
    for place, number in enumerate(numbers, start):
        target, answer = name(int(wrong.targets[number])), name(int(wrong.final[number]))
        alt = f"Test example {number} of class {target}; one of the two runs says {answer}."
        image = picture(inputs[place], True, dark)
        shown.append(Answer(image, f"{answer}, not {target}", alt, right=False))
    return shown


def picture(image: NDArray[Any], right: bool, dark: bool, side: int = SIDE) -> NDArray[np.uint8]:
    """An input as RGBA in the theme's text colour, with a frame where the answer is wrong.

    image: (high, wide) or (high, wide, 3) in [0, 1], or a series of (length,).
    """
    tones = colours.palette(dark)
    board = _series(image, side) if image.ndim == 1 else np.asarray(image, float)
    factor = max(1, math.ceil(side / board.shape[0]))
    board = board.repeat(factor, 0).repeat(factor, 1)  # whole pixels: nothing is blurred
    rgba = np.zeros((*board.shape[:2], 4))
    if board.ndim == 3:
        rgba[..., :3] = board
        rgba[..., 3] = 1
    else:  # brightness becomes opacity, so that the picture fits either theme
        rgba[..., :3] = _rgb(tones.text)
        rgba[..., 3] = board
    if not right:
        rim = max(3, rgba.shape[0] // 24)
        rgba = np.pad(rgba, ((rim, rim), (rim, rim), (0, 0)))
        inside = np.zeros(rgba.shape[:2], bool)
        inside[rim:-rim, rim:-rim] = True
        rgba[~inside] = [*_rgb(tones.highlight), 1]
    return (rgba.clip(0, 1) * 255).round().astype(np.uint8)


def _series(values: NDArray[Any], side: int) -> NDArray[Any]:
    """A series as a drawn line."""
    low = values.min()
    span = float(values.max() - low) or 1.0
    places = np.linspace(0, len(values) - 1, side)
    heights = (np.interp(places, np.arange(len(values)), values) - low) / span
    y = ((1 - heights) * (side - 7) + 3).round().astype(int)  # rows count from the top
    board = np.zeros((side, side))
    for x in range(side):
        top, bottom = sorted((y[x], y[max(x - 1, 0)]))
        board[top - 1 : bottom + 1, x] = 1
    return board


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


# ---------------------------------------------------------------- studies


def scores_spec(recipe: Recipe) -> dict[str, Any]:
    """What a "scores" study depends on: nothing that a slider moves."""
    names = ["model", "criterion", "options", "granularity", "granularity_options", "seed"]
    spec = {name: getattr(recipe, name) for name in names}
    if recipe.embeddings:  # else the specs, and with them what was scored before, stay as they were
        spec["embeddings"] = True
    if recipe.scope == "by_sensitivity":  # only the layers that may be pruned are measured
        spec["scope"] = recipe.scope
        spec["exclude"] = list(recipe.exclude)
        spec["min_units"] = recipe.min_units
    if recipe.removed:  # they come first in the order, where they may be removed
        spec["removed"] = recipe.removed
        spec["exclude"] = list(recipe.exclude)
        spec["min_units"] = recipe.min_units
    return spec


def reconstruction_spec(recipe: Recipe) -> dict[str, Any]:
    """What a "reconstruction" study depends on: all that decides what is pruned in one step."""
    spec = {name: getattr(recipe, name) for name in ("model", *ONE_STEP)}
    return spec | {"exclude": list(recipe.exclude)}  # as JSON gives it back


def finished_of(model: str) -> list[Job]:
    """Finished runs of a model, newest first."""
    return [job for job in jobs.finished() if job.spec.get("model") == model]
