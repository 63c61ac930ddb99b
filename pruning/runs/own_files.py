"""Files that whoever starts the server or the shell names as models: read once, and then kept.

    net.onnx · net.keras                       a network, which brings its own architecture
    resnet18.safetensors                       weights whose names and shapes show of what they are
    torchvision:resnet18=w.pt · my_file.py:build=w.pt · timm:resnet10t=w.pt     weights of that one

What the page takes as an upload, in the same guarded way; a recipe calls it `upload:<id>`. No torch
here, as in `own_models`, which all other names are given to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pruning.errors import PruningError, RecipeError
from pruning.formats import accept, architectures_of
from pruning.formats.uploads import ONNX
from pruning.runs import outlines, own_models
from pruning.runs.own_models import OwnModel

NETWORKS = (".onnx", ".keras")
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
MOST_LISTED = 5


def name(text: str, folder: Path | None = None) -> str:
    """What a recipe calls a model that the starter of this process names.

    text: any model's name, or a file; folder: what relative paths begin in, None: the current one.
    Raises RecipeError, FileRefused; ModelError for code that cannot be built.
    """
    folder = (folder or Path.cwd()).resolve()
    if Path(text).suffix.lower() not in (*NETWORKS, *WEIGHTS):
        return own_models.name(text, folder)
    path, architecture = _parts(text, folder)
    if path.suffix.lower() in NETWORKS:
        if architecture:
            raise RecipeError(
                f"{path.name} brings its own architecture: leave {architecture}= before it away."
            )
        model = ONNX
    elif architecture:
        model = own_models.name(architecture, folder)
    else:
        model = _recognised(path, text)
    kept = accept(path, model, expected=outlines.expected(model)).model
    own_models.remember(OwnModel(text, folder, kept))
    return kept


def _parts(text: str, folder: Path) -> tuple[Path, str]:
    """The file, and the architecture that is named before it ("" where none is)."""
    architecture, _, rest = text.partition("=")
    # A file's own name may hold the sign.
    whole = folder / Path(text).expanduser()
    if not rest or whole.is_file():
        path, architecture = whole, ""
    else:
        path = folder / Path(rest).expanduser()
    if not path.is_file():
        raise RecipeError(f"There is no file {path}: check the path.")
    return path, architecture


def _recognised(path: Path, text: str) -> str:
    """The one architecture that weights show by their names and shapes."""
    fitting = architectures_of(path)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise RecipeError(
            f"{path.name} fits no sample model and no architecture of torchvision: name what it "
            f"was saved from, as in my_file.py:build={text} or timm:resnet10t={text}."
        )
    listed = ", ".join(fitting[:MOST_LISTED])
    raise RecipeError(
        f"{path.name} fits {len(fitting)} architectures ({listed}): name the one that it was saved "
        f"from, as in {fitting[0]}={text}."
    )


def main(words: list[str]) -> int:
    """`python -m pruning.runs.own_files FOLDER MODEL...`: the variable's value for those models,
    typed in that folder; 2 and one sentence where one of them is none.
    """
    folder, *models = words
    try:
        for model in models:
            if name(model, Path(folder)) == model and not own_models.is_own(model):
                raise RecipeError(
                    f"{model} names no code, folder or file: give my_file.py:build, hf:<folder>, "
                    "net.onnx, net.keras or weights.pt; other models are chosen on the page."
                )
    except PruningError as error:
        print(error, file=sys.stderr)
        return 2
    print(os.environ.get(own_models.VARIABLE, "[]"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
