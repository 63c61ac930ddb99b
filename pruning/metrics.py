"""Metrics: accuracy, size, memory, energy, latency and behaviour of a model, as frozen dataclasses.

No tensors, and no torch: pages read these. Figures that came later than the first stored results
default to None or (): shown as "not measured", never as 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning import stats
from pruning.stats import Spread as Spread
from pruning.tables import html_table

TOLERANCE = 0.05
"""Ratios of time, as a share: a control further off than this allows no verdict on speed, and
differences smaller than this are none."""


@dataclass(frozen=True)
class Accuracy:
    """Correct answers among examples."""

    correct: int
    total: int

    @property
    def name(self) -> str:
        """As other metrics have one."""
        return "accuracy"

    @property
    def higher_is_better(self) -> bool:
        """As other metrics say."""
        return True

    @property
    def text(self) -> str:
        """The share in percent: `98.1 %`."""
        return f"{100 * self.value:.1f} %"

    @property
    def value(self) -> float:
        """A share in [0, 1]."""
        return self.correct / self.total

    @property
    def spread(self) -> Spread:
        """The share with its 95 % Wilson interval."""
        return stats.wilson(self.correct, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the 95 % Wilson interval, shares in [0, 1]."""
        return self.spread.low, self.spread.high


@dataclass(frozen=True)
class Score:
    """What a metric other than accuracy says of some examples.

    low, high: 95 % interval, None where the metric gives one number for all; of shares (unit "%"),
    all three are in [0, 1].
    """

    name: str
    value: float
    examples: int
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True
    unit: str = ""

    @property
    def spread(self) -> Spread | None:
        """With its interval; None where there is none."""
        if self.low is None or self.high is None:
            return None
        return Spread(self.low, self.value, self.high)

    def shown(self, value: float) -> str:
        """A value of this metric in its own unit: `87.5 %`, `0.1312`."""
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.4g} {self.unit}".strip()

    @property
    def text(self) -> str:
        """The value in its own unit."""
        return self.shown(self.value)


Quality = Accuracy | Score
"""What a task is judged by: accuracy, or its own metric."""


@dataclass(frozen=True)
class Paired:
    """Two models' answers to the same examples: both correct, only this one, only dense, neither.

    On the same examples a small difference shows that two separate intervals would hide
    (McNemar, 1947, https://doi.org/10.1007/BF02295996).
    """

    both: int
    gained: int
    lost: int
    neither: int

    @classmethod
    def of(cls, this: NDArray[np.bool_], dense: NDArray[np.bool_]) -> Paired:
        """(n,) True where each model's answer is right, for the same examples in the same order."""
        counts = (this & dense, this & ~dense, ~this & dense, ~this & ~dense)
        return cls(*(int(each.sum()) for each in counts))

    @property
    def change(self) -> Spread:
        """Accuracy less dense's, as a share, with its 95 % interval."""
        n = self.both + self.gained + self.lost + self.neither
        return stats.paired_change(self.lost, self.gained, n)


@dataclass(frozen=True)
class Layer:
    """One layer: its weights and those kept, and the multiply-accumulates (MACs) of one example."""

    name: str
    total: int
    kept: int
    macs: int = 0
    macs_kept: int = 0


@dataclass(frozen=True)
class Size:
    """Bytes on disk.

    dense: float weights in a safetensors file; sparse: a bitmask and the values kept, for layers
    that are pruned (pruning.measurement.sparse_file), dense where that is smaller; compressed: that
    file by gzip; limit: the entropy of the mask, which no code of independent positions beats, with
    values as they are.
    """

    dense: int
    sparse: int
    compressed: int
    limit: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes in memory at run time.

    weights: all parameters and buffers, as torch keeps them; activations: most bytes of input,
    intermediate and output tensors alive at once while one example passes. An operation's own
    scratch space is not seen. device: most bytes that the weights and such a pass take on an
    accelerator by its allocator's account, scratch space among them; None where nobody counts.
    """

    weights: int
    activations: int | None
    device: int | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of the operations of one example in picojoules, modelled.

    MACs times the energy of one float32 multiply and add in 45 nm (Horowitz, 2014,
    https://doi.org/10.1109/ISSCC.2014.6757323). Reading memory costs more, and is left out.
    executed: of a runtime that multiplies zeros too, as torch's dense kernels do; skipping: of one
    that skips them; measured: joules of one pass by the processor's own counter (RAPL), None where
    it cannot be read.
    """

    executed: float
    skipping: float
    multiply: float = 3.7  # pJ, float32 in 45 nm
    add: float = 0.9
    measured: float | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass: median and quartiles over `passes`."""

    median: float
    low: float
    high: float
    threads: int
    batch: int
    passes: int


@dataclass(frozen=True)
class Timing:
    """A model timed in one runtime, interleaved with the dense one.

    runtime: "torch", "torch CSR" or "ONNX Runtime", with the device where that is no CPU ("torch on
    cuda:0"); batch: examples; threads: of the CPU; speedup:
    dense's milliseconds over this one's, pass by pass: the median and its 95 % interval (None for
    dense itself); control: how far the median of dense against a copy of itself lay from 1, in the
    same round; why: what stood in the way.
    """

    runtime: str
    batch: int
    threads: int
    latency: Latency | None = None  # None: it could not be timed, for the reason `why`
    speedup: Spread | None = None
    control: float | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        """Faster, slower or the same; or why there is no verdict."""
        if self.latency is None:
            return "not measured"
        if self.speedup is None:
            return "reference"
        # Where a model is faster than itself, no difference to another one means anything.
        if self.control is None or self.control > TOLERANCE:
            return "no verdict"
        # The whole interval has to be beyond the tolerance, not the median alone.
        if self.speedup.low > 1 + TOLERANCE:
            return "faster"
        if self.speedup.high < 1 / (1 + TOLERANCE):
            return "slower"
        return "the same"


@dataclass(frozen=True)
class Behaviour:
    """How a model answers beyond its test accuracy.

    train: on the first training examples; noisy: on the first test examples with Gaussian noise of
    deviation `sigma` added to the inputs, the same for all models; calibration: expected
    calibration error on test data in `bins` bins (Guo et al., 2017,
    https://arxiv.org/abs/1706.04599), with a bootstrap interval.
    """

    train: Accuracy | None
    noisy: Accuracy | None
    sigma: float
    calibration: Spread | None
    bins: int = 15  # of equal width in confidence, as in the paper
    train_score: Score | None = None
    noisy_score: Score | None = None


@dataclass(frozen=True)
class Measurement:
    """A model, measured. What could not be measured is None: shown as "not measured", never as 0.

    weights, kept: covered weights; parameters: all parameters; macs: multiply-accumulates of one
    example in every covered layer; macs_kept: those whose weight is not zero (what a runtime that
    skips zeros would do); macs_other: those that belong to no covered weight (attention's two
    products; what is not covered), which pruning weights does not change; timings: every runtime
    and batch size; paired: against dense, on the same test examples. From memory to paired, all
    belong to the end of a run.
    """

    accuracy: Accuracy | None
    loss: float | None
    weights: int
    kept: int
    parameters: int
    macs: int | None
    macs_kept: int | None
    size: Size
    latency: Latency | None
    layers: tuple[Layer, ...] = ()
    # Younger than the first stored results, which lack them.
    memory: Memory | None = None
    energy: Energy | None = None
    timings: tuple[Timing, ...] = ()
    behaviour: Behaviour | None = None
    paired: Paired | None = None
    macs_other: int | None = None  # None: not counted then, or no example to count by
    # Of another task than classification. score: by its own metric; score_change: less dense's on
    # the same examples; not_measured: what has no meaning there -> why.
    score: Score | None = None
    score_change: Spread | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def quality(self) -> Quality | None:
        """By the task's own metric, which is accuracy where it has no other."""
        return self.score or self.accuracy

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.weights

    @property
    def all_macs(self) -> int | None:
        """Multiply-accumulates of the whole model, as published figures count them."""
        return None if self.macs is None else self.macs + (self.macs_other or 0)

    @property
    def all_macs_kept(self) -> int | None:
        """Those of the whole model without zero weights'."""
        return None if self.macs_kept is None else self.macs_kept + (self.macs_other or 0)

    def _repr_html_(self) -> str:
        """The figures, as a notebook shows them."""
        rows = figure_rows({"model": self})
        return html_table(["Measured", ""], [[name, *texts] for name, texts in rows])


def sparse_bytes(total: int, kept: int, width: int = 4) -> int:
    """Bytes of a tensor as a bitmask and the values kept; dense where that is smaller.

    total, kept: weights; width: bytes of one value (4: float32).
    """
    bitmask = -(-total // 8)  # a bit for each weight, in whole bytes
    return min(width * total, bitmask + width * kept)


def sparse_head(names: Iterable[str]) -> int:
    """Bytes that a sparse file's head is longer than the dense file's.

    names: of all tensors that may be pruned. A multiple of eight, as heads are.
    """
    # Two names more, and about 104 characters of JSON about them; 24 for all together.
    each = [104 + 2 * len(json.dumps(name)) for name in names]
    return 24 + sum(-(-size // 8) * 8 for size in each)


BINS = 256
"""Bins of a histogram of weights."""


@dataclass(frozen=True)
class Histogram:
    """One layer's weights before and after pruning, counted in the same bins.

    edges: (257,) symmetric around 0; dense: (256,) weights of the dense model; final: (256,) the
    weights that were kept, so that the pruned ones do not stand as one spike at 0.
    """

    edges: NDArray[np.float64]
    dense: NDArray[np.int64]
    final: NDArray[np.int64]


def bin_edges(*values: NDArray[Any]) -> NDArray[np.float64]:
    """257 bin edges, symmetric around 0, that hold all the values."""
    reaches = [float(np.abs(part).max()) for part in values if part.size]
    # A layer of zeros alone still needs bins of some width.
    reach = max(reaches, default=0.0) or 1.0
    return np.linspace(-reach, reach, BINS + 1)


def bin_counts(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """(256,) how many values fall into each bin."""
    return np.histogram(values, edges)[0].astype(np.int64)


def accuracy_change(after: Measurement, dense: Measurement) -> Spread | None:
    """Accuracy less dense's, a share: paired where answers were compared one by one, else wider."""
    # Older results and models without a dense run beside them have no table of answers.
    if after.paired:
        return after.paired.change
    if after.accuracy is None or dense.accuracy is None:
        return None
    return stats.difference(after.accuracy.spread, dense.accuracy.spread)


def quality_change(after: Measurement, dense: Measurement) -> Spread | None:
    """Of what the task is judged by, with its interval; None where there is no interval."""
    if after.score is None:
        return accuracy_change(after, dense)
    return after.score_change


def train_test_gap(m: Measurement) -> Spread | None:
    """Accuracy on training examples less that on test examples, a share: what was memorised."""
    if m.behaviour is None or m.behaviour.train is None or m.accuracy is None:
        return None
    return stats.difference(m.behaviour.train.spread, m.accuracy.spread)


# ---------------------------------------------------------------- figures as text

NOT_MEASURED = "not measured"


def figure_rows(stages: dict[str, Measurement]) -> list[tuple[str, list[str]]]:
    """(what, one text for each stage): one row a figure; one that no stage has is left out."""
    dense = stages.get("dense")
    metric = next((m.score.name for m in stages.values() if m.score), "Accuracy")
    readers: dict[str, Callable[[Measurement], str]] = {
        f"{metric}, test (95 %)": lambda m: with_interval(m.quality),
        "Change from dense (95 %)": lambda m: change_text(m, dense),
        "Loss": lambda m: NOT_MEASURED if m.loss is None else f"{m.loss:.4f}",
        "Weights not zero": lambda m: f"{m.kept:,} of {m.weights:,}",
        "Parameters": lambda m: f"{m.parameters:,}",
        "MACs an example, zeros skipped": lambda m: count_text(m.macs_kept),
        "File, dense": lambda m: bytes_text(m.size.dense),
        "File, sparse": lambda m: bytes_text(m.size.sparse),
        "File, sparse, by gzip": lambda m: bytes_text(m.size.compressed),
        "Weights in memory": lambda m: bytes_text(m.memory.weights) if m.memory else NOT_MEASURED,
        "Latency, one example": latency_text,
    }
    made = [(name, [read(m) for m in stages.values()]) for name, read in readers.items()]
    return [(name, texts) for name, texts in made if set(texts) - {NOT_MEASURED, ""}]


def with_interval(value: Quality | None) -> str:
    """An accuracy or the task's own metric, with its interval."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{100 * value.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    if value.spread is None:
        return value.text
    return f"{value.text} ({value.shown(value.spread.low)} to {value.shown(value.spread.high)})"


def change_text(m: Measurement, dense: Measurement | None) -> str:
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


def latency_text(m: Measurement) -> str:
    if m.latency is None:
        return NOT_MEASURED
    spread = f"{m.latency.low:.3g} to {m.latency.high:.3g}"
    plural = "" if m.latency.threads == 1 else "s"
    return f"{m.latency.median:.3g} ms ({spread}; {m.latency.threads} thread{plural})"


def count_text(number: int | None) -> str:
    return NOT_MEASURED if number is None else f"{number:,}"


def bytes_text(number: float) -> str:
    """Bytes in kB and MB, of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
