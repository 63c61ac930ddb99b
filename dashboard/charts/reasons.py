"""Why an expected gain did not come: one sentence for each. Pure."""

from __future__ import annotations

from pruning.events import Finished
from pruning.metrics import TOLERANCE, Timing

WHY = {
    # (what, state): why there is no gain
    ("weights", "masked"): "Nothing was removed.",
    ("file", "masked"): "With few zeros, saying where they are costs about what they save.",
    ("travel", "masked"): "With few zeros, saying where they are costs about what they save.",
    ("memory", "masked"): "At run time PyTorch holds a zero in four bytes like any number.",
    ("activations", "masked"): "Every layer still gives outputs of its full size.",
    (
        "energy",
        "masked",
    ): "PyTorch multiplies zeros too; only a runtime that skips them would save their operations.",
    ("skipping", "masked"): "No weight that is used became zero.",
    ("weights", "compact"): "Nothing was removed.",
    ("file", "compact"): "The tensors that are left are about as large.",
    ("travel", "compact"): "The tensors that are left are about as large.",
    ("memory", "compact"): "The tensors that are left are about as large.",
    ("activations", "compact"): "The largest outputs are of layers that kept their channels.",
    ("energy", "compact"): "The layers that do most of the work kept their channels.",
    ("skipping", "compact"): "The layers that do most of the work kept their channels.",
}

ANSWERS = {
    ("accuracy", "same"): "Within the interval: the test data cannot tell it from dense.",
    (
        "accuracy",
        "worse",
    ): "Fewer test examples are right than before, beyond the interval: remove less, or heal longer.",
    ("noise", "same"): "Within the interval: noise does not tell them apart.",
    ("noise", "worse"): "With fewer weights, noise in one input is averaged over fewer others.",
    ("noise without it", "same"): "Within the interval: noise does not tell them apart.",
    ("noise without it", "worse"): "It answers worse without noise already.",
    ("gap", "same"): "Within the interval: pruning did not change how much is known by heart.",
    ("gap", "worse"): "Fine-tuning fits the training examples again.",
    ("calibration", "same"): "Within the interval: it is as sure of itself as before.",
    (
        "calibration",
        "worse",
    ): "Its confidence no longer fits how often it is right; more healing, or temperature scaling, mends that.",
}

TIMED = {
    (
        "torch",
        "masked",
    ): "Zeros are multiplied like any number: PyTorch's dense kernels do not skip them.",
    (
        "ONNX Runtime",
        "masked",
    ): "Zeros are multiplied like any number: ONNX Runtime's dense kernels do not skip them.",
    (
        "torch CSR",
        "masked",
    ): "Sparse rows skip zeros, but read an index for each value: on layers this small that costs more than it saves.",
    (
        "torch",
        "compact",
    ): "At this size calling an operation takes longer than its arithmetic, of which there is less.",
    (
        "ONNX Runtime",
        "compact",
    ): "At this size calling an operation takes longer than its arithmetic, of which there is less.",
}


def of(about: str, state: str, verdict: str) -> str:
    """Why a figure did not gain."""
    return ANSWERS.get((about, verdict)) or WHY.get((about, state), "Nothing was removed.")


def of_timing(t: Timing, state: str, structured: bool) -> str:
    """Why a model is not faster, or why that cannot be said. structured: what went are whole channels, heads or the like."""
    if t.verdict == "not measured":
        return t.why or "It was not timed."
    if t.verdict == "no verdict":
        if t.control is None:
            return "It was timed without a control."
        off = f"{t.control:.0%}".replace("%", " %")
        return f"No verdict: two timings of the very same model differed by {off}, and over {TOLERANCE * 100:.0f} % is noise; run again."
    if structured and state == "masked" and t.runtime != "torch CSR":
        runtime = t.runtime.replace("torch", "PyTorch")
        return f"Whole units are zero, but {runtime} multiplies them all the same: only a slimmed model leaves them out."
    return TIMED.get((t.runtime, state), "The arithmetic that is left takes as long.")


def older() -> str:
    """Of a figure that the run does not hold."""
    return "This run was made before this was measured, or has no data or example input for it: run again."


def no_compact(end: Finished, structured: bool) -> str:
    """Why there is no slimmed model."""
    if not end.sparsity:
        return "Nothing was removed, so there is nothing to slim."
    if structured:
        return "No slimmed model was built by this run."
    return "Single weights leave no tensor smaller: there is nothing to slim."
