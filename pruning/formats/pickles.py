"""A pickle, read as data. A pickle is a small program; here its stack is played through and nothing it names is looked up or called.

What remains is what people save: dictionaries, lists, texts, numbers, and descriptions of tensors (which storage, where, what
shape). Only names of things known to be harmless may occur at all; every other name refuses the file.
The opcodes are documented in Python's own pickletools (https://docs.python.org/3/library/pickletools.html).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.magic import MODULE
from pruning.formats.types import shown

BROKEN = "holds a broken pickle: save or download it again."


@dataclass(frozen=True)
class Name:
    """A name that the pickle mentions. It stays a name."""

    full: str


@dataclass(frozen=True)
class Thing:
    """Something that is neither a plain value nor a tensor we read; `what` says what it was made by."""

    what: str


@dataclass(frozen=True)
class Odd:
    """A tensor that is not dense numbers; `what` says what it is, with the way out."""

    what: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the zip, as the pickle claims it."""

    dtype: str
    key: str
    numbers: int


@dataclass(frozen=True)
class Sketch:
    """A tensor as the pickle claims it: nothing of this is true until it is judged."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
}

ODD = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor: call .to_dense() on it",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor: call .to_dense() on it",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without numbers (on the meta device): save the real one",
    "torch._utils._rebuild_nested_tensor": "a nested tensor: call .to_padded_tensor() on it",
    "torch._utils._rebuild_qtensor": "a quantised tensor: save the model from before it was quantised",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a special kind: save plain tensors",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device: call .cpu() on it",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device: call .cpu() on it",
    "torch._utils._rebuild_tensor_v3": "a tensor in a number format that is not read: save it as float32",
}
"""What makes an Odd, and what that is."""

_BUILTIN = (
    "set",
    "frozenset",
    "bytearray",
    "complex",
    "slice",
    "dict",
    "list",
    "tuple",
    "int",
    "float",
    "str",
    "bool",
    "range",
)
HARMLESS = {
    *(
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
    ),
    *(
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
        "torch._C.Generator",
        "_codecs.encode",
    ),
    *(
        f"torch.{name}"
        for name in (
            "float64",
            "float32",
            "float16",
            "bfloat16",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint8",
            "bool",
        )
    ),
    *(
        f"torch.{name}"
        for name in (
            "per_tensor_affine",
            "per_channel_affine",
            "per_tensor_symmetric",
            "per_channel_symmetric",
        )
    ),
    *(f"torch.{name}Storage" for name in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")),
    *(f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict", "deque")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTIN),
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace"),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(
        f"pathlib.{name}"
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
}
"""Names of values that checkpoints carry beside the weights; what they would make is left out."""

_MARK = object()
_PUSH = {
    *(
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
    ),
    *(
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ),
}
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Thing("set"),
}


def load(text: bytes) -> Any:
    """The value a pickle describes: dicts, lists, tuples, plain values, Sketches, Odds and Things.

    FileRefused for programs and for what is broken.
    """
    machine = _Machine()
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(text)):
            if opcode.name == "STOP":
                return machine.pop()
            if steps > limits.STEPS:
                raise FileRefused(
                    f"takes over {limits.STEPS:,} steps to describe: save only the model's state_dict()."
                )
            machine.step(opcode.name, argument)
    except (
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        KeyError,
        UnicodeError,
    ):
        raise FileRefused(BROKEN) from None
    raise FileRefused(BROKEN)


class _Machine:
    """The stack and the memo that a pickle's opcodes work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        if code in _PUSH:
            self.stack.append(argument)
        elif code in _NEW:
            self.stack.append(_NEW[code]())
        elif code in _ACTIONS:
            _ACTIONS[code](self, argument)
        else:
            raise FileRefused(
                f"holds a pickle that is not read (it uses {code.lower()}): save it again with torch.save's defaults."
            )

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError("a mark is no value")
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise IndexError("a mark is no value")
        return value

    def since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def drop(self) -> None:
        self.stack.pop()

    def drop_to_mark(self) -> None:
        self.since_mark()

    def join(self, count: int) -> None:
        """The top `count` values become one tuple."""
        self.stack.append(tuple(reversed([self.pop() for _ in range(count)])))

    def remember(self, key: int | None) -> None:
        self.memo[len(self.memo) if key is None else key] = self.top()

    def recall(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Thing):
            raise TypeError("only lists grow")

    def put(self, pairs: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Thing):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise TypeError("only dictionaries take items")
        target.update(_items(pairs))

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is text")
        self.stack.append(known(f"{module}.{name}"))

    def call(self, named: bool = False) -> None:
        """What a call would make, described: the call itself does not happen. named: keyword arguments lie on top, and are left out."""
        if named:
            self.pop()
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("only names are called")
        self.stack.append(made(function.full, arguments))

    def inst(self, full: str) -> None:
        """The oldest way to write a call: the arguments, then the name."""
        arguments = tuple(self.since_mark())
        self.stack.append(made(known(full.replace(" ", ".")).full, arguments))

    def obj(self) -> None:
        """The second oldest: a name, then the arguments."""
        function, *arguments = self.since_mark()
        self.stack.append(made(function.full, tuple(arguments)))

    def state(self) -> None:
        """BUILD would set attributes: dictionaries carry such (a state_dict's versions), which are left out."""
        self.pop()
        if not isinstance(self.top(), dict | Thing | Odd | Sketch):
            raise TypeError("only objects have attributes")

    def storage(self) -> None:
        word, kind, key, _, numbers = self.pop()
        if (
            word != "storage"
            or not isinstance(kind, Name)
            or not isinstance(key, str)
            or type(numbers) is not int
        ):
            raise TypeError("not a storage")
        self.stack.append(Storage(STORAGES.get(kind.full, kind.full), key, numbers))


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.stack.append(_MARK),
    "POP": lambda m, a: m.drop(),
    "POP_MARK": lambda m, a: m.drop_to_mark(),
    "DUP": lambda m, a: m.stack.append(m.top()),
    "LIST": lambda m, a: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.join(1),
    "TUPLE2": lambda m, a: m.join(2),
    "TUPLE3": lambda m, a: m.join(3),
    "DICT": lambda m, a: m.stack.append(_items(m.since_mark())),
    "FROZENSET": lambda m, a: m.stack.append(Thing(f"a set of {len(m.since_mark())}")),
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.since_mark()),
    "ADDITEMS": lambda m, a: m.append(m.since_mark()),
    "SETITEM": lambda m, a: m.put([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.put(m.since_mark()),
    "PUT": lambda m, a: m.remember(a),
    "BINPUT": lambda m, a: m.remember(a),
    "LONG_BINPUT": lambda m, a: m.remember(a),
    "MEMOIZE": lambda m, a: m.remember(None),
    "GET": lambda m, a: m.recall(a),
    "BINGET": lambda m, a: m.recall(a),
    "LONG_BINGET": lambda m, a: m.recall(a),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(*[m.pop(), m.pop()][::-1]),
    "REDUCE": lambda m, a: m.call(),
    "NEWOBJ": lambda m, a: m.call(),
    "NEWOBJ_EX": lambda m, a: m.call(named=True),
    "INST": lambda m, a: m.inst(a),
    "OBJ": lambda m, a: m.obj(),
    "BUILD": lambda m, a: m.state(),
    "BINPERSID": lambda m, a: m.storage(),
}


def known(full: str) -> Name:
    """`full` as a Name, if it is one that weights and the usual values beside them need; FileRefused for all others."""
    if (
        full in STORAGES
        or full in ODD
        or full in HARMLESS
        or full in MAKERS
        or full.replace("torch.cuda.", "torch.") in STORAGES
    ):
        return Name(full.replace("torch.cuda.", "torch."))
    if full.rpartition(".")[2][:1].isupper():
        raise FileRefused(MODULE.format(which=f" ({shown(full)})"))
    raise FileRefused(
        f"holds a pickled call of {shown(full)}, which is a program: "
        "save model.state_dict() alone instead, e.g. torch.save(model.state_dict(), 'weights.pt')."
    )


def made(full: str, arguments: tuple[Any, ...]) -> Any:
    """What calling `full` would have made: a dict, a Sketch, an Odd or a Thing."""
    if full in MAKERS:
        return MAKERS[full](*arguments)
    return Odd(ODD[full]) if full in ODD else Thing(full)


def _sketch(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    return Sketch(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    """A Parameter is its tensor."""
    return data


def _table(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise TypeError("not a table")
    return _items([part for pair in pairs for part in pair])


def _again(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with attributes of its own: the tensor without them."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise TypeError("only names are called")
    if function.full == "torch._tensor._rebuild_from_type_v2":
        raise TypeError("a tensor of a tensor of a tensor")
    return made(function.full, arguments)


def _items(flat: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict. Keys are plain values: hashing a nest of tuples could take for ever."""
    keys = flat[::2]
    if len(flat) % 2 or not all(
        key is None or isinstance(key, str | int | float | bytes) for key in keys
    ):
        raise TypeError("not plain keys")
    return dict(zip(keys, flat[1::2], strict=True))


MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _sketch,
    "torch._utils._rebuild_tensor_v2": _sketch,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _again,
    "collections.OrderedDict": _table,
    "torch.Size": lambda sizes=(), *_: sizes,
}
