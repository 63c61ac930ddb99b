"""Dependency groups kept on disk, so that an architecture is followed once and not once a process.

Kept under a hash of everything that the groups depend on: classes, plain attributes, shapes, ties,
and the versions of all code that was followed. Where part of that code has no version (classes of a
notebook, generated code, hooks), nothing is kept. A file holds numbers and JSON, is checked against
the model when it is read, and is made anew where it does not fit.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import RunError
from pruning.storage import default_workspace, delete_oldest, source_hash, whole
from pruning.structure.groups import Blocked, DependencyGroups, Group, Member

MOST_FILES = 64
MOST_BYTES = 64 * 2**20

OURS = ("pruning", "sample_models")
OUTSIDE_THE_HASH = ("pruning.formats", "pruning.runs")
"""Ours, but `source_hash` does not read them."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError)


class _NoVersion(Exception):
    """Something that the groups depend on has no name that holds in another process."""


def file_of(architecture: Hashable, model: nn.Module) -> Path | None:
    """Where the groups of an architecture are kept.

    architecture: all that a captured graph depends on, of nested tuples and plain values. None
    where part of it cannot be named, or where there is no workspace: `choose` makes no folders.
    """
    workspace = default_workspace()
    if not workspace.is_dir() or any(_hooked(module) for module in model.modules()):
        return None
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["pruning"] = source_hash()
    try:
        text = _named(architecture, versions)
    except _NoVersion:
        return None
    digest = hashlib.sha256(f"{sorted(versions.items())}\n{text}".encode()).hexdigest()
    return workspace / "graphs" / f"{digest[:32]}.npz"


def _hooked(module: nn.Module) -> bool:
    """Whether code beside the class changes what the module computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _named(value: Any, versions: dict[str, str]) -> str:
    """A text that is the same in every process, and differs where the value does.

    versions: gets the versions of the packages that classes and functions come from.
    """
    if isinstance(value, tuple):
        return f"({', '.join(_named(part, versions) for part in value)})"
    if isinstance(value, type) or callable(value):
        return _lasting_name(value, versions)
    text = repr(value)
    if " at 0x" in text:  # an object without a repr of its own
        raise _NoVersion(text)
    return text


def _lasting_name(thing: Any, versions: dict[str, str]) -> str:
    """Module and name of a class or function that can be resolved by them.

    Generated classes, such as those of torch.fx, cannot, nor can lambdas: _NoVersion.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    resolved: Any = sys.modules.get(module or "")
    for part in (name or "").split("."):
        resolved = getattr(resolved, part, None)
    if module is None or resolved is not thing:
        raise _NoVersion(name)
    package = module.partition(".")[0]
    if module.startswith(OUTSIDE_THE_HASH):
        raise _NoVersion(module)
    if package not in (*OURS, "torch", "builtins"):
        top = sys.modules[package]
        version = getattr(top, "__version__", None)
        installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
        # What lies elsewhere is being written on: its version says nothing.
        if version is None or not str(getattr(top, "__file__", "")).startswith(installed):
            raise _NoVersion(module)
        versions[package] = str(version)
    return f"{module}.{name}"


# ---------------------------------------------------------------- files


def read(file: Path, tensors: Mapping[str, Tensor]) -> DependencyGroups | None:
    """What `write` kept; None where there is nothing that fits the model.

    tensors: its parameters and buffers.
    """
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            groups = _from_plain(json.loads(str(arrays["head"])), arrays["units"])
        _check(groups, tensors)
        file.touch()  # the longest unread is deleted first
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error):
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return None
    return groups


def write(file: Path, groups: DependencyGroups) -> None:
    """Keep the groups; where the disk does not take them, they are made again next time."""
    places = [[name, dim, len(units)] for (name, dim), units in groups.unit_of_index.items()]
    head: dict[str, Any] = {
        "how": groups.how,
        "first_name": dict(groups.first_name),
        "groups": [asdict(group) for group in groups.groups],
        "blocked": [asdict(block) for block in groups.blocked],
        "places": places,
    }
    units = np.concatenate(list(groups.unit_of_index.values())) if places else np.zeros(0, np.int64)
    with suppress(OSError, RunError):
        with whole(file) as draft:
            np.savez_compressed(
                draft, allow_pickle=False, head=np.array(json.dumps(head)), units=units
            )
        delete_oldest(file.parent.glob("*.npz"), MOST_FILES, MOST_BYTES)


def _from_plain(head: dict[str, Any], units: Any) -> DependencyGroups:
    groups = []
    for group in head["groups"]:
        members = tuple(Member(**member) for member in group.pop("members"))
        groups.append(Group(**group, members=members))
    blocked = []
    for block in head["blocked"]:
        shapes = tuple(tuple(shape) for shape in block.pop("shapes"))
        blocked.append(Blocked(**block, shapes=shapes))
    ends = np.cumsum([size for _, _, size in head["places"]], dtype=np.int64)
    if len(units) != (ends[-1] if len(ends) else 0):
        raise ValueError("the file does not hold as many indices as it names")
    unit_of_index = {
        (str(name), int(dim)): units[end - size : end].astype(np.int64)
        for (name, dim, size), end in zip(head["places"], ends, strict=True)
    }
    first_name = {str(name): str(first) for name, first in head["first_name"].items()}
    return DependencyGroups(
        tuple(groups), tuple(blocked), unit_of_index, first_name, str(head["how"])
    )


def _check(groups: DependencyGroups, tensors: Mapping[str, Tensor]) -> None:
    """Raises where the groups are of another model."""
    for (name, dim), units in groups.unit_of_index.items():
        if tensors[name].shape[dim] != len(units):
            raise ValueError(f"{name} has another shape")
        if len(units) and not -1 <= units.min() <= units.max() < groups.units:
            raise ValueError(f"{name} belongs to units that there are none of")
    for group in groups.groups:
        for member in group.members:
            groups.unit_of_index[member.parameter, member.dim]
