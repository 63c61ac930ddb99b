"""Coverage: which weights techniques reach, and which they do not and why.

Whatever has weights is prunable, or is named here with its count. A parametrised weight (weight or
spectral norm) is no parameter but computed from others as the model runs: `plain_copy` bakes what
is multiplied into the weight, so that it can be pruned like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pruning.types import EMBEDDINGS, named_weights, place_of

SHOWN = 4
"""Names in a sentence; what is left out is counted."""


INSTANCE = ("__dict__", "__weakref__")
"""Of a class, what Python adds by itself."""


class Uncovered(NamedTuple):
    """A tensor that no technique prunes. weights: numbers in it; why: a clause."""

    weights: int
    why: str


def uncovered(model: nn.Module) -> dict[str, Uncovered]:
    """Parameters with weights that `prunable` leaves out, and why.

    Weights are what has two or more dimensions that are longer than 1: biases, scales and class
    tokens are vectors, however they are shaped.
    Raises NothingToPrune as `prunable` does.
    """
    known = {place_of(weight) for weight in named_weights(model).values()}
    left_out = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or place_of(parameter) in known:
                continue
            if sum(size > 1 for size in parameter.shape) > 1:
                known.add(place_of(parameter))
                full_name = f"{path}.{name}" if path else name
                left_out[full_name] = Uncovered(parameter.numel(), _why(path, module))
    return left_out


def _why(path: str, module: nn.Module) -> str:
    if isinstance(module, parametrize.ParametrizationList):
        return "the weight that is multiplied is computed from it"
    if any(_hook_kind(hook) for hook in module._forward_pre_hooks.values()):
        return "the weight that is multiplied is computed from it"
    if not path:
        return "it is a parameter of the model itself, used in no layer that is known here"
    return f"{type(module).__name__} is no layer whose weights are known here"


def tied(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Prunable weights that go by other names too -> those names."""
    first = {place_of(weight): name for name, weight in named_weights(model).items()}
    names: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        main = first.get(place_of(parameter))
        if main is not None and main != name:
            names.setdefault(main, []).append(name)
    return {name: tuple(others) for name, others in names.items()}


def embeddings(model: nn.Module) -> set[str]:
    """Prunable weights that are only looked up: nothing is multiplied with them."""
    names = set()
    for path, module in model.named_modules():
        if isinstance(module, EMBEDDINGS):
            names.add(f"{path}.weight" if path else "weight")
    return names & named_weights(model).keys()


def notes(model: nn.Module) -> list[str]:
    """What is not covered, and what is pruned under two names: sentences for a run and a page."""
    sentences = []
    left_out = uncovered(model)
    if left_out:
        total = sum(part.weights for part in left_out.values())
        count = f"{len(left_out):,} tensor{'s' if len(left_out) > 1 else ''}"
        reasons: dict[str, list[str]] = {}
        for name, part in left_out.items():
            reasons.setdefault(part.why, []).append(name)
        named = "; ".join(f"{_listed(names)} ({why})" for why, names in reasons.items())
        sentences.append(
            f"{total:,} weights in {count} are not pruned, and no share is of them: {named}."
        )
    for name, others in tied(model).items():
        sentences.append(
            f"{name} is {_listed(list(others))} too, one tensor: what is pruned of one is pruned "
            "of the other."
        )
    return sentences


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN:,} more"


# ---------------------------------------------------------------- parametrised weights


def computed_weights(model: nn.Module) -> bool:
    """Whether any weight is computed from other parameters as the model runs."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            return True
        if any(_hook_kind(hook) for hook in module._forward_pre_hooks.values()):
            return True
    return False


def plain_copy(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """A copy with plain weights, and weight -> what was baked into it ("weight_norm").

    It computes what `model` does in eval mode; the model itself is left as found. What torch cannot
    take off stays, and is uncovered.
    """
    # Old-style hooks leave a computed tensor on the module, which deepcopy refuses by itself.
    computed: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(model, computed)
    modes = [(module, module.training) for module in copied.modules()]
    # In training, spectral norm moves on each time that the weight is read.
    copied.eval()
    baked = {}
    for path, module in list(copied.named_modules()):
        for name, kind in _bake(module):
            baked[f"{path}.{name}" if path else name] = kind
    for module, training in modes:
        module.training = training
    return copied, baked


def _bake(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Make a module's parametrised weights plain, in place: (weight, by what it was made)."""
    if parametrize.is_parametrized(module):
        # Torch makes a class for each parametrised module, a copy shares it with its original, and
        # taking a parametrisation off takes it off the class: the copy needs one of its own.
        shared = type(module)
        own = {name: value for name, value in vars(shared).items() if name not in INSTANCE}
        module.__class__ = type(shared.__name__, shared.__bases__, own)
        lists: dict[str, Any] = dict(module.parametrizations.items())  # type: ignore[union-attr, operator]
        for name, chain in lists.items():
            kind = " and ".join(_plain_name(type(step).__name__) for step in chain)
            try:
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            except (RuntimeError, ValueError):  # its originals cannot hold what they make
                continue
            yield name, kind
    for hook in list(module._forward_pre_hooks.values()):
        kind = _hook_kind(hook)
        if kind:
            # Masks of torch.nn.utils.prune have one spelling, its norms another.
            weight: str = vars(hook).get("name") or vars(hook)["_tensor_name"]
            if kind == "weight_norm":
                remove_weight_norm(module, weight)
            elif kind == "spectral_norm":
                remove_spectral_norm(module, weight)
            else:
                prune.remove(module, weight)  # type: ignore[no-untyped-call]
            yield weight, kind


def _hook_kind(hook: object) -> str:
    """What an old-style hook of torch.nn.utils computes; "" for any other hook."""
    if isinstance(hook, WeightNorm):
        return "weight_norm"
    if isinstance(hook, SpectralNorm):
        return "spectral_norm"
    return "torch.nn.utils.prune" if isinstance(hook, prune.BasePruningMethod) else ""


def _plain_name(name: str) -> str:
    """_WeightNorm -> weight_norm, as torch calls the function."""
    letters = [f"_{c.lower()}" if c.isupper() else c for c in name.strip("_")]
    return "".join(letters).strip("_")


def baked_note(baked: dict[str, str]) -> str:
    """What `plain_copy` did, and what is lost by it."""
    kinds = " and ".join(dict.fromkeys(baked.values()))
    return (
        f"{_listed(list(baked))} {'is' if len(baked) == 1 else 'are'} computed from other "
        f"parameters ({kinds}): this run prunes a copy in which what is multiplied is a plain "
        "weight. The copy computes the same; fine-tuning trains the plain weight, without "
        f"{kinds}."
    )
