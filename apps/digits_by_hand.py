"""From comparing pixels to a trained network, by hand: how a program learns to read digits.

    python apps/digits_by_hand.py

The data are the 1,797 handwritten digits of scikit-learn, 8 pixels a side. A quarter is held out for evaluation. There
are four steps: (1) no learning, each image is compared with the average image of each digit; (2) one linear layer;
(3) two layers with a ReLU between them; (4) convolutions. All of it uses kit.mechanism: layers whose forward and
backward are written out, without torch.nn and autograd.

| error rate on 449 held-out digits  | --seed 1 | --seed 2 | --seed 3 |
|------------------------------------|----------|----------|----------|
| average images, pixel by pixel     | 0.1403   | 0.1069   | 0.1403   |
| one layer                          | 0.0668   | 0.0423   | 0.0512   |
| two layers                         | 0.0557   | 0.0156   | 0.0334   |
| convolutions                       | 0.0156   | 0.0067   | 0.0111   |
"""

import random
from typing import Annotated

import torch
import typer
from sklearn.datasets import load_digits

from kit.intervals import wilson
from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.convolution import Conv2d, MaxPool2d
from kit.mechanism.layers import BatchNorm, Dropout, Flatten, Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.loop import Learner, ParamScheduler, backward_by_hand
from kit.mechanism.optimizers import SGD
from kit.mechanism.schedules import one_cycle

RATE = 0.1


def read_digits(seed: int) -> tuple[Dataset, Dataset]:
    """Images (n, 1, 8, 8) with values 0 to 1 and labels (n,): three quarters for training, a quarter for evaluation."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return Dataset(images, torch.tensor(digits.target)).split(0.25, torch.Generator().manual_seed(seed))


def nearest_average(train: Dataset, images: torch.Tensor) -> torch.Tensor:
    """No learning: the digit whose average image is nearest, pixel by pixel. (n, 1, 8, 8) -> (n,)."""
    digits = train.y.unique()
    averages = torch.stack([train.x[train.y == digit].mean(0) for digit in digits])
    distances = (images[:, None] - averages[None]).abs().mean((2, 3, 4))  # (n, 1, ...) - (1, 10, ...) -> (n, 10)
    return digits[distances.argmin(1)]


def learn(name: str, network: Layer, train: Dataset, valid: Dataset, epochs: int, seed: int) -> None:
    """Train a network, print a line for some of its epochs, and evaluate it."""
    batches = DataLoader(train, 32, shuffle=True, rng=random.Random(seed)), DataLoader(valid, 512)
    count = sum(p.numel() for p in network.parameters())
    print(f"\n{name}: {count:,} numbers to learn, {len(batches[0])} steps an epoch")
    optimizer = SGD(network.parameters(), lr=RATE, momentum=0.9)
    learner = Learner(network, *batches, SoftmaxCrossEntropy(), optimizer, backward_by_hand)
    rate, momentum = one_cycle(RATE)
    learner.fit(epochs, [ParamScheduler([rate], momentum)])
    for epoch, row in enumerate(learner.rows):
        if epoch in (0, epochs // 4, epochs // 2, epochs - 1):
            print(f"  epoch {epoch:>2}: train loss {row['train_loss']:.3f}, accuracy {row['accuracy']:.3f}")
    report("all ten", network(valid.x).argmax(1), valid)


def report(name: str, prediction: torch.Tensor, valid: Dataset) -> None:
    """One line: the error rate on held-out digits, with its interval."""
    wrong = (prediction != valid.y).sum().item()
    print(f"  {name}: error rate {wilson(wrong, len(valid))}")


def only(digits: tuple[int, ...], data: Dataset) -> Dataset:
    """The images and labels of these digits only."""
    return Dataset(*data[torch.isin(data.y, torch.tensor(digits))])


def main(seed: Annotated[int, typer.Option(help="of the split, the weights and the order")] = 1) -> None:
    """From pixel similarity to a trained network."""
    torch.manual_seed(seed)
    train, valid = read_digits(seed)
    print("average images: nothing is learned, each digit is compared with the average of its kind")
    pair = only((3, 7), valid)
    report("3 or 7, pixels", nearest_average(only((3, 7), train), pair.x), pair)
    report("all ten, pixels", nearest_average(train, valid.x), valid)
    one = Sequential(Flatten(), Linear(64, 10))
    two = Sequential(Flatten(), Linear(64, 50), ReLU(), Linear(50, 10))
    convolutions = Sequential(
        *(Conv2d(1, 16, 3, padding=1), BatchNorm(16), ReLU()),
        *(Conv2d(16, 32, 3, padding=1), BatchNorm(32), ReLU(), MaxPool2d(2)),
        *(Conv2d(32, 64, 3, padding=1), BatchNorm(64), ReLU(), MaxPool2d(2)),
        *(Flatten(), Dropout(0.3), Linear(64 * 4, 10)),
    )
    learn("one layer", one, train, valid, 20, seed)
    learn("two layers with a ReLU between", two, train, valid, 20, seed)
    learn("convolutions, which know that pixels have neighbours", convolutions, train, valid, 15, seed)


if __name__ == "__main__":
    typer.run(main)
