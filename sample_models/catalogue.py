"""The data sets, the sample models, and how each was trained. Plain data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pruning.errors import UnknownName

ARCHITECTURES = Path(__file__).parent / "architectures.txt"
"""The names of torchvision's classification architectures, one a line."""


FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
"""Data sets that are downloaded, and how torchvision calls their folders."""


@dataclass(frozen=True)
class Dataset:
    """Examples with classes. shape: of one example; sizes: train, validation, test, fixed for ever.

    Inputs are (value - mean) / std, of values in [0, 1] for pictures; needs: "nothing" or
    "download".
    """

    name: str
    title: str
    about: str
    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: float
    std: float
    needs: str
    licence: str
    source: str


@dataclass(frozen=True)
class Training:
    """How a sample model was trained: warm-up over the first tenth of the steps, then cosine to 0.

    shift: pictures are moved by up to that many pixels; flip: half of them are mirrored;
    smoothing: of the targets; bfloat16: products in bfloat16, weights in float32.
    """

    epochs: int
    batch: int = 64
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 0
    flip: bool = False
    smoothing: float = 0.0
    bfloat16: bool = False


@dataclass(frozen=True)
class Sample:
    """A model with shipped weights.

    architecture: "file:function" in this folder; half: shipped as float16, read as float32.
    """

    name: str
    title: str
    good_for: str
    about: str
    dataset: str
    architecture: str
    training: Training
    half: bool = False


DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "digits",
            "Digits 8x8",
            "1,797 handwritten digits of 8x8 pixels that come with scikit-learn.",
            (1, 8, 8),
            (1257, 180, 360),
            DIGITS,
            0.3053,
            0.3762,
            "nothing",
            "CC BY 4.0",
            "https://archive.ics.uci.edu/dataset/80",
        ),
        Dataset(
            "mnist1d",
            "MNIST-1D",
            "5,000 computed curves of 40 points, each a digit's outline that was moved, "
            "stretched and made noisy.",
            (1, 40),
            (3500, 500, 1000),
            DIGITS,
            0.0,
            1.0,
            "nothing",
            "Apache 2.0",
            "https://arxiv.org/abs/2011.14439",
        ),
        Dataset(
            "mnist",
            "MNIST",
            "70,000 handwritten digits of 28x28 pixels.",
            (1, 28, 28),
            (55_000, 5_000, 10_000),
            DIGITS,
            0.1307,
            0.3081,
            "download",
            "CC BY-SA 3.0",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        Dataset(
            "fashion-mnist",
            "Fashion-MNIST",
            "70,000 photographs of clothes, 28x28 grey pixels.",
            (1, 28, 28),
            (55_000, 5_000, 10_000),
            FASHION,
            0.2860,
            0.3530,
            "download",
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
        ),
    )
}

SAMPLES = {
    s.name: s
    for s in (
        Sample(
            "digits-mlp",
            "MLP on digits",
            "The first model to try: three plain layers that, fine-tuned, keep their accuracy "
            "with nine of ten weights pruned.",
            "Three linear layers, 64-300-100-10, with ReLU.",
            "digits",
            "mlp:digits_mlp",
            Training(epochs=60, lr=0.05, weight_decay=1e-3, shift=1),
        ),
        Sample(
            "digits-cnn",
            "CNN on digits",
            "Filters you can look at, and the difference between removing single weights "
            "and whole channels.",
            "Three 3x3 convolutions with pooling, then two linear layers.",
            "digits",
            "cnn:digits_cnn",
            Training(epochs=50, lr=0.03, weight_decay=1e-3, shift=1),
        ),
        Sample(
            "digits-resnet",
            "Residual CNN on digits",
            "Dependency groups through residual connections: layers that add into each other "
            "must lose the same channels, with their BatchNorm.",
            "A convolution, three residual blocks with BatchNorm, one linear layer.",
            "digits",
            "resnet:digits_resnet",
            Training(epochs=40, lr=0.1, shift=1),
        ),
        Sample(
            "digits-depthwise",
            "Depthwise CNN on digits",
            "Dependency groups through depthwise convolutions: removing a channel removes its own "
            "filter and two BatchNorms' entries too.",
            "Depthwise 3x3 and pointwise 1x1 convolutions with BatchNorm, as in MobileNet.",
            "digits",
            "depthwise:digits_depthwise",
            Training(epochs=60, lr=0.1, shift=1),
        ),
        Sample(
            "digits-vit",
            "Vision transformer on digits",
            "Attention heads and wide MLP layers: it loses accuracy far sooner than a "
            "convolutional network of its size.",
            "2x2 patches, three transformer blocks of width 48 with four heads, a mean over the "
            "patches, one linear layer.",
            "digits",
            "vit:digits_vit",
            Training(
                epochs=120, optimizer="adamw", lr=2e-3, weight_decay=0.05, shift=1, smoothing=0.05
            ),
        ),
        Sample(
            "mnist1d-mlp",
            "MLP on MNIST-1D",
            "A model that overfits: see whether fewer weights help or harm it on curves that it "
            "has not met.",
            "Three linear layers, 40-200-100-10, with ReLU.",
            "mnist1d",
            "mlp:mnist1d_mlp",
            Training(epochs=60, lr=0.03, weight_decay=1e-3),
        ),
        Sample(
            "mnist1d-cnn",
            "CNN on MNIST-1D",
            "A small model on a hard task: accuracy falls early, so that techniques are told "
            "apart.",
            "Three convolutions over a curve of 40 points, then one linear layer.",
            "mnist1d",
            "cnn1d:mnist1d_cnn",
            Training(epochs=80, lr=0.05, weight_decay=1e-3),
        ),
        Sample(
            "mnist-lenet300",
            "LeNet-300-100 on MNIST",
            "The yardstick of the literature: Han et al. kept its accuracy with a twelfth of the "
            "weights.",
            "Three linear layers, 784-300-100-10, with ReLU.",
            "mnist",
            "mlp:lenet300",
            Training(epochs=14, batch=128, lr=0.1, weight_decay=2e-4, shift=1),
            half=True,
        ),
        Sample(
            "mnist-lenet5",
            "LeNet-5 on MNIST",
            "Published numbers to compare with: one linear layer holds 93 % of the weights, so "
            "it matters where they are removed.",
            "Two 5x5 convolutions (20 and 50 filters) with pooling, then 800-500-10.",
            "mnist",
            "lenet5:lenet5",
            Training(epochs=5, batch=64, lr=0.03, weight_decay=5e-4, bfloat16=True),
            half=True,
        ),
        Sample(
            "fashion-lenet5",
            "LeNet-5 on Fashion-MNIST",
            "The same network as on MNIST with a harder task: see how much less of it can be "
            "removed.",
            "Two 5x5 convolutions (20 and 50 filters) with pooling, then 800-500-10.",
            "fashion-mnist",
            "lenet5:lenet5",
            Training(epochs=7, batch=64, lr=0.03, weight_decay=5e-4, flip=True, bfloat16=True),
            half=True,
        ),
        Sample(
            "fashion-resnet20",
            "ResNet-20 on Fashion-MNIST",
            "A deep network of thin layers, of which a few are far more sensitive than the rest.",
            "Three stages of three residual blocks with BatchNorm (16, 32, 64 channels), "
            "one linear layer.",
            "fashion-mnist",
            "resnet:resnet20",
            Training(epochs=10, batch=128, lr=0.1, shift=2, flip=True, bfloat16=True),
            half=True,
        ),
    )
}


def sample(name: str) -> Sample:
    """Raises UnknownName, which lists the known ones."""
    if name not in SAMPLES:
        raise UnknownName("sample model", name, SAMPLES)
    return SAMPLES[name]


def dataset(name: str) -> Dataset:
    """Raises UnknownName, which lists the known ones."""
    if name not in DATASETS:
        raise UnknownName("data set", name, DATASETS)
    return DATASETS[name]
