"""card.md: what was done, its figures with intervals, and what each file of the bundle is for."""

from __future__ import annotations

import re

from pruning.export.page import made
from pruning.export.result import Result
from pruning.metrics import figure_rows

FILES = {
    "model.py": "The network as plain PyTorch: `from model import load; model = load()`.",
    "model.safetensors": "Its weights, under the names of model.py.",
    "model.onnx": "The same network for ONNX Runtime and others.",
    "state_dict.pt": "The weights with zeros in place, for the original architecture: "
    '`model.load_state_dict(torch.load("state_dict.pt", weights_only=True))`.',
    "sparse.safetensors.gz": "The same, without the zeros: a bitmask and the values kept.",
    "read_sparse.py": "Reads that file with numpy or torch.",
    "recipe.json": "What was asked: `python -m pruning run recipe.json` does it again.",
    "certificate.json": "How the compact model was held against the masked one.",
    "replay.py": "Runs the recipe again with the workbench's engine, and compares the figures.",
    "expected.json": "The figures that it compares with.",
    "start.safetensors": "The weights that the run started from.",
    "report.html": "All of this as one page with pictures; opens offline.",
}
"""File -> what it is for."""


def card(result: Result, files: list[str], notes: list[str]) -> str:
    """files: the names of those that are there; notes: what there is to say about them."""
    lines = [f"# {_plain(result.name)}", "", f"**{_plain(result.sentence)}.**", ""]
    lines += [_plain(made(result)), ""]
    stages = result.stages()
    if stages:
        lines += ["## Figures", "", f"| | {' | '.join(map(_plain, stages))} |"]
        lines.append("|---" * (len(stages) + 1) + "|")
        for name, texts in figure_rows(stages):
            lines.append(f"| {_plain(name)} | {' | '.join(map(_plain, texts))} |")
        lines.append("")
    if notes:
        lines += ["## Notes", "", *[f"- {_plain(note)}" for note in notes], ""]
    lines += ["## Files", ""]
    lines += [f"- `{name}`: {about}" for name, about in FILES.items() if name in files]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text without what Markdown or HTML would make something else of."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
