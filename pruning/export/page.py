"""One self-contained HTML page: what every report and handout is written as. It opens without a
network, and asks nobody for anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape as escape

from pruning.export.record import Record
from pruning.recipe import Recipe

STYLE = """
:root { --text: #1c2833; --soft: #5d6d7e; --line: #0072b2; --paper: #fff; --rule: #d5d8dc;
        --kept: #eaecee; }
@media (prefers-color-scheme: dark) {
  :root:not(.light) { --text: #ecf0f1; --soft: #aab7b8; --line: #56b4e9; --paper: #17202a;
                      --rule: #34495e; --kept: #2c3e50; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule);
         vertical-align: top; }
th { font-weight: 600; } .soft, figcaption { color: var(--soft); }
figure { margin: 1rem 0; overflow-x: auto; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--rule); } .dense { stroke: var(--soft); stroke-dasharray: 5 4; }
.line { fill: none; stroke: var(--line); stroke-width: 2; } .dot, .pruned { fill: var(--line); }
.kept { fill: var(--kept); } .outline { fill: none; stroke: var(--soft); }
.grid-of { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem; }
ol, ul { padding-left: 1.4rem; } .chart { break-inside: avoid; }
@media print { body { margin: 0; max-width: none; } }
pre { background: var(--kept); padding: .8rem; overflow-x: auto; font-size: .85rem; }
"""


def document(
    title: str, parts: Iterable[str], scripts: Sequence[str] = (), *, light: bool = False
) -> str:
    """The page. parts: HTML of this module's functions; scripts: JavaScript that it runs, in order;
    light: in any theme, where pictures have the colours of one.

    Nothing else is run and nothing is fetched, whatever a name might say: the browser holds to it.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    if scripts:
        # By their digests, and not 'unsafe-inline': a script in somebody's text would run as well.
        policy += f"; img-src data: blob:; script-src {' '.join(map(_digest, scripts))}"
    lines = [
        "<!doctype html>",
        f'<html lang="en"{" class=light" if light else ""}><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        *parts,
        *(f"<script>{text}</script>" for text in scripts),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _digest(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, *, soft: bool = False, strong: bool = False) -> str:
    inner = f"<strong>{escape(text)}</strong>" if strong else escape(text)
    return f'<p class="soft">{inner}</p>' if soft else f"<p>{inner}</p>"


def listed(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def attribute(text: str) -> str:
    """A text between the quotation marks of an attribute."""
    return escape(text, quote=True)


def folded(summary: str, inner: str) -> str:
    """HTML behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], corner: str = "") -> str:
    """heads: of the columns after the first; rows: each with its own head first."""
    columns = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = [f"<figure><table><thead><tr><td>{escape(corner)}</td>{columns}</tr></thead><tbody>"]
    for name, *texts in rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></figure>"])


def figure(picture: str, caption: str) -> str:
    """picture: HTML, as `pictures` draws it."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def recipe_text(recipe: Recipe) -> str:
    """The recipe as people may copy it from the page."""
    return f"<pre>{escape(json.dumps(recipe.to_dict(), indent=2))}</pre>"


def made(record: Record) -> str:
    """When and where: `2026-11-26 12:00, torch 2.14.1, 1 thread of ..., seed 0`."""
    machine = record.machine
    parts = [record.date]
    if machine:
        threads = machine.get("threads")
        plural = "" if threads == 1 else "s"
        parts.append(f"torch {machine.get('torch')}")
        parts.append(f"{threads} thread{plural} of {machine.get('processor')}")
        if machine.get("accelerator"):
            parts.append(f"{machine['accelerator']} ({machine.get('device')})")
    if record.recipe is not None:
        parts.append(f"seed {record.recipe.seed}")
    return ", ".join(part for part in parts if part)
