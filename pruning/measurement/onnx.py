"""The same model in ONNX Runtime: exported, held against torch's answers, and timed by the same protocol.

Slower to prepare than a run's ending may be (the export takes about a second a model), so it is asked for apart.
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

from pruning.evidence import evaluating
from pruning.measurement.speed import SLOW, examples, interleaved, judged, seconds
from pruning.metrics import Timing

RUNTIME = "ONNX Runtime"
CLOSE = 1e-4
"""Largest difference of outputs, as a share of the largest output, that float32 in another order of adding explains."""

Answers = Callable[[NDArray[Any]], NDArray[Any]]


class NotExported(Exception):
    """Why a model is not timed here, as the rest of a sentence."""


def onnx_timings(
    models: Sequence[nn.Module], example: Tensor, *, batches: Sequence[int], budget: float = 0.8
) -> list[list[Timing]]:
    """For each model, its timings in ONNX Runtime beside the first, which is the reference, on as many threads as torch has now.

    A second session of the first program is the control. What cannot be exported, or answers otherwise, says why.
    """
    threads = torch.get_num_threads()
    programs = [_program(model, example) for model in models]
    by_batch = [
        _timed(models, programs, examples(example, models[0], batch), threads, budget)
        for batch in batches
    ]
    return [[timed[i] for timed in by_batch] for i in range(len(models))]


def _timed(
    models: Sequence[nn.Module],
    programs: Sequence[bytes | str],
    x: Tensor,
    threads: int,
    budget: float,
) -> list[Timing]:
    """All models on one batch. programs: exported, or why not."""
    ready = [
        _prepared(model, program, x, threads)
        for model, program in zip(models, programs, strict=True)
    ]
    first, again = ready[0], _prepared(models[0], programs[0], x, threads)
    if isinstance(first, str) or isinstance(again, str):
        return [Timing(RUNTIME, len(x), threads, why=str(first)) for _ in models]
    given = x.numpy()
    taken = seconds(lambda: first(given))
    if taken > SLOW and len(x) > 1:
        why = f"One pass of {len(x)} examples takes {taken:.1f} s here: too long to repeat."
        return [Timing(RUNTIME, len(x), threads, why=why) for _ in models]
    can = [one for one in (*ready, again) if not isinstance(one, str)]
    times = interleaved([_pass(answer, given) for answer in can], least=5, most=300, budget=budget)
    told = iter(judged(RUNTIME, times, len(x), threads))
    return [
        Timing(RUNTIME, len(x), threads, why=one) if isinstance(one, str) else next(told)
        for one in ready
    ]


def _pass(answer: Answers, given: NDArray[Any]) -> Callable[[], object]:
    return lambda: answer(given)


def _program(model: nn.Module, example: Tensor) -> bytes | str:
    try:
        return export(model, examples(example, model, 2))
    except NotExported as error:
        return f"It {error}."


def _prepared(model: nn.Module, program: bytes | str, x: Tensor, threads: int) -> Answers | str:
    """A session whose answers to x are torch's; or why not, in a sentence."""
    if isinstance(program, str):
        return program
    try:
        answer = session(program, threads)
        try:
            _check(answer, model, x)
        except NotExported:  # tracing may have taken the batch it saw for the only one
            answer = session(export(model, x, free=False), threads)
            _check(answer, model, x)
    except NotExported as error:
        return f"It {error}."
    return answer


def export(model: nn.Module, x: Tensor, *, free: bool = True) -> bytes:
    """The model as an ONNX program for inputs of x's shape; free: for any batch, where it allows that (x then holds two or more).

    Raises NotExported; the model is left as found.
    """
    shapes = ({0: torch.export.Dim.AUTO},) if free else None
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                copy.deepcopy(model).eval(), (x,), dynamo=True, verbose=False, dynamic_shapes=shapes
            )
            assert program is not None
            return bytes(program.model_proto.SerializeToString())
        except Exception as error:  # whatever stops an exporter that traces code nobody here wrote
            raise NotExported(
                f"could not be exported by torch.onnx ({type(error).__name__})"
            ) from error


def session(program: bytes, threads: int) -> Answers:
    """Inputs -> the first output, on so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if (
        threads > 1
    ):  # threads that wait by spinning would slow the other contestants, and nobody waits so on a shared machine
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        held = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common root
        raise NotExported(
            f"was exported, but ONNX Runtime does not take it ({type(error).__name__})"
        ) from error
    name = held.get_inputs()[0].name
    return lambda given: held.run(None, {name: given})[0]


def _check(answer: Answers, model: nn.Module, x: Tensor) -> None:
    with evaluating(model), torch.inference_mode():
        wanted = model(x).numpy()
    try:
        found = answer(x.numpy())
    except Exception as error:
        raise NotExported(
            f"was exported, but fails in ONNX Runtime ({type(error).__name__})"
        ) from error
    apart = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if not apart <= CLOSE * max(1.0, float(np.abs(wanted).max())):
        raise NotExported(f"was exported, but its answers differ from torch's by {apart:.2g}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk of their own affairs."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
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
