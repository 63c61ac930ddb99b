"""Models of other libraries, where those are installed: timm by name, Hugging Face by directory.

Both run the library's own code alone. A directory's weights are safetensors, its configuration
names a class of transformers, and code that comes with it is refused.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import FileRefused, ModelError, UnknownName
from pruning.types import Inputs, Workpiece

RANDOM = "random weights"
SIDE = 224
TOKENS = 16
"""Length of the example of a text model."""


def timm(name: str) -> Workpiece:
    """An architecture of timm: trained where its weights were downloaded before, else random.

    Raises ModelError without timm, UnknownName for a name that it does not have.
    """
    library = _library("timm", f"timm:{name}")
    known = library.list_models()
    # Only a name: timm itself would take one that leads to a hub or a folder.
    if name.partition(".")[0] not in known:
        raise UnknownName("architecture of timm", name, _near(name, known))
    weights = _cached(library, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if weights is None:
            model = library.create_model(name.partition(".")[0], pretrained=False)
        else:
            model = library.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}
            )
    shape = model.default_cfg.get("input_size", (3, SIDE, SIDE))
    title = name if weights is not None else f"{name} ({RANDOM})"
    return Workpiece(title, model.eval(), example=_noise(shape))


def _near(name: str, known: list[str]) -> list[str]:
    """Of timm's thousand names, those that begin alike."""
    start = name[:4].lower()
    return [other for other in known if other.startswith(start)][:20] or known[:20]


def _cached(library: Any, name: str) -> Path | None:
    """The file of trained weights, if it was downloaded before: nothing is fetched here."""
    config = library.get_pretrained_cfg(name)
    hub = getattr(config, "hf_hub_id", None) if config is not None else None
    if not hub:
        return None
    cached = importlib.import_module("huggingface_hub").try_to_load_from_cache(
        hub, "model.safetensors"
    )
    return Path(cached) if isinstance(cached, str) else None


def hugging_face(folder: Path, title: str) -> Workpiece:
    """The model of a directory with config.json and safetensors.

    Raises FileRefused for one without, or with code of its own; ModelError without transformers.
    """
    name = folder.name
    config = _config(folder)
    if "auto_map" in config:
        raise FileRefused(
            f"{name} brings code of its own (auto_map in config.json), which is not run: where you "
            "trust it, load it in a function of yours and name that (my_file.py:build)."
        )
    if not any(folder.glob("*.safetensors")):
        raise FileRefused(
            f"{name} holds no .safetensors: save it with model.save_pretrained(folder)."
        )
    library = _library("transformers", title)
    wanted = (config.get("architectures") or [None])[0]
    kind: Any = getattr(library, wanted, None) if isinstance(wanted, str) else None
    is_model = isinstance(kind, type) and issubclass(kind, library.PreTrainedModel)
    if not is_model:
        raise FileRefused(
            f"{name} names no model of transformers {library.__version__} (architectures is "
            f"{str(wanted)[:60]!a} in config.json): save it with model.save_pretrained(folder)."
        )
    try:
        model: nn.Module = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    except Exception as error:  # a torn or foreign file shows as almost any kind of error
        text = " ".join(str(error).split())[:160].rstrip(".")
        raise FileRefused(
            f"{name} could not be read as {wanted} ({type(error).__name__}: {text}): save it "
            "again with model.save_pretrained(folder)."
        ) from None
    return Workpiece(title, model.eval(), example=_example(model))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise FileRefused(
            f"{folder.name} holds no config.json that is a table: save the model with "
            "model.save_pretrained(folder)."
        )
    return config


def _example(model: Any) -> Inputs | None:
    """One batch of what the model is called with; None for kinds of input that are not known."""
    config = model.config
    if model.main_input_name == "pixel_values":
        side = getattr(config, "image_size", SIDE)
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return _noise((getattr(config, "num_channels", 3), height, width))
    if model.main_input_name == "input_ids" and getattr(config, "vocab_size", 0):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, config.vocab_size, (2, TOKENS), generator=generator)
    return None


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _library(name: str, model: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelError(
            f"{model} needs {name}, which is not installed here: "
            f"`pip install {name}`, then start again."
        ) from None
