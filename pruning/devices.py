"""Devices: the processor, or an accelerator that torch knows by a name.

A model and whatever is computed of it lie on its device: activations, gradients, Hessians, solved
weights. What is decided lies on the CPU, as plain data: scores, masks, outputs that are judged,
random numbers. So the same seed prunes the same weights wherever the scores were computed, but for
rounding. Graphs are recorded, rewritten and certified on the CPU, in float64, which not every
device has.

    work = pruning.on_device(work, "cuda")      # or "auto", "cuda:1", "mps", "cpu"
    for event in pruning.run(recipe, work): ...
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruning.adapted import Adapted, adapted_like, unadapted
from pruning.errors import NoDevice
from pruning.types import Inputs, Workpiece, parts_of

AUTO = "auto"
CPU = torch.device("cpu")
NAMES = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


# ---------------------------------------------------------------- which there are


def available() -> list[str]:
    """The devices of this machine by name, the best one last."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.append("mps")
    # The first accelerator is the one that people mean by "cuda".
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return names + [f"cuda:{i}" for i in reversed(range(count))]


def chosen(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:1 or mps. auto: cuda, else mps, else the CPU.

    Raises NoDevice for one that is not here.
    """
    here = available()
    if name == AUTO:
        return torch.device(here[-1])
    full = "cuda:0" if name == "cuda" else name
    if not NAMES.fullmatch(name) or full not in here:
        raise NoDevice(name, (AUTO, *here))
    return torch.device(full)


def title(device: torch.device) -> str:
    """What an accelerator calls itself: `NVIDIA H100 80GB HBM3`; "" for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "" if device.type == "cpu" else device.type


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter or buffer lies; the CPU for one that has none."""
    tensors = (*model.parameters(), *model.buffers())
    # What lies on the meta device holds nothing, and is moved nowhere.
    return next((tensor.device for tensor in tensors if not tensor.is_meta), CPU)


# ---------------------------------------------------------------- moved there


def on_device(work: Workpiece, device: str | torch.device = AUTO) -> Workpiece:
    """The workpiece with its model on a device; examples go there a batch at a time.

    The caller's model is left where it is: a copy is moved. On CUDA, convolutions are switched to
    true float32 and to algorithms that repeat, for this process. Raises NoDevice.
    """
    there = chosen(device) if isinstance(device, str) else device
    if there.type == "cuda":
        # TF32, cuDNN's default, keeps 10 bits of each number: scores would order other weights, and
        # who wants speed says so in the recipe (precision).
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    dense = None if work.dense is None else moved(work.dense, there)
    return with_data_there(replace(work, model=moved(work.model, there), dense=dense))


def with_data_there(work: Workpiece) -> Workpiece:
    """The workpiece whose data are computed on where its model lies; itself where they are."""
    there = device_of(work.model)
    changed: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        data = getattr(work, name)
        if data is None:
            continue
        # Those that lie there go nowhere, also where they went to another device until now.
        lies_there = all(tensor.device == there for tensor in data.tensors)
        device = None if lies_there else there
        if data.device != device:
            changed[name] = replace(data, device=device)
    if work.example is not None and parts_of(work.example)[0].device != there:
        changed["example"] = to(work.example, there)
    # A loss with weights of its own is a module, and they have to be where the outputs are.
    if isinstance(work.loss, nn.Module) and tuple(work.loss.state_dict()):
        if device_of(work.loss) != there:
            changed["loss"] = copy.deepcopy(work.loss).to(there)
    return replace(work, **changed) if changed else work


def to(x: Inputs, device: torch.device) -> Inputs:
    """Inputs on a device."""
    placed = tuple(part.to(device) for part in parts_of(x))
    return placed if isinstance(x, tuple) else placed[0]


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself where it lies there already, or a copy of it on the device."""
    if isinstance(model, Adapted):
        return adapted_like(moved(unadapted(model), device), model)
    tensors = (*model.parameters(), *model.buffers())
    if all(tensor.device == device or tensor.is_meta for tensor in tensors):
        return model
    copied = copy.deepcopy(model)
    _share_memory(copied, device)
    copied.to(device)
    for module in copied.modules():
        if isinstance(module, fx.GraphModule):
            _rename_device(module, device)
    return copied


def on_cpu(model: nn.Module) -> nn.Module:
    """The model itself where it lies on the CPU, or a copy there."""
    return moved(model, CPU)


def _share_memory(model: nn.Module, device: torch.device) -> None:
    """Move tensors that lie in one piece of memory together, so that they share it there too.

    Module.to takes each for itself: weights that are tied by their memory would come apart.
    """
    by_storage: dict[int, list[Tensor]] = {}
    for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
        if tensor.numel():
            by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    for tensors in by_storage.values():
        if len(tensors) == 1 or len({tensor.dtype for tensor in tensors}) > 1:
            continue
        first = tensors[0].detach()
        numbers = first.untyped_storage().nbytes() // first.element_size()
        piece = torch.as_strided(first, (numbers,), (1,), 0).to(device)
        for tensor in tensors:
            view = (tensor.size(), tensor.stride(), tensor.storage_offset())
            tensor.data = torch.as_strided(piece, *view)


def _rename_device(module: fx.GraphModule, device: torch.device) -> None:
    """A recorded graph names the device that it was recorded on: where it makes tensors, say."""

    changed = False
    for node in module.graph.nodes:
        args, kwargs = with_device(node.args, device), with_device(node.kwargs, device)
        if args != node.args or kwargs != node.kwargs:
            node.args, node.kwargs = args, kwargs
            changed = True
    if changed:
        module.recompile()


def with_device(arguments: Any, device: torch.device) -> Any:
    """Arguments of a node of a graph, with this device in place of any other."""

    def renamed(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    return fx.node.map_aggregate(arguments, renamed)


# ---------------------------------------------------------------- while it computes


def double(tensor: Tensor) -> Tensor:
    """In float64: on the CPU where the device has none (mps), else where it lies."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked to: only then a clock tells its time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generators from a seed, the device's too, and the caller's put back."""
    ours = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=ours, device_type="cuda" if ours else "cpu"):
        # Not by torch.manual_seed, which sets those of every device, and only ours are put back.
        torch.default_generator.manual_seed(seed)
        if ours:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Most bytes that torch's allocator gave out beyond those before; None where none counts."""
    if device.type != "cuda":
        return None
    run()  # the libraries' own workspaces come with the first call, and stay
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def main(argv: list[str]) -> int:
    """`python -m pruning.devices NAME`: what run.py asks before it starts a server."""
    try:
        device = chosen(argv[0])
    except NoDevice as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"device": str(device), "title": title(device)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
