"""What weights must be like to fit a model that is no sample's and none of torchvision's.

Of code, directories, timm's names, uploads and runs. The page asks a process of its own, as it
never imports torch; a file may tell another number of classes apart, where the last layer alone
decides that.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from threading import Lock

from pruning.errors import ModelError, PruningError
from pruning.formats.architecture import ANOTHER, answered, described
from pruning.formats.parent import end_with_parent
from pruning.formats.types import Expected
from pruning.runs import cache_keys, own_models
from pruning.runs.resolve import resolve, split
from pruning.storage import default_workspace

OTHERS = ("timm", "upload", "run")
"""Whose shapes are known once the model is there."""

_cache: dict[tuple[str, str], Expected] = {}
_one_at_a_time = Lock()


def expected(model: str) -> Expected | None:
    """What the model's state_dict holds; None where `formats.architecture` knows it.

    Raises ModelError where it cannot be built, RecipeError where nobody who may named it.
    """
    if not own_models.is_own(model) and split(model)[0] not in OTHERS:
        return None
    own_models.check(model)
    # Code changes while the server runs.
    key = (model, cache_keys.facts(model, default_workspace()))
    with _one_at_a_time:
        if key not in _cache:
            _cache[key] = _outline(model) if "torch" in sys.modules else _ask(model)
        return _cache[key]


def _ask(model: str) -> Expected:
    answer = answered("pruning.runs.outlines", model)
    if "refusal" in answer:
        raise ModelError(answer["refusal"])
    return Expected.from_json(answer)


def _outline(model: str) -> Expected:
    from pruning.runs.new_head import with_classes

    work = resolve(model, fetch=False)
    outline = described(work.model.state_dict())
    with suppress(ModelError):
        other = described(with_classes(work, ANOTHER).state_dict()).shapes
        head = (name for name, shape in outline.shapes.items() if other[name] != shape)
        return replace(outline, head=frozenset(head))
    return outline


def main(model: str) -> None:
    """Prints the outline as a line of JSON, or why there is none."""
    try:
        answer = _outline(model).to_json()
    except PruningError as error:
        answer = {"refusal": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1])
