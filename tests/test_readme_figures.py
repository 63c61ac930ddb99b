"""README quotes what the benches' results say: each figure here, beside the cell that it is of.

A table that is made again and a README that is not are how stale figures stood there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard import charts
from pruning import registry

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "bench" / "results"
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
Row = dict[str, str]
IN_WORDS = {4: "four", 7: "seven", 8: "eight", 17: "seventeen", 22: "twenty-two"}
"""Counts that README writes out: one that changes is written there and here."""


def tables(name: str) -> list[list[Row]]:
    """The tables of a result, each a list of rows: heading -> cell."""
    made: list[list[Row]] = []
    heads: list[str] = []
    for line in (RESULTS / f"{name}.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            heads = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not heads:
            heads = cells
            made.append([])
        elif not set(line) <= set("|-: "):
            made[-1].append(dict(zip(heads, cells, strict=True)))
    return made


def row(name: str, first: str, table: int = 0, **also: str) -> Row:
    """The row that begins with `first`, and has `also` in its columns."""
    [found] = [
        cells
        for cells in tables(name)[table]
        if next(iter(cells.values())) == first
        and all(cells[heading.replace("_", " ")] == value for heading, value in also.items())
    ]
    return found


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text.replace(",", ""))]


def mean(cell: str) -> float:
    return numbers(cell)[0]


def whole(cell: str) -> str:
    return f"{mean(cell):.0f}"


def criteria() -> list[str]:
    weights, before, steps = {}, "0.9 before", "steps"
    for name in ("taylor", "fisher", "magnitude", "obs", "movement"):
        weights[name] = row("criteria", name)
    dense = row("criteria", "dense, trained as long")
    return [
        whole(weights["taylor"][before]),
        whole(weights["magnitude"][before]),
        whole(weights["taylor"][steps]),
        whole(weights["fisher"][steps]),
        str(mean(weights["obs"][before])),
        weights["movement"]["0.9 after"],
        dense["0.9 after"],
    ]


def channels() -> list[str]:
    table = tables("criteria")[2]
    rows = {cells["criterion"]: cells for cells in table}
    others = [
        mean(cells["0.8 after"])
        for name, cells in rows.items()
        if name != "reconstruction" and not name.startswith("dense")
    ]
    return [
        rows["magnitude"]["0.5 after"],
        rows["dense, trained as long"]["0.5 after"],
        rows["reconstruction"]["0.8 after"],
        str(max(others)),
    ]


def reconstructed() -> list[str]:
    # Columns by their places: model, channels pruned, how, weights, as pruned, recalibrated, two
    # cheaper repairs, reconstructed, seconds.
    half: dict[tuple[str, str], list[str]] = {}
    for table in tables("reconstruct"):
        for cells in table:
            values = [cell.replace("**", "") for cell in cells.values()]
            if values[1] == "50%":
                half[values[0].split(" ")[0], values[2]] = values
    digits = half["digits-resnet", "magnitude, each layer"]
    fashion = half["fashion-resnet20", "magnitude, each layer"]
    chosen = half["fashion-resnet20", "reconstruction, anywhere"]
    _, low, high = numbers(digits[8])
    return [
        str(mean(digits[4])),
        f"{low} to {high}",
        digits[9],
        whole(fashion[4]),
        whole(fashion[8]),
        whole(fashion[9]),
        whole(chosen[8]),
        whole(digits[5]),
    ]


def checked() -> list[str]:
    """ρ of single weights, over all layers of the shipped models that were checked."""
    by_table = [
        {cells["criterion"]: cells for cells in table} for table in tables("criterion_check")
    ]
    weights = [rows for rows in by_table if "obs" in rows]
    pooled = {
        name: [mean(rows[name]["size, all layers"]) for rows in weights]
        for name in ("taylor", "fisher", "magnitude")
    }
    near = pooled["taylor"] + pooled["fisher"]
    residual = by_table[-1] if "bn_scale" in by_table[-1] else {}
    best = max(mean(cells["size, in layers"]) for cells in residual.values())
    return [
        f"{min(near)} to {max(near)}",
        f"{min(pooled['magnitude'])} to {max(pooled['magnitude'])}",
        str(best),
    ]


def compact() -> list[str]:
    resnet = row("finetune_compact", "digits-resnet")["mean − control"]
    vit = row("finetune_compact", "digits-vit")["mean − control"]
    return [f"{float(resnet):.1f}", f"{-float(vit):.1f}"]


def tickets() -> list[str]:
    text = (RESULTS / "lottery-digits.md").read_text(encoding="utf-8")
    dense = mean(re.search(r"^Dense: (.*)$", text, re.M)[1])  # type: ignore[index]
    last = tables("lottery-digits")[0][-1]
    shot = last["one shot, trained from the same start"]
    return [
        last["weights kept"].replace(" %", ""),
        f"{dense - mean(last['tickets']):.1f}",
        f"{dense - mean(shot):.0f}",
    ]


def mnist() -> list[str]:
    rows = {cells["weights kept"]: cells for cells in tables("lottery-mnist")[0]}
    dense, last = mean(rows["100.0 %"]["accuracy"]), mean(rows["3.6 %"]["accuracy"])
    other = mean(rows["3.6 %, same mask, re-initialised"]["accuracy"])
    return [f"{dense:.1f}", f"{dense - last:.2f}", "3.6", f"{last - other:.1f}"]


def files() -> list[str]:
    table = next(rows for rows in tables("measure") if "80 % pruned" in rows[0])
    plain, packed = [], []
    for cells in table:
        for share in ("80 % pruned", "90 % pruned", "95 % pruned"):
            first, second = cells[share].split(", gzip ")
            plain.append(mean(first))
            packed.append(mean(second))
    return [str(edge(values)) for values in (plain, packed) for edge in (min, max)]


def page() -> list[str]:
    measured = tables("page")[0]
    release = measured[0]
    others = [mean(cells["to the picture"]) for cells in measured if cells[""].startswith("to ")]
    return [
        release["messages"],
        whole(release["sent"]),
        whole(release["server"]),
        whole(release["to the picture"]),
        f"{min(others) / 1000:.2f} to {max(others) / 1000:.2f}",
    ]


def class_room() -> list[str]:
    everything = row("class_room", "**all**")
    handed_out = tables("class_room")[0][-1]
    return [
        f"{mean(everything['p50 ms']) / 1000:.2f}",
        f"{mean(everything['p95 ms']) / 1000:.2f}",
        f"{mean(handed_out['p50 ms']) / 1000:.1f}",
        f"{mean(handed_out['p99 ms']) / 1000:.1f}",
    ]


CLAIMS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "criteria": (
        r"both (\d+) % against (\d+) % on `digits-mlp`.*?in ten steps they do \((\d+) and (\d+) %\)"
        r".*?keeps ([\d.]+) % in one step.*?is ahead \(([\d.]+ ± [\d.]+)\), level with dense "
        r"trained as long \(([\d.]+ ± [\d.]+)\)",
        criteria,
    ),
    "channels": (
        r"stands at ([\d.]+ ± [\d.]+) % \(five seeds; dense trained as long, ([\d.]+ ± [\d.]+) %\)"
        r".*?pruned at ([\d.]+ ± [\d.]+) % when .*? at ([\d.]+) % at best",
        channels,
    ),
    "reconstruct": (
        r"magnitude, ([\d.]+) % right as pruned, ([\d.]+ to [\d.]+) % reconstructed in ([\d.]+) s"
        r".*?`fashion-resnet20` (\d+) and (\d+) % in (\d+) s.*?do without, (\d+) %"
        r".*?instead \((\d+) %\)",
        reconstructed,
    ),
    "criterion check": (
        r"\(ρ = ([\d.]+ to [\d.]+), magnitude ([\d.]+ to [\d.]+)\).*?median within layers is "
        r"([\d.]+) at most",
        checked,
    ),
    "compact": (
        r"cost nothing \(\+([\d.]+) points.*?`digits-vit`'s cost ([\d.]+) \(\[table",
        compact,
    ),
    "tickets": (r"With ([\d.]+) % .*?stand ([\d.]+) points below dense, one shot (\d+) ", tickets),
    "tickets on MNIST": (
        r"level with dense \(([\d.]+) %\).*?and ([\d.]+) points below it at ([\d.]+) %, where .*?"
        r"is ([\d.]+) lower still",
        mnist,
    ),
    "files": (
        r"sparse file is ([\d.]+) to ([\d.]+) times that, by gzip ([\d.]+) to ([\d.]+)",
        files,
    ),
    "class room": (
        r"answered within ([\d.]+) s, p95 ([\d.]+) s, without .*?within ([\d.]+) s, to almost all "
        r"within ([\d.]+) s",
        class_room,
    ),
    "page": (
        r"is (\d+) messages, (\d+) kB and (\d+) ms of the server's time, (\d+) ms to the picture; "
        r"other pages open in ([\d.]+ to [\d.]+) s",
        page,
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_readme_quotes_the_results(name: str) -> None:
    pattern, results = CLAIMS[name]
    found = re.search(pattern, README)
    assert found, f"README words this otherwise now: write its pattern anew, {pattern}"
    assert list(found.groups()) == results()


def test_readme_counts_what_there_is() -> None:
    counts = {
        "Criterion": len(registry.names("criterion")),
        "Granularity": len(registry.names("granularity")),
        "Scope": len(registry.names("scope")),
        "Schedule": len(registry.names("schedule")),
    }
    for kind, count in counts.items():
        assert f"{kind} ({IN_WORDS.get(count)}" in README, (kind, count)
    assert f"lists all {IN_WORDS.get(len(charts.__all__))};" in README
