"""A model in fewer bits: int8 by ONNX Runtime's own quantisation, and half precision.

Programs are ONNX files, as bytes, so that what is measured is the file that somebody would ship.
Jacob et al., 2018, https://arxiv.org/abs/1712.05877
"""

from __future__ import annotations

import copy
import gzip
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pruning.measurement.onnx import (
    RUNTIME,
    Arrays,
    NotExported,
    Session,
    arrays,
    export,
    session,
)
from pruning.measurement.speed import compare, examples, interleaved
from pruning.metrics import Timing
from pruning.types import Batches, Inputs, parts_of

CALIBRATION = 256
"""Training examples whose activations set the ranges of static quantisation."""

PASS = 32
"""Examples in a pass through a program that takes batches of any size."""


class Program:
    """An ONNX file, and how many examples it takes at a time (None: any number).

    A class because opening a session costs more than a pass.
    """

    def __init__(self, content: bytes, batch: int | None) -> None:
        self.content = content
        self.batch = batch

    def session(self, threads: int) -> Session:
        return session(self.content, threads)

    @property
    def bytes(self) -> int:
        return len(self.content)

    @property
    def compressed(self) -> int:
        """Bytes by gzip."""
        return len(gzip.compress(self.content, mtime=0))


def program(model: nn.Module, example: Inputs) -> Program:
    """The model as an ONNX file, for batches of any size where it allows that.

    Raises NotExported; it also says so where a package is missing.
    """
    try:
        return Program(export(model, examples(example, model, 2)), None)
    except NotExported:
        return Program(export(model, examples(example, model, 1), free=False), 1)


def answers(program: Program, data: Batches, threads: int = 1) -> Tensor:
    """(n, ...) the program's outputs for all examples, in ONNX Runtime. Raises NotExported."""
    run = program.session(threads)
    size = program.batch or PASS
    outputs = []
    for start in range(0, data.examples, size):
        x, _ = data.at(slice(start, start + size))
        outputs.append(torch.from_numpy(_answer(run, arrays(parts_of(x)))))
    return torch.cat(outputs)


def _answer(run: Session, inputs: Arrays) -> Any:
    try:
        return run(inputs)
    except Exception as error:  # onnxruntime's own errors have no common root
        raise NotExported(f"fails in ONNX Runtime ({type(error).__name__})") from error


# ---------------------------------------------------------------- int8


def dynamic_int8(program: Program) -> Program:
    """Weights in int8, ranges of activations worked out in each pass: needs no data.

    Raises NotExported.
    """

    def quantise(source: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # ONNX Runtime has products of convolutions with unsigned activations and these weights.
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)

    return _rewritten(program, quantise)


def static_int8(program: Program, data: Batches, seed: int = 0) -> Program:
    """Weights and activations in int8, ranges from up to CALIBRATION training examples.

    Weights have a range for each channel. data: training examples; their labels are not looked at.
    Raises NotExported.
    """
    few = data.sample(CALIBRATION, seed, balanced=True)

    def quantise(source: Path, target: Path) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Examples(CalibrationDataReader):  # type: ignore[misc]
            """A batch after another, by the names of the inputs."""

            def __init__(self) -> None:
                self.batches = iter(_named(source, few, program.batch or PASS))

            def get_next(self) -> dict[str, Any] | None:
                return next(self.batches, None)

        quantize_static(
            source,
            target,
            Examples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _rewritten(program, quantise)


def _named(source: Path, data: Batches, size: int) -> Iterator[dict[str, Any]]:
    import onnx

    graph = onnx.load(source).graph
    weights = {entry.name for entry in graph.initializer}
    names = [entry.name for entry in graph.input if entry.name not in weights]
    for start in range(0, data.examples, size):
        x, _ = data.at(slice(start, start + size))
        yield dict(zip(names, arrays(parts_of(x)), strict=False))


def onnx_float16(program: Program) -> Program:
    """Weights and products in float16 by ONNX Runtime's converter; inputs and outputs stay float32.

    Raises NotExported.
    """

    def convert(source: Path, target: Path) -> None:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)

    return _rewritten(program, convert)


def _rewritten(program: Program, rewrite: Callable[[Path, Path], None]) -> Program:
    """What a tool that reads and writes files makes of a program."""
    with TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        source.write_bytes(program.content)
        try:
            rewrite(source, target)
            return Program(target.read_bytes(), program.batch)
        except ImportError as error:
            raise NotExported(
                f"cannot be made, for {error.name} is not installed (pip install {error.name})"
            ) from error
        except Exception as error:  # whatever stops a tool that rewrites graphs it did not make
            raise NotExported(
                f"could not be made by ONNX Runtime's tools ({type(error).__name__})"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' advice on how to prepare a graph, which goes to the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)


# ---------------------------------------------------------------- half precision


def rounded(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose numbers were stored in `dtype` and read back as float32."""
    stored = copy.deepcopy(model).to(dtype)
    return stored.float()


def half_file(model: nn.Module, dtype: torch.dtype) -> bytes:
    """The state as a safetensors file, its floating-point numbers in `dtype`."""
    state = copy.deepcopy(model).to(dtype).state_dict()
    # Tied weights share memory, which the format refuses: each is written for itself.
    return save({name: value.clone().contiguous() for name, value in state.items()})


# ---------------------------------------------------------------- latency


def program_timings(
    programs: Sequence[Program], example: Inputs, *, budget: float = 1.0
) -> list[Timing]:
    """Milliseconds of one example in ONNX Runtime, all in the same rounds; the first is the
    reference, and a second session of it the control.

    Raises NotExported.
    """
    threads = torch.get_num_threads()
    one = tuple(part[:1].contiguous() for part in parts_of(example))
    inputs = arrays(one)
    sessions = [each.session(threads) for each in (*programs, programs[0])]
    runs = [_pass(run, inputs) for run in sessions]
    times = interleaved(runs, least=5, most=300, budget=budget)
    return compare(RUNTIME, times, 1, threads)


def _pass(run: Session, inputs: Arrays) -> Callable[[], object]:
    return lambda: _answer(run, inputs)
