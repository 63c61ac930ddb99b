"""Why an expected improvement is absent: one sentence for each case. Pure."""

from __future__ import annotations

from pruning.events import Finished
from pruning.metrics import TOLERANCE, Timing

NOT_IN_THIS_RUN = (
    "This run was made before this was measured, or has no data or example input for it: run again."
)

STOPPED = (
    "Left out, because the run was stopped: it is measured when a run comes to its end. "
    "Press Run again{way}."
)

# Several figures share a reason: each is written once and named in the tables below.
ZEROS_ARE_STORED = "With few zeros, saying where they are costs about what they save."
SAME_TENSORS = "The tensors that remain are about as large."
SAME_WORK = "The layers that do most of the work kept their channels."
CALL_OVERHEAD = (
    "At this size calling an operation takes longer than its arithmetic, of which there is less."
)
WITHIN_NOISE = "Within the interval: noise does not tell them apart."

# (figure, state) -> why it does not cost less than dense
COSTS = {
    ("weights", "masked"): "Nothing was pruned.",
    ("file", "masked"): ZEROS_ARE_STORED,
    ("compressed", "masked"): ZEROS_ARE_STORED,
    ("memory", "masked"): "At run time PyTorch holds a zero in four bytes like any number.",
    ("activations", "masked"): "Every layer still gives outputs of its full size.",
    ("energy", "masked"): (
        "PyTorch multiplies zeros too; only a runtime that skips them would save their operations."
    ),
    ("skipping", "masked"): "No weight that is used became zero.",
    ("weights", "compact"): "Nothing was pruned.",
    ("file", "compact"): SAME_TENSORS,
    ("compressed", "compact"): SAME_TENSORS,
    ("memory", "compact"): SAME_TENSORS,
    ("activations", "compact"): "The largest outputs are of layers that kept their channels.",
    ("energy", "compact"): SAME_WORK,
    ("skipping", "compact"): SAME_WORK,
}

# (figure, verdict) -> why it is not better than dense's, whatever the state
ANSWERS = {
    ("accuracy", "same"): "Within the interval: the test data cannot tell it from dense.",
    ("accuracy", "worse"): (
        "Fewer test examples are right than before, beyond the interval: "
        "remove less, or fine-tune longer."
    ),
    ("noise", "same"): WITHIN_NOISE,
    ("noise", "worse"): "With fewer weights, noise in one input is averaged over fewer others.",
    ("worse without noise", "same"): WITHIN_NOISE,
    ("worse without noise", "worse"): "It answers worse without noise already.",
    ("gap", "same"): "Within the interval: pruning did not change how much is memorised.",
    ("gap", "worse"): "Fine-tuning fits the training examples again.",
    ("calibration", "same"): "Within the interval: it is as sure of itself as before.",
    ("calibration", "worse"): (
        "Its confidence no longer fits how often it is right; "
        "more fine-tuning, or temperature scaling, mends that."
    ),
}

# (runtime, state) -> why it is not faster than dense
SPEED = {
    ("torch", "masked"): (
        "Zeros are multiplied like any number: PyTorch's dense kernels do not skip them."
    ),
    ("ONNX Runtime", "masked"): (
        "Zeros are multiplied like any number: ONNX Runtime's dense kernels do not skip them."
    ),
    ("torch CSR", "masked"): (
        "Sparse rows skip zeros, but read an index for each value: "
        "on layers this small that costs more than it saves."
    ),
    ("torch", "compact"): CALL_OVERHEAD,
    ("ONNX Runtime", "compact"): CALL_OVERHEAD,
}


def why_stopped(can_continue: bool) -> str:
    """Why a stopped run lacks a figure, and what to press."""
    way = ", or Continue to do only the rest" if can_continue else ""
    return STOPPED.format(way=way)


def why_not_better(figure: str, state: str, verdict: str) -> str:
    """Why a figure of a state did not improve on dense."""
    answer = ANSWERS.get((figure, verdict))
    return answer or COSTS.get((figure, state), "Nothing was pruned.")


def why_not_faster(timing: Timing, state: str, structured: bool) -> str:
    """Why a state is not faster, or why that cannot be said.

    structured: whole channels, heads or the like were removed.
    """
    if timing.verdict == "not measured":
        return timing.why or "It was not timed."
    if timing.verdict == "no verdict":
        return _control_failed(timing)
    # torch CSR does skip zeros, so that its own reason is the right one for it.
    if structured and state == "masked" and timing.runtime != "torch CSR":
        runtime = timing.runtime.replace("torch", "PyTorch")
        return (
            f"Whole units are zero, but {runtime} multiplies them all the same: "
            "only a compact model leaves them out."
        )
    own = timing.runtime.partition(" on ")[0]  # of a device: the same kernels, elsewhere
    return SPEED.get((own, state), "The arithmetic that remains takes as long.")


def _control_failed(timing: Timing) -> str:
    if timing.control is None:
        return "It was timed without a control."
    return (
        f"No verdict: two timings of the very same model differed by {100 * timing.control:.0f} %, "
        f"and over {TOLERANCE * 100:.0f} % is noise; run again."
    )


def why_no_compact(end: Finished, structured: bool, unmeasured: str = NOT_IN_THIS_RUN) -> str:
    """Why a run has no compact model. unmeasured: why it lacks figures that runs have."""
    if not end.sparsity:
        return "Nothing was pruned: a compact model would be the dense one."
    if structured and unmeasured != NOT_IN_THIS_RUN:
        return unmeasured
    if structured:
        return "No compact model was built by this run."
    return "Single weights leave no tensor smaller: a compact model would be the masked one."
