"""Latency in ONNX Runtime: exported, compared with torch's outputs, timed by the same protocol.

The export takes about a second a model: too slow for the end of a run, so it is asked for apart.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.adapted import unadapted
from pruning.evidence import evaluating
from pruning.measurement.speed import SLOW, compare, examples, interleaved, seconds
from pruning.metrics import Timing
from pruning.tasks import main_output
from pruning.types import Inputs, parts_of

RUNTIME = "ONNX Runtime"
CLOSE = 1e-4
"""Largest difference of outputs, as a share of the largest one.

So much comes from adding up float32 in another order.
"""

Arrays = tuple[NDArray[Any], ...]

Session = Callable[[Arrays], NDArray[Any]]
"""Inputs, in the order of the model's -> the first output."""


class NotExported(Exception):
    """Why a model is not timed here, as the rest of a sentence."""


def onnx_timings(
    models: Sequence[nn.Module], example: Inputs, *, batches: Sequence[int], budget: float = 0.8
) -> list[list[Timing]]:
    """For each model, its timings in ONNX Runtime beside the first, which is the reference.

    On as many threads as torch has now. A second session of the first program is the control. What
    cannot be exported, or has other outputs than torch, says why.
    """
    threads = torch.get_num_threads()
    programs = [_program(model, example) for model in models]
    timings: list[list[Timing]] = [[] for _ in models]
    for batch in batches:
        x = examples(example, models[0], batch)
        timed = _timed(models, programs, x, threads, budget)
        for by_batch, timing in zip(timings, timed, strict=True):
            by_batch.append(timing)
    return timings


def _timed(
    models: Sequence[nn.Module],
    programs: Sequence[bytes | str],
    x: tuple[Tensor, ...],
    threads: int,
    budget: float,
) -> list[Timing]:
    """All models on one batch. programs: exported, or why not."""
    batch = len(x[0])

    def untimed(why: str) -> Timing:
        return Timing(RUNTIME, batch, threads, why=why)

    pairs = zip(models, programs, strict=True)
    sessions = [_prepared(model, program, x, threads) for model, program in pairs]
    first = sessions[0]
    control = _prepared(models[0], programs[0], x, threads)
    if isinstance(first, str) or isinstance(control, str):
        # without the reference there is nothing to compare with
        return [untimed(str(first)) for _ in models]
    inputs = arrays(x)
    taken = seconds(_pass(first, inputs))
    if taken > SLOW and batch > 1:
        why = f"One pass of {batch} examples takes {taken:.1f} s here: too long to repeat."
        return [untimed(why) for _ in models]
    runs = [_pass(run, inputs) for run in (*sessions, control) if not isinstance(run, str)]
    times = interleaved(runs, least=5, most=300, budget=budget)
    compared = iter(compare(RUNTIME, times, batch, threads))
    return [untimed(run) if isinstance(run, str) else next(compared) for run in sessions]


def _pass(run: Session, inputs: Arrays) -> Callable[[], object]:
    return lambda: run(inputs)


def _program(model: nn.Module, example: Inputs) -> bytes | str:
    try:
        return export(model, examples(example, model, 2))
    except NotExported as error:
        return f"It {error}."


def _prepared(
    model: nn.Module, program: bytes | str, x: tuple[Tensor, ...], threads: int
) -> Session | str:
    """A session whose outputs for x are torch's; or why not, in a sentence."""
    if isinstance(program, str):
        return program
    try:
        run = session(program, threads)
        try:
            _check(run, model, x)
        except NotExported:
            # tracing may have taken the batch that it was given for the only one
            run = session(export(model, x, free=False), threads)
            _check(run, model, x)
    except NotExported as error:
        return f"It {error}."
    return run


def exported(model: nn.Module, example: Inputs) -> tuple[bytes, float]:
    """The model as an ONNX program, for batches of any size where it allows that, and how far its
    outputs are from torch's in ONNX Runtime: max |difference|.

    Raises NotExported; it also says so where a package is missing.
    """
    x = examples(example, model, 2)
    try:
        program = export(model, x)
        return program, _check(session(program, 1), model, x)
    except NotExported:
        x = examples(example, model, 1)
        program = export(model, x, free=False)
        return program, _check(session(program, 1), model, x)


def arrays(x: tuple[Tensor, ...]) -> Arrays:
    """Raises NotExported for bfloat16, which numpy does not know."""
    if any(part.dtype == torch.bfloat16 for part in x):
        raise NotExported("is in bfloat16, which ONNX Runtime is not given here")
    return tuple(part.numpy() for part in x)


def export(model: nn.Module, x: Inputs, *, free: bool = True) -> bytes:
    """The model as an ONNX program for inputs of x's shapes.

    free: for batches of any size, where the model allows that; x then has two or more examples.
    Raises NotExported; the model is left as found.
    """
    parts = parts_of(x)
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in parts) if free else None
    evaluated = copy.deepcopy(unadapted(model)).eval()
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                evaluated, parts, dynamo=True, verbose=False, dynamic_shapes=shapes
            )
            assert program is not None
            return bytes(program.model_proto.SerializeToString())
        except ModuleNotFoundError as error:
            raise NotExported(
                f"could not be exported, for {error.name} is not installed (pip install "
                f"{error.name})"
            ) from error
        except Exception as error:  # whatever stops an exporter that traces code nobody here wrote
            raise NotExported(
                f"could not be exported by torch.onnx ({type(error).__name__})"
            ) from error


def session(program: bytes, threads: int) -> Session:
    """Inputs -> the first output, on so many threads."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotExported(
            "cannot be tried, for ONNX Runtime is not installed (pip install onnxruntime)"
        ) from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:
        # threads that wait by spinning would slow the other models' passes
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        ready = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common root
        raise NotExported(
            f"was exported, but ONNX Runtime does not take it ({type(error).__name__})"
        ) from error
    names = [entry.name for entry in ready.get_inputs()]
    return lambda inputs: ready.run(None, dict(zip(names, inputs, strict=False)))[0]


def _check(run: Session, model: nn.Module, x: tuple[Tensor, ...]) -> float:
    """max |difference| from torch's outputs. Raises NotExported for other ones."""
    with evaluating(model), torch.inference_mode():
        main = main_output(model(*x))
    assert main is not None, "what has no outputs was refused before"
    wanted = main.float().numpy()
    try:
        outputs = run(arrays(x))
    except Exception as error:
        raise NotExported(
            f"was exported, but fails in ONNX Runtime ({type(error).__name__})"
        ) from error
    apart = float("inf")
    if outputs.shape == wanted.shape:
        apart = float(np.abs(outputs - wanted).max())
    # "not <=", so that NaN is refused
    if not apart <= CLOSE * max(1.0, float(np.abs(wanted).max())):
        raise NotExported(f"was exported, but its answers differ from torch's by {apart:.2g}")
    return apart


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and logs, which are about their own work."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
