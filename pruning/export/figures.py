"""A result's figures as rows of text: the card and the report show the same ones."""

from __future__ import annotations

from collections.abc import Callable

from pruning.metrics import Accuracy, Measurement, Quality, accuracy_change

NOT_MEASURED = "not measured"

Row = tuple[str, list[str]]
"""(what, one text for each stage)"""


def rows(stages: dict[str, Measurement]) -> list[Row]:
    """One row a figure; a figure that no stage has is left out."""
    dense = stages.get("dense")
    metric = next((m.score.name for m in stages.values() if m.score), "Accuracy")
    readers: dict[str, Callable[[Measurement], str]] = {
        f"{metric}, test (95 %)": lambda m: quality(m.quality),
        "Change from dense (95 %)": lambda m: change(m, dense),
        "Loss": lambda m: NOT_MEASURED if m.loss is None else f"{m.loss:.4f}",
        "Weights not zero": lambda m: f"{m.kept:,} of {m.weights:,}",
        "Parameters": lambda m: f"{m.parameters:,}",
        "MACs an example, zeros skipped": lambda m: count(m.macs_kept),
        "File, dense": lambda m: size(m.size.dense),
        "File, sparse": lambda m: size(m.size.sparse),
        "File, sparse, by gzip": lambda m: size(m.size.compressed),
        "Weights in memory": lambda m: size(m.memory.weights) if m.memory else NOT_MEASURED,
        "Latency, one example": latency,
    }
    made = [(name, [read(m) for m in stages.values()]) for name, read in readers.items()]
    return [(name, texts) for name, texts in made if set(texts) - {NOT_MEASURED, ""}]


def quality(value: Quality | None) -> str:
    """An accuracy or the task's own metric, with its interval."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{100 * value.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    if value.spread is None:
        return value.text
    return f"{value.text} ({value.shown(value.spread.low)} to {value.shown(value.spread.high)})"


def change(m: Measurement, dense: Measurement | None) -> str:
    """Less dense's, in percentage points or the metric's own unit."""
    if dense is None or m is dense:
        return ""
    if m.score is not None:
        spread = m.score_change
        if spread is None:
            return NOT_MEASURED
        return f"{spread.value:+.4g} ({spread.low:+.4g} to {spread.high:+.4g})"
    spread = accuracy_change(m, dense)
    if spread is None:
        return NOT_MEASURED
    value, low, high = (100 * part for part in (spread.value, spread.low, spread.high))
    text = f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
    return text.replace("-", "−")


def latency(m: Measurement) -> str:
    if m.latency is None:
        return NOT_MEASURED
    spread = f"{m.latency.low:.3g} to {m.latency.high:.3g}"
    plural = "" if m.latency.threads == 1 else "s"
    return f"{m.latency.median:.3g} ms ({spread}; {m.latency.threads} thread{plural})"


def count(number: int | None) -> str:
    return NOT_MEASURED if number is None else f"{number:,}"


def size(number: float) -> str:
    """Bytes in kB and MB, of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
