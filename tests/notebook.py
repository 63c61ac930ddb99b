"""Run a notebook's cells in order, in one namespace, as Jupyter would; no Jupyter is needed.

    python -m tests.notebook FILE [--write]

prints what each cell gave as a line of JSON: the kinds of its outputs. With --write the outputs are
put into the file, charts as pictures too, for whoever reads it where nothing runs.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from PIL import Image

from pruning import measurement
from pruning.measurement import speed

WIDTH = 760  # pixels of a chart's picture
COLOURS = 64
CHROMIUM = "/usr/bin/chromium"
PLOTLY = "application/vnd.plotly.v1+json"


def run(notebook: dict[str, Any], *, pictures: bool) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell. Raises what a cell raises."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    every = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            every.append(_outputs("".join(cell["source"]), namespace, pictures))
            cell["execution_count"] = len(every)
            for output in every[-1]:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = len(every)
            cell["outputs"] = every[-1]
    return every


def _outputs(source: str, namespace: dict[str, Any], pictures: bool) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    value = None
    with redirect_stdout(streams["stdout"]), redirect_stderr(streams["stderr"]):
        exec(compile(tree, "<cell>", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    for name, stream in streams.items():
        # A progress bar writes over its own line: what is seen at the end is the last one.
        text = "\n".join(line.rpartition("\r")[2] for line in stream.getvalue().split("\n"))
        if text.strip():
            outputs.append({"output_type": "stream", "name": name, "text": text.splitlines(True)})
    if value is not None:
        data = _shown(value, pictures)
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": data})
    return outputs


def _shown(value: Any, pictures: bool) -> dict[str, Any]:
    """The value by kind, as a notebook chooses among them."""
    if isinstance(value, go.Figure):
        data: dict[str, Any] = {PLOTLY: json.loads(value.to_json())}
        if pictures:
            data["image/png"] = base64.b64encode(_picture(value)).decode()
        return data | {"text/plain": ["a chart"]}
    if hasattr(value, "_repr_html_"):
        return {"text/html": value._repr_html_().splitlines(True), "text/plain": ["a table"]}
    return {"text/plain": [repr(value)]}


def _picture(figure: go.Figure) -> bytes:
    from playwright.sync_api import sync_playwright

    height = figure.layout.height or 400
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": height})
        page.set_content(figure.to_html(config={"displayModeBar": False}, default_width=WIDTH))
        page.wait_for_selector(".main-svg")
        picture = Image.open(io.BytesIO(page.locator(".plotly").first.screenshot()))
        browser.close()
    small = io.BytesIO()
    # A chart has few colours: so it takes a third of the bytes.
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(small, "png")
    return small.getvalue()


def main(words: list[str]) -> None:
    file, write = Path(words[0]), "--write" in words
    notebook = json.loads(file.read_text(encoding="utf-8"))
    if not write:
        # As conftest has it: five passes of each model instead of a second of them.
        measurement.timings = partial(speed.timings, budget=0.0)
    for outputs in run(notebook, pictures=write):
        print(json.dumps([sorted(output.get("data", {"stream": 0})) for output in outputs]))
    if write:
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        file.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
