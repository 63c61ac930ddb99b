"""Every error the workbench raises on purpose, and what each means.

    PruningError
    ├── RecipeError           a recipe that cannot be followed
    │   ├── UnknownName       a name no registry has
    │   ├── OutOfRange        a number outside what it may be
    │   └── NewerVersion      written by a later workbench
    ├── ModelError            a model that cannot be worked on
    │   ├── NotFinite         NaN or infinite weights
    │   ├── NothingToPrune    no weights a technique could remove
    │   ├── NotCaptured       operations that cannot be recorded
    │   └── NotTheSame        a compact model that differs from the masked one
    ├── DataError             data that a technique needs and does not have
    ├── FileRefused           a file that is not read, and why
    ├── NoDevice              a device that this machine does not have
    └── RunError              work that could not go on
        ├── Diverged          training left the finite numbers
        ├── Stopped           somebody pressed Stop
        ├── Lost              its process died
        └── StoreError        the workspace cannot be read or written
            ├── Damaged       its file is no store any more
            └── DiskFull      there is no room on its disk

Each message names the thing, the value and the way out, in one sentence a page can show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST = 80
"""Characters of a value that a message quotes."""


def shown(value: object) -> str:
    """A value as a message quotes it: short, whatever somebody handed in."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits, or lists nested so deep
        return f"a {type(value).__name__} too long to show"
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text):,} characters)"


class PruningError(Exception):
    """The root: catch this to catch everything the workbench says on purpose."""


# A ValueError too, for callers of the library who know no errors of ours.
class RecipeError(PruningError, ValueError):
    """A recipe that cannot be followed."""


class UnknownName(RecipeError):
    """A name no registry has; the message lists the known ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        # Sorted, so that people find the name, whatever the order of the registry.
        known = sorted(known)
        quoted = shown(name)
        near = get_close_matches(quoted.strip("'"), known, n=1)
        # A guess ends the sentence with its own mark, so that the full stop belongs to the rest.
        hint = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"There is no {kind} called {quoted}: known are {', '.join(known)}{hint}")


class OutOfRange(RecipeError):
    """A number outside what it may be."""

    def __init__(self, thing: str, value: object, allowed: str) -> None:
        super().__init__(f"{thing} is {shown(value)}, but must be {allowed}.")


class NewerVersion(RecipeError):
    """A recipe written by a later workbench."""

    def __init__(self, version: object, known: int) -> None:
        super().__init__(
            f"This recipe has version {shown(version)}, and this workbench reads up to version "
            f"{known}: update the workbench, or save the recipe again from the one that wrote it."
        )


class ModelError(PruningError):
    """A model that cannot be worked on."""


class NotFinite(ModelError, ValueError):
    """NaN or infinite weights: zero times NaN is NaN, so a mask could not remove them."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(
            f"{name} holds {count:,} weights that are NaN or infinite, and a mask cannot remove "
            "those: load a checkpoint from before training diverged."
        )


class NothingToPrune(ModelError, ValueError):
    """No weights a technique could remove."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} has nothing to prune: {why}")


class NotCaptured(ModelError):
    """Operations that neither torch.export nor torch.fx can record."""

    def __init__(self, what: str, line: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be followed from its inputs to its outputs: {line} stops both "
            f"torch.export and torch.fx ({reason}). Write that line without Python branches on "
            "values (torch.where, torch.cond), or prune it by single weights."
        )


class NotTheSame(ModelError):
    """A compact model whose outputs differ from the masked one's; it is never handed out."""


class DataError(PruningError):
    """Data that a technique needs and does not have."""


class FileRefused(PruningError):
    """A file that is not read: the message says why and what to do instead."""


class FitsAnother(FileRefused):
    """Weights that do not fit the architecture asked for, and do fit others. fits: their names."""

    def __init__(self, refusal: str, fits: Sequence[str]) -> None:
        super().__init__(f"{refusal} They fit {' and '.join(fits)}.")
        self.fits = tuple(fits)


class NoDevice(PruningError, ValueError):
    """A device that this machine does not have; the message lists those it has."""

    def __init__(self, name: object, known: Iterable[str]) -> None:
        super().__init__(
            f"There is no device {shown(name)} on this machine: known are {', '.join(known)}."
        )


class RunError(PruningError):
    """Work that could not go on."""


class Diverged(RunError):
    """Training left the finite numbers."""

    def __init__(self, step: int, epoch: int, lr: float) -> None:
        super().__init__(
            f"Training diverged in step {step}, epoch {epoch}: the loss is no longer a finite "
            f"number at learning rate {lr:g}. Try a tenth of it."
        )


class Stopped(RunError):
    """Somebody pressed Stop."""


class Lost(RunError):
    """The process doing the work died."""


class StoreError(RunError):
    """The workspace cannot be read or written: damaged, newer, deleted, locked or read-only."""


class Damaged(StoreError):
    """The store's file is cut off or overwritten: it can be set aside, and a new one begun."""


class DiskFull(StoreError):
    """There is no room on the workspace's disk: what waits for some may succeed later."""
