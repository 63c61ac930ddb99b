"""Models of one's own, named by whoever starts the server or the shell: never by an upload or link.

    my_package.my_file:build · my_file.py:build     Python, which is run
    hf:PATH                                         a Hugging Face directory, which is read
    net.onnx · weights.pt                           a file, which is read and kept (own_files.py)

A recipe calls them `code:my_file.py:build`, `hf:PATH` and, of a file, `upload:<id>`. The names lie
in a variable that every process inherits, and in the workspace, since its workers may be older than
this server. Code that is in neither is refused before anything of it is looked at. No torch here:
pages ask too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pruning.errors import RecipeError, shown
from pruning.formats.datasets.types import parted
from pruning.runs import process_id
from pruning.storage import write_json

VARIABLE = "PRUNING_MODELS"
"""A JSON list of [name, folder, what was kept of a file or ""], as run.py writes it."""

KEPT = "own_models"
"""A folder of the workspace, with a file for each server that uses it."""

CODE, HUGGING_FACE = "code", "hf"
OTHERS = ("torchvision", "upload", "run", "timm")
MOST_FILES = 200

NOT_NAMED = (
    "{name} is {what} of somebody's own, and this workbench was not started with it: whoever "
    "starts it can name it, with --model {name} behind `python3 run.py` or a verb of the shell."
)

TWICE_NAMED = (
    "{name} is another model for each of two servers of this workspace, {places}: end one of them, "
    "or give it a workspace of its own with PRUNING_HOME."
)


@dataclass(frozen=True)
class OwnModel:
    """A name as its owner typed it, and the folder that it was typed in.

    kept: of a file, the upload that was made of it; "" of code and directories.
    """

    name: str
    folder: Path
    kept: str = ""

    @property
    def model(self) -> str:
        """What a recipe calls it."""
        if self.kept or self.name.startswith(f"{HUGGING_FACE}:"):
            return self.kept or self.name
        return f"{CODE}:{self.name}"

    @property
    def path(self) -> Path:
        """The file or folder that is meant; of an installed package, where it would lie here."""
        if self.model == self.name:
            return self.folder / Path(self.name.partition(":")[2]).expanduser()
        place = self.name.rpartition(":")[0]
        if place.endswith(".py"):
            return self.folder / Path(place).expanduser()
        return self.folder.joinpath(*place.split(".")).with_suffix(".py")

    @property
    def function(self) -> str:
        """The function of code; "" of a directory."""
        return "" if self.model == self.name else self.name.rpartition(":")[2]


def name(text: str, folder: Path | None = None) -> str:
    """What a recipe calls a model that the starter of this process names.

    text: any model's name; those of samples, torchvision and the like come back as they are.
    folder: what relative paths begin in; None: the current one. Raises RecipeError.
    """
    kind, colon, rest = text.partition(":")
    if (not colon and not text.endswith(".py")) or kind in OTHERS:
        return text
    own = OwnModel(text.removeprefix(f"{CODE}:"), (folder or Path.cwd()).resolve())
    if kind == HUGGING_FACE:
        if not rest or not own.path.is_dir():
            raise RecipeError(f"{text} names no folder: give the one that config.json lies in.")
    elif not own.function.isidentifier() or own.function.endswith(".py"):
        raise RecipeError(
            f"{text} names no function: add the one that builds the model, as in {text}:build."
        )
    elif own.name.rpartition(":")[0].endswith(".py") and not own.path.is_file():
        raise RecipeError(f"There is no file {own.path}: check the path before {own.function}.")
    remember(own)
    return own.model


def named() -> list[OwnModel]:
    """Those that this process was started with, in their order."""
    return _read(os.environ.get(VARIABLE, "[]"))


def keep(workspace: Path) -> None:
    """Write them into the workspace, for workers that run already. Raises StoreError.

    What servers named that have ended is forgotten: until then their runs, which wait, may need it.
    """
    rows = _rows(named())
    server = process_id.me()
    for file, owner, _ in _kept(workspace):
        if process_id.dead(owner) or (owner == server and not rows):
            with suppress(OSError):
                file.unlink()
    if rows:
        # Never into another server's file: both are somebody's who named models for its workers.
        name = hashlib.sha256(server.encode()).hexdigest()[:16]
        write_json(workspace / KEPT / f"{name}.json", {"server": server, "models": rows})


def known(model: str, workspace: Path | None = None) -> OwnModel:
    """The model of that name; RecipeError where nobody who may named it.

    workspace: whose server may have named it; None: this process's own starter alone.
    """
    model, _ = parted(model)
    own = named()
    for each in own:
        if each.model == model:
            return each
    kept = _kept(workspace) if workspace is not None else []
    named_as = {each.path: each for _, _, models in kept for each in models if each.model == model}
    if len(named_as) > 1:
        raise RecipeError(
            TWICE_NAMED.format(name=shown(model).strip("'"), places=_places(named_as))
        )
    for each in named_as.values():
        return each
    kind, _, rest = model.partition(":")
    what = "code" if kind == CODE else "a folder"
    quoted = shown(rest if kind == CODE else model).strip("'\"")
    raise RecipeError(NOT_NAMED.format(name=quoted, what=what))


def is_own(model: str) -> bool:
    return model.partition(":")[0] in (CODE, HUGGING_FACE)


def check(model: str) -> None:
    """RecipeError for a model of one's own that this process was not started with."""
    if is_own(model):
        known(model)


def files(own: OwnModel) -> list[Path]:
    """What a model is made of: its file with those beside it, or what a directory holds.

    None of a file that was kept: that one does not change.
    """
    if own.kept:
        return []
    folder = own.path if own.path.is_dir() else own.path.parent
    patterns = ("*.py",) if own.function else ("*.json", "*.safetensors")
    if not folder.is_dir():
        return []
    inside = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return [file for file in inside if file.is_file()][:MOST_FILES]


def _kept(workspace: Path) -> list[tuple[Path, str, list[OwnModel]]]:
    """(file, server, its models) of this machine's servers: another one's folders are not here."""
    kept = []
    for file in sorted((workspace / KEPT).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):  # torn, or somebody else's
            data = json.loads(file.read_text(encoding="utf-8"))
            owner = str(data["server"])
            if owner.rsplit(":", 2)[0] == process_id.host() and owner.count(":") >= 2:
                kept.append((file, owner, _models(data["models"])))
    return kept


def _read(text: str) -> list[OwnModel]:
    """Raises nothing: what somebody else wrote there names no model."""
    try:
        return _models(json.loads(text))
    except (ValueError, TypeError):
        return []


def _places(paths: Iterable[Path]) -> str:
    return " and ".join(sorted(map(str, paths)))


def _models(rows: list[list[str]]) -> list[OwnModel]:
    return [OwnModel(str(name), Path(folder), *map(str, kept)) for name, folder, *kept in rows]


def _rows(own: list[OwnModel]) -> list[list[str]]:
    return [[each.name, str(each.folder), each.kept] for each in own]


def remember(own: OwnModel) -> None:
    """Beside what was named before; the same name again is the newest."""
    others = [other for other in named() if other.name != own.name]
    os.environ[VARIABLE] = json.dumps(_rows([*others, own]))
