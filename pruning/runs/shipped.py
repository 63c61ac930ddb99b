"""Studies of sample models that are shipped with them: a cold server's first pages wait for none.

    python -m pruning.runs.shipped      makes them all anew, in sample_models/studies

A shipped study answers only the question and the weights that it was made of: both stand beside it.
That it is what the study computes today is tested. Shipped are what the first pages ask of models
whose data come with the packages; of others, what can be measured depends on the machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from pruning.runs.resolve import resolve
from pruning.runs.results import save_study
from pruning.runs.store import Store
from pruning.storage import SAMPLES, write_json

FOLDER = SAMPLES / "studies"
QUESTION = "question.json"
"""In a shipped study's folder: its spec, and the digest of the model's weights."""

FIRST = "digits-cnn"
"""The model that the workbench opens with: of it all is shipped that pages ask for at first."""

CARDS = (
    "digits-cnn",
    "digits-depthwise",
    "digits-mlp",
    "digits-resnet",
    "digits-vit",
    "mnist1d-cnn",
    "mnist1d-mlp",
)

CRITERIA = ("magnitude", "taylor")
CHECKED = {
    "model": FIRST,
    "granularity": "weight",
    "granularity_options": {},
    "units": 256,
    "seed": 0,
}
"""What the criterion check opens with."""

SPECS: tuple[dict[str, Any], ...] = (
    *({"what": "card", "model": model} for model in CARDS),
    {"what": "weights", "model": FIRST},
    {"what": "structure", "model": FIRST},
    {
        "what": "scores",
        "model": FIRST,
        "criterion": "magnitude",
        "options": {},
        "granularity": "weight",
        "granularity_options": {},
        "seed": 0,
    },
    *({"what": "units", **CHECKED, "criterion": name, "options": {}} for name in CRITERIA),
    {"what": "criterion_check", **CHECKED, "layer": "conv3.weight"},
)


def name_of(spec: dict[str, Any]) -> str:
    """The folder of a shipped study: `digits-cnn-card`, `digits-cnn-units-taylor`."""
    parts = [spec["model"], spec["what"]]
    if spec["what"] == "units":
        parts.append(spec["criterion"])
    return "-".join(parts)


def find(spec: dict[str, Any]) -> Path | None:
    """The folder of the shipped study that answers it; None where none does."""
    if spec not in SPECS:  # which also keeps names from outside out of paths
        return None
    folder = FOLDER / name_of(spec)
    try:
        question = json.loads((folder / QUESTION).read_text(encoding="utf-8"))
        if question == {"spec": spec, "weights": _digest(spec["model"])}:
            return folder
    except (OSError, ValueError):  # not made yet, or torn
        pass
    return None


def submit(store: Store, spec: dict[str, Any], key: str, priority: int = 0) -> str:
    """The job of a study: finished where the answer is shipped, else queued; its id."""
    folder = find(spec)
    if folder is None:
        return store.submit("study", spec, key=key, priority=priority)
    return store.record_study(spec, key, [folder / "study.npz", folder / "study.json"])


def make(spec: dict[str, Any], folder: Path) -> None:
    """Work a study out and write it as it is shipped."""
    from pruning import studies

    with tempfile.TemporaryDirectory() as place:
        work = resolve(spec["model"], Path(place), fetch=False)
        data, arrays = studies.make(spec, work)
        save_study(folder, data, arrays)
    _compress(folder / "study.npz")
    write_json(folder / QUESTION, {"spec": spec, "weights": _digest(spec["model"])})


def _compress(file: Path) -> None:
    """A workspace's arrays lie uncompressed, to be read fast; shipped ones are kept small."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def _digest(model: str) -> str:
    weights = SAMPLES / "weights" / f"{model}.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def main() -> int:
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    for spec in SPECS:
        folder = FOLDER / name_of(spec)
        make(spec, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder.name}: {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
