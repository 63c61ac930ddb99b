"""A data set's reading process: `python -m pruning.formats.datasets.reader_process FOLDER NAME`.

The file is stdin; of a folder, FOLDER/ask.json has the path. It sets limits on itself first, and
gives up the network and all other files where it can. FOLDER/ask.json also says what to do:
{"target": column, "named": whether whoever started the server named it, "source": folder or null}.
It writes x.bin, y.npy and part.npy (see writer.py) and answers in FOLDER/answer.json, plain JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.confine import confine
from pruning.formats.parent import end_with_parent
from pruning.formats.reader_process import bind, leave

MODULE = "pruning.formats.datasets.reader_process"


def answer(file: BinaryIO, name: str, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What was read, as plain data; a refusal is an answer too."""
    # Imported here, under the limits, like all that reads.
    from pruning.formats import guard
    from pruning.formats.datasets import source
    from pruning.formats.datasets.types import LESS

    most, _ = limits.NAMED if question["named"] else limits.UPLOADED
    try:
        with guard.guarded(name, LESS):
            if question["source"]:
                return source.of_folder(Path(question["source"]), folder, most).to_json()
            return source.of_file(file, str(question["target"]), folder, most).to_json()
    except FileRefused as refused:
        return {"refusal": str(refused)}
    raise AssertionError("guarded either returns or raises")


def main() -> None:
    end_with_parent()
    folder = Path(sys.argv[1])
    question = json.loads((folder / "ask.json").read_bytes())
    written, cpu = limits.NAMED if question["named"] else limits.UPLOADED
    bind(wall=2 * cpu, cpu=cpu, written=written)
    confine(folder, [Path(question["source"])] if question["source"] else [])
    leave(folder, answer(sys.stdin.buffer, sys.argv[2], folder, question))


if __name__ == "__main__":
    main()
