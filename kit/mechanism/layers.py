"""Layers with forward and backward written out: what a framework keeps out of sight.

`forward` is a formula that runs on plain tensors, on tensors that PyTorch's autograd follows and on `Variable`s of our
own. `backward` is the same layer's chain rule worked out on paper: it takes the gradient of the loss with respect to
the output, adds each parameter's gradient to `parameter.grad`, and returns the gradient with respect to the input.

    python -m kit.mechanism.layers
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kit.mechanism.activations import softmax
from kit.mechanism.autograd import Variable, accumulate, like
from kit.mechanism.initializers import he
from kit.mechanism.losses import cross_entropy, mean_squared_error, one_hot

Array = Tensor | Variable


class Layer:
    """One step of a network. Parameters are plain tensors; `training` tells layers that behave differently then."""

    names: tuple[str, ...] = ()
    training = True

    def __call__(self, x: Array) -> Array:
        """`forward`, as in PyTorch."""
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """The output for a batch; remembers what `backward` needs."""
        raise NotImplementedError

    def backward(self, grad: Tensor) -> Tensor:
        """From the gradient with respect to the output to that with respect to the input."""
        raise NotImplementedError

    def children(self) -> list["Layer"]:
        """The layers that this one is made of."""
        return []

    def modules(self) -> Iterator["Layer"]:
        """This layer and all below it."""
        yield self
        for child in self.children():
            yield from child.modules()

    def parameters(self) -> list[Tensor]:
        """Everything that is learned here and below, in order."""
        return [getattr(layer, name) for layer in self.modules() for name in layer.names]

    def train(self, mode: bool = True) -> "Layer":
        """Behave as in training, here and below."""
        for layer in self.modules():
            layer.training = mode
        return self

    def eval(self) -> "Layer":
        """Behave as when predicting: nothing random, nothing that depends on the rest of the batch."""
        return self.train(False)

    def to(self, dtype: torch.dtype) -> "Layer":
        """Convert every tensor that the layers hold, running statistics too."""
        for layer in self.modules():
            for name, value in vars(layer).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(layer, name, value.to(dtype))
        return self


class Sequential(Layer):
    """Layers one after the other: forward from the first to the last, backward from the last to the first."""

    def __init__(self, *layers: Layer):
        self.layers = list(layers)

    def children(self) -> list[Layer]:
        """The layers, in order."""
        return self.layers

    def forward(self, x: Array) -> Array:
        """Each layer's output is the next one's input."""
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, grad: Tensor) -> Tensor:
        """Each layer's input gradient is the previous one's output gradient."""
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad


class Linear(Layer):
    """y = x W^T + b, the affine layer. x (n, inputs), weight (outputs, inputs), bias (outputs,), y (n, outputs)."""

    names = ("weight", "bias")

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator | None = None):
        self.weight = he((outputs, inputs), generator=generator)
        self.bias = torch.zeros(outputs)

    def forward(self, x: Array) -> Array:
        """(n, inputs) -> (n, outputs)."""
        if len(x.shape) != 2 or x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"Linear expects (n, {self.weight.shape[1]}), got {tuple(x.shape)}; flatten or resize")
        self.x = x
        return x @ like(x, self.weight).T + like(x, self.bias)

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dW = g^T x, dL/db = sum of g over the batch, dL/dx = g W."""
        accumulate(self.weight, grad.T @ self.x)
        accumulate(self.bias, grad.sum(0))
        return grad @ self.weight


class ReLU(Layer):
    """max(x, 0): the gradient passes where x was above 0, and nowhere else."""

    def forward(self, x: Array) -> Array:
        """Any shape."""
        self.x = x
        return x.relu()

    def backward(self, grad: Tensor) -> Tensor:
        """g where x > 0, else 0."""
        return grad * (self.x > 0)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)); its backward needs the output alone."""

    def forward(self, x: Array) -> Array:
        """Any shape; values between 0 and 1."""
        self.y = x.sigmoid()
        return self.y

    def backward(self, grad: Tensor) -> Tensor:
        """g y (1 - y)."""
        return grad * self.y * (1 - self.y)


class Tanh(Layer):
    """y = tanh(x) = 2 sigmoid(2x) - 1."""

    def forward(self, x: Array) -> Array:
        """Any shape; values between -1 and 1."""
        self.y = x.tanh()
        return self.y

    def backward(self, grad: Tensor) -> Tensor:
        """g (1 - y^2)."""
        return grad * (1 - self.y * self.y)


class Flatten(Layer):
    """(n, ...) -> (n, the product of the rest)."""

    def forward(self, x: Array) -> Array:
        """Rows stay rows."""
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient in the shape that came in."""
        return grad.reshape(self.shape)


class Dropout(Layer):
    """Set each value to 0 with probability p while training, and scale the rest by 1 / (1 - p).

    "Inverted" dropout (Srivastava et al., 2014): the expected value stays, so predicting needs no change.
    """

    def __init__(self, p: float, generator: torch.Generator | None = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout(p={p}): p is the share that is dropped, from 0 to below 1")
        self.p, self.generator = p, generator

    def forward(self, x: Array) -> Array:
        """Any shape. The mask is remembered: who was off sends nothing back."""
        self.mask = torch.ones_like(x.data)
        if self.training:
            dice = torch.rand(x.shape, generator=self.generator, device=x.data.device)
            self.mask = (dice >= self.p).to(x.data.dtype) / (1 - self.p)
        return x * self.mask

    def backward(self, grad: Tensor) -> Tensor:
        """g times the same mask."""
        return grad * self.mask


class BatchNorm(Layer):
    """Normalise each feature over the batch to mean 0 and variance 1, then scale and shift by what is learned.

    y = weight (x - mean) / sqrt(variance + eps) + bias (Ioffe and Szegedy, 2015). x is (n, features) or
    (n, features, h, w). Predicting uses the running statistics, which training moves by `momentum` (a tenth) of the
    way to each batch's; the running variance counts n - 1, the one that normalises counts n, as in PyTorch.
    """

    names = ("weight", "bias")

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight, self.bias = torch.ones(features), torch.zeros(features)
        self.running_mean, self.running_var = torch.zeros(features), torch.ones(features)
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array) -> Array:
        """The same shape as came in."""
        if len(x.shape) not in (2, 4) or x.shape[1] != len(self.weight):
            raise ValueError(f"BatchNorm expects {len(self.weight)} features, (n, features, ...), got {tuple(x.shape)}")
        self.dims = (0,) if len(x.shape) == 2 else (0, 2, 3)
        self.count = x.shape[0] * (x.shape[2] * x.shape[3] if len(x.shape) == 4 else 1)
        mean, variance = self._statistics(x)
        self.std = (variance + self.eps).sqrt()
        self.normalised = (x - mean) / self.std
        return self.normalised * self._wide(like(x, self.weight)) + self._wide(like(x, self.bias))

    def _wide(self, value: Array) -> Array:
        """(features,) -> (1, features) or (1, features, 1, 1), to meet a batch."""
        return value.reshape(1, -1, *[1] * (len(self.dims) - 1))

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        if not self.training:
            return self._wide(self.running_mean), self._wide(self.running_var)
        if self.count < 2:
            raise ValueError(f"BatchNorm cannot train on one value a feature, {tuple(x.shape)}; take a larger batch")
        mean = x.mean(self.dims, keepdim=True)
        variance = ((x - mean) ** 2).mean(self.dims, keepdim=True)
        self._follow(mean.data, variance.data)
        return mean, variance

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean = self.running_mean.lerp(mean.flatten(), self.momentum)
        self.running_var = self.running_var.lerp(variance.flatten() * self.count / (self.count - 1), self.momentum)

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = (g' - mean(g') - y' mean(g' y')) / std with g' = weight g and y' the normalised x.

        Mean and variance depend on every x of the batch: the two means are what comes back through them. When
        predicting they are constants, and only the division is left.
        """
        accumulate(self.weight, (grad * self.normalised).sum(self.dims))
        accumulate(self.bias, grad.sum(self.dims))
        grad = grad * self._wide(self.weight)
        if self.training:
            through_mean = grad.mean(self.dims, keepdim=True)
            through_variance = self.normalised * (grad * self.normalised).mean(self.dims, keepdim=True)
            grad = grad - through_mean - through_variance
        return grad / self.std


class SoftmaxCrossEntropy:
    """Cross entropy of softmax(logits): the last layer of a classifier and its loss, as one.

    Together they have the simplest gradient there is: y - t, what was predicted less what is true.
    """

    def __call__(self, logits: Array, target: Tensor) -> Array:
        """logits (n, classes); target (n,) of class indices, or (n, classes) one-hot. Returns the mean, a scalar."""
        loss = cross_entropy(logits, target)
        self.logits = logits.data
        self.target = target if target.ndim == 2 else one_hot(target, logits.shape[1]).to(self.logits.dtype)
        return loss

    def backward(self) -> Tensor:
        """(softmax(logits) - target) / n, of shape (n, classes)."""
        return (softmax(self.logits) - self.target) / len(self.logits)


class MeanSquaredError:
    """The mean of (prediction - target)^2."""

    def __call__(self, prediction: Array, target: Tensor) -> Array:
        """Both of one shape. Returns a scalar."""
        loss = mean_squared_error(prediction, target)
        self.error = prediction.data - target
        return loss

    def backward(self) -> Tensor:
        """2 (prediction - target) / count."""
        return 2 * self.error / self.error.numel()


def main() -> None:
    """One batch through two layers and back: the shapes, and what each parameter is told."""
    torch.manual_seed(0)
    network, loss = Sequential(Linear(4, 3), ReLU(), Linear(3, 2)), SoftmaxCrossEntropy()
    x, target = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1])
    print(f"x {tuple(x.shape)} -> logits {tuple(network(x).shape)}, loss {loss(network(x), target):.4f}")
    print(f"gradient with respect to x: {tuple(network.backward(loss.backward()).shape)}")
    for parameter in network.parameters():
        print(f"parameter {tuple(parameter.shape)!s:<7} gradient norm {parameter.grad.norm():.4f}")


if __name__ == "__main__":
    main()
