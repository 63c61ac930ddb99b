"""torchvision's classification architectures, by name.

With trained weights where those were downloaded, else with random ones, which the name says.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pruning.errors import DataError, FileRefused, UnknownName
from pruning.types import Workpiece
from sample_models.data import PATIENCE, Progress, patience

WEIGHTS = ("auto", "trained", "random")
RANDOM = "random weights"
"""What a workpiece's name says when nothing was learnt: "resnet18 (random weights)"."""


def load(name: str, *, weights: str = "auto", progress: Progress | None = None) -> Workpiece:
    """The architecture with an example of noise and no data. Raises UnknownName, FileRefused."""
    if weights not in WEIGHTS:
        raise UnknownName("kind of weights", weights, WEIGHTS)
    known = _weights(name)
    if weights == "trained" and not _cached(known).is_file():
        try:
            fetch(name, progress=progress)
        except DataError:
            weights = "random"  # offline: the label says so
    if weights == "random" or not _cached(known).is_file():
        side = 299 if name == "inception_v3" else 224
        return Workpiece(f"{name} ({RANDOM})", build(name), example=_example(side))
    model = _trained(name, known)
    example = _example(known.transforms.keywords["crop_size"])
    return Workpiece(name, model, example=example, classes=tuple(known.meta["categories"]))


def build(name: str, seed: int = 0, classes: int | None = None) -> nn.Module:
    """Initialised from the seed, in eval mode; torch's own random state stays as it was.

    classes: how many it tells apart; None: torchvision's own number.
    """
    from torchvision import models

    options = _options(name) | ({} if classes is None else {"num_classes": classes})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # inception_v3 and googlenet warn of a change of their initialisation.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        model: nn.Module = models.get_model(name, weights=None, **options)
    return model.eval()


def outline(name: str, classes: int | None = None) -> nn.Module:
    """The architecture without numbers: its weights are on the meta device and take no memory.

    torchvision's largest have a gigabyte, and making random numbers for them takes seconds.
    """
    with _Weightless():
        return build(name, classes=classes)


class _Weightless(TorchFunctionMode):
    """Inside, what layers make their weights of is on the meta device.

    Only that: `torch.device("meta")` would move the numbers too that some compute their widths
    from, and RegNets are not built then.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """The file of trained weights in torch's hub cache, downloaded if need be. Raises DataError."""
    known = _weights(name)
    path = _cached(known)
    if path.is_file():
        return path
    if progress:
        progress(f"Weights of {name}", 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with patience(PATIENCE):
            torch.hub.download_url_to_file(known.url, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"The trained weights of {name} could not be downloaded ({error}): connect to the "
            f"internet, or put {path.name} into {path.parent}, or go on with random weights, which "
            "do for structure but not for accuracy."
        ) from error
    if progress:
        progress(f"Weights of {name}", 1, 1)
    return path


def _weights(name: str) -> Any:
    """The plainest trained weights: ImageNet from scratch, as in the paper, at the paper's size."""
    from torchvision import models

    known = {member.name: member for member in models.get_model_weights(name)}
    return known.get("IMAGENET1K_V1") or known["IMAGENET1K_SWAG_LINEAR_V1"]


def _cached(known: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(known.url).name


def _trained(name: str, known: Any) -> nn.Module:
    from torchvision import models

    try:
        with torch.random.fork_rng(devices=[]), _data_only():
            model: nn.Module = models.get_model(name, weights=known, **_options(name))
    except Exception as error:  # a torn or foreign file shows as almost any kind of error
        problem = f"{_cached(known)} does not hold the weights of {name} ({type(error).__name__})"
        raise FileRefused(f"{problem}: delete it, and download it again.") from error
    return model.eval()


def _options(name: str) -> dict[str, Any]:
    """Without the auxiliary heads, which only training uses: pruning them would look free."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _example(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@contextmanager
def _data_only() -> Iterator[None]:
    """Inside, torch.load runs nothing that a file says: torchvision does not pass weights_only."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before
