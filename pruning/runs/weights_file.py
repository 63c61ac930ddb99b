"""A file of weights in the architecture of a model that has a name, for a verb that reads it once.

It passes the guard that all files from outside pass, and is not kept: `own_files` keeps what is
worked on.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pruning.errors import FileRefused
from pruning.formats import accept, datasets, load_upload
from pruning.formats.uploads import ONNX
from pruning.runs.outlines import expected
from pruning.runs.resolve import on_data, resolve, with_weights

if TYPE_CHECKING:
    from pruning.types import Workpiece


def of_file(file: Path, model: str) -> Workpiece:
    """The file's weights in that model's architecture, with its data.

    model: as a recipe calls it; a network as ONNX or Keras brings its own architecture instead.
    Raises FileRefused where they do not fit, ModelError or RecipeError for no model.
    """
    own, data = datasets.parted(model)
    # The copy is removed with the folder; the model that it is compared with may be an upload
    # itself, and lies in the workspace.
    with TemporaryDirectory(prefix="pruning-weights-") as place:
        folder = Path(place)
        try:
            upload = accept(file, own, folder, expected=expected(own))
        except FileRefused as error:
            if not own.startswith("upload:"):
                raise
            # Nobody typed the name that it is kept by.
            raise FileRefused(str(error).replace(own, resolve(own).name)) from None
        if upload.architecture == ONNX:
            work = resolve(upload.model, folder)
        else:
            _, state = load_upload(upload.id, folder)
            work = with_weights(resolve(own), upload, state)
    return work if data is None else on_data(work, own, data)
