"""Operators on each number by itself, on two or more at the same place, and over dimensions."""

from __future__ import annotations

from math import prod
from typing import Any

from onnx import TensorProto

from pruning.formats.onnx.load import FLOATS, WHOLE
from pruning.formats.onnx.net import At, is_float, operator
from pruning.formats.onnx.program import Ref

UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
BINARY = {
    "Add": "add",
    "And": "logical_and",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Mul": "mul",
    "Or": "logical_or",
    "Pow": "pow",
    "Sub": "sub",
    "Xor": "logical_xor",
}
FOLDED = {"Max": "maximum", "Min": "minimum", "Sum": "add", "Mean": "add"}
REDUCED = {
    "ReduceMax": "amax",
    "ReduceMean": "mean",
    "ReduceMin": "amin",
    "ReduceSum": "sum",
}


@operator(*UNARY)
def unary(at: At) -> Ref:
    return at.call(UNARY[at.kind], at.ref(0))


@operator("Identity", "Dropout", sizes=(1, 2))
def identity(at: At) -> Ref:
    return at.ref(0)


@operator("Cast", "CastLike", sizes=(1,))
def cast(at: At) -> Ref:
    to = at.made.dtype
    if to == at.fact(0).dtype:
        return at.ref(0)
    kinds: dict[int, str] = {int(TensorProto.BOOL): "bool"} | dict.fromkeys(FLOATS, "float")
    kinds |= dict.fromkeys(WHOLE, "long")
    return at.call(kinds[to], at.ref(0))


@operator(*BINARY)
def binary(at: At) -> Ref:
    return at.call(BINARY[at.kind], *two(at))


@operator("Div")
def divide(at: At) -> Ref:
    if is_float(at.fact(0)):
        return at.call("div", *two(at))
    return at.call("div", *two(at), rounding_mode="trunc")


@operator("Mod")
def remainder(at: At) -> Ref:
    return at.call("fmod" if at.options.get("fmod", 0) else "remainder", *two(at))


def two(at: At) -> tuple[Ref, Ref]:
    """Both arguments, of which one at least is a tensor."""
    one, other = at.ref(0), at.ref(1)
    if not isinstance(one, str) and not isinstance(other, str):
        return at.table(at.weights(0)), other
    return one, other


@operator(*FOLDED)
def folded(at: At) -> Ref:
    refs = [tensor(at, index) for index in range(len(at.node.input))]
    total = refs[0]
    for ref in refs[1:]:
        total = at.call(FOLDED[at.kind], total, ref)
    return at.call("div", total, len(refs)) if at.kind == "Mean" else total


def tensor(at: At, index: int) -> Ref:
    """An argument where torch wants a tensor, and a number will not do."""
    ref = at.ref(index)
    return ref if isinstance(ref, str) else at.table(at.weights(index))


@operator("Where")
def choice(at: At) -> Ref:
    return at.call("where", tensor(at, 0), at.ref(1), at.ref(2))


@operator("Clip", sizes=())
def clip(at: At) -> Ref:
    least, most = (_bound(at, 1, "min"), _bound(at, 2, "max"))
    if (least, most) == (0, 6):
        return at.call("relu6", at.ref(0))
    if least is None and most is None:
        return at.ref(0)
    return at.call("clamp", at.ref(0), least, most)


def _bound(at: At, index: int, option: str) -> float | None:
    value: float | None = at.options.get(option)
    if at.has(index):
        value = float(at.weights(index, "bounds").reshape(-1)[0])
    # The largest number of its format says "no bound" in older sets.
    return None if value is None or abs(value) > 3.4e38 else value


@operator("LeakyRelu")
def leaky(at: At) -> Ref:
    return at.call("leaky_relu", at.ref(0), at.options.get("alpha", 0.01))


@operator("Elu", "Celu")
def elu(at: At) -> Ref:
    return at.call(at.kind.lower(), at.ref(0), at.options.get("alpha", 1.0))


@operator("Selu")
def selu(at: At) -> Ref:
    alpha, gamma = at.options.get("alpha", 1.67326), at.options.get("gamma", 1.0507)
    if abs(alpha - 1.67326) < 1e-4 and abs(gamma - 1.0507) < 1e-4:
        return at.call("selu", at.ref(0))
    return at.call("mul", at.call("elu", at.ref(0), alpha), gamma)


@operator("HardSigmoid")
def hard_sigmoid(at: At) -> Ref:
    alpha, beta = at.options.get("alpha", 0.2), at.options.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return at.call("hardsigmoid", at.ref(0))
    return at.call("clamp", at.call("add", at.call("mul", at.ref(0), alpha), beta), 0.0, 1.0)


@operator("Gelu")
def gelu(at: At) -> Ref:
    return at.call("gelu", at.ref(0), approximate=at.options.get("approximate", "none"))


@operator("Swish")
def swish(at: At) -> Ref:
    x = at.ref(0)
    alpha = at.options.get("alpha", 1.0)
    if alpha == 1.0:
        return at.call("silu", x)
    return at.call("mul", x, at.call("sigmoid", at.call("mul", x, alpha)))


@operator("ThresholdedRelu")
def thresholded(at: At) -> Ref:
    return at.call("threshold", at.ref(0), at.options.get("alpha", 1.0), 0.0)


@operator("Softmax", "LogSoftmax")
def softmax(at: At) -> Ref:
    function = "softmax" if at.kind == "Softmax" else "log_softmax"
    axis = at.axis(-1 if at.opset >= 13 else 1)
    if at.opset >= 13 or axis == at.rank - 1:
        return at.call(function, at.ref(0), axis)
    # Before set 13: over all dimensions from the axis on, taken as one.
    sizes = at.net.sizes(at.name(0))
    flat = at.reshape(at.ref(0), [*sizes[:axis], prod(at.shape[axis:])])
    return at.reshape(at.call(function, flat, axis), sizes)


@operator("LRN")
def local_response(at: At) -> Ref:
    size = at.options["size"]
    alpha, beta = at.options.get("alpha", 1e-4), at.options.get("beta", 0.75)
    return at.call("local_response_norm", at.ref(0), size, alpha, beta, at.options.get("bias", 1.0))


@operator("LpNormalization")
def normalised(at: At) -> Ref:
    norm = float(at.options.get("p", 2))
    return at.call("normalize", at.ref(0), norm, at.axis(-1), 1e-12)


# ---------------------------------------------------------------- over dimensions


def over(at: At) -> tuple[list[int], bool] | None:
    """(dimensions, whether they are kept); None where nothing is reduced."""
    axes = at.numbers(1, "axes")
    keep = bool(at.options.get("keepdims", 1))
    if not axes:
        if at.options.get("noop_with_empty_axes", 0):
            return None
        axes = list(range(at.rank))
    return at.axes(axes), keep


@operator(*REDUCED, sizes=(1,))
def reduced(at: At) -> Ref:
    how = over(at)
    return at.ref(0) if how is None else at.call(REDUCED[at.kind], at.ref(0), *how)


@operator("ReduceProd", sizes=(1,))
def reduced_product(at: At) -> Ref:
    how = over(at)
    x = at.ref(0)
    if how is None:
        return x
    for axis in reversed(how[0]):
        x = at.call("prod", x, axis, how[1])
    return x


@operator("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum", sizes=(1,))
def reduced_by_formula(at: At) -> Ref:
    how = over(at)
    x = at.ref(0)
    if how is None:
        raise at.refused("over no dimension: export the model again.")
    if at.kind == "ReduceL1":
        return at.call("sum", at.call("abs", x), *how)
    if at.kind == "ReduceLogSumExp":
        return at.call("logsumexp", x, *how)
    if at.kind == "ReduceLogSum":
        return at.call("log", at.call("sum", x, *how))
    total = at.call("sum", at.call("mul", x, x), *how)
    return at.call("sqrt", total) if at.kind == "ReduceL2" else total


@operator("ArgMax", "ArgMin")
def place_of_extreme(at: At) -> Ref:
    if at.options.get("select_last_index", 0):
        raise at.refused("of the last of equals: export the model without it.")
    keep = bool(at.options.get("keepdims", 1))
    return at.call(at.kind.lower(), at.ref(0), at.axis(0), keep)


@operator("Einsum")
def einsum(at: At) -> Ref:
    equation = str(at.options.get("equation", ""))
    if len(equation) > 200 or not set(equation) <= set("abcdefghijklmnopqrstuvwxyz,->. "):
        raise at.refused("with an equation that is not read: export the model without it.")
    operands: list[Any] = [tensor(at, index) for index in range(len(at.node.input))]
    return at.call("einsum", equation, *operands)
