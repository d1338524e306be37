"""Layers: forward and backward written out for Linear, activations, Dropout, BatchNorm, and two losses.

`forward` works on plain tensors, on tensors that PyTorch's autograd follows, and on `Variable`s. `backward` is the
chain rule worked out by hand: it takes the gradient of the loss with respect to the output, adds the gradient of each
parameter to `parameter.grad`, and returns the gradient with respect to the input. In the docstrings, g is the gradient
with respect to the output. Run `python -m kit.mechanism.layers` to pass one batch through a network and back, and to
check each gradient.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from kit.mechanism.activations import sigmoid, softmax
from kit.mechanism.autograd import Variable, accumulate_grad, as_leaf
from kit.mechanism.initializers import he
from kit.mechanism.losses import binary_cross_entropy, cross_entropy, mean_squared_error, one_hot

Array = Tensor | Variable


class Layer:
    """Base class of all layers and networks, with the interface of `torch.nn.Module`.

    Parameters and buffers are plain tensors, stored in the attributes that `parameter_names` and `buffer_names` list.
    """

    parameter_names: tuple[str, ...] = ()
    buffer_names: tuple[str, ...] = ()
    training = True

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """Return the output for a batch, and store what `backward` needs."""
        raise NotImplementedError

    def backward(self, grad: Tensor) -> Tensor:
        """Return the gradient with respect to the input, given the gradient with respect to the output."""
        raise NotImplementedError

    def children(self) -> list["Layer"]:
        """Return the layers in the attributes of this layer, and in lists there."""
        values = [item for value in vars(self).values() for item in (value if isinstance(value, list) else [value])]
        return [value for value in values if isinstance(value, Layer)]

    def modules(self) -> Iterator["Layer"]:
        """Yield this layer and all layers inside it."""
        yield self
        for child in self.children():
            yield from child.modules()

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of every parameter; the name is the number of the layer and the attribute."""
        for i, layer in enumerate(self.modules()):
            yield from ((f"{i}.{name}", getattr(layer, name)) for name in layer.parameter_names)

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of every buffer: tensors that are not trained, such as running means."""
        for i, layer in enumerate(self.modules()):
            yield from ((f"{i}.{name}", getattr(layer, name)) for name in layer.buffer_names)

    def parameters(self) -> list[Tensor]:
        """Return all parameters of this layer and the layers inside it."""
        return [parameter for _, parameter in self.named_parameters()]

    def train(self, mode: bool = True) -> "Layer":
        """Set training mode here and in all layers inside: Dropout drops, BatchNorm uses the batch's statistics."""
        for layer in self.modules():
            layer.training = mode
        return self

    def eval(self) -> "Layer":
        """Set evaluation mode: nothing random, and no dependence between the examples of a batch."""
        return self.train(False)

    def to(self, dtype: torch.dtype) -> "Layer":
        """Convert all parameters and buffers to `dtype`."""
        for layer in self.modules():
            for name, value in vars(layer).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(layer, name, value.to(dtype))
        return self


class Sequential(Layer):
    """Apply layers one after the other; `backward` goes through them in reverse order."""

    def __init__(self, *layers: Layer):
        self.layers = list(layers)

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, grad: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad


class Linear(Layer):
    """y = x W^T + b, the affine layer: (n, in_features) -> (n, out_features).

    weight: (out_features, in_features), bias: (out_features,).
    """

    parameter_names = ("weight", "bias")

    def __init__(self, in_features: int, out_features: int):
        self.weight = he((out_features, in_features))
        self.bias = torch.zeros(out_features)

    def forward(self, x: Array) -> Array:
        if len(x.shape) != 2 or x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"Linear expects (n, {self.weight.shape[1]}), got {tuple(x.shape)}; flatten or resize")
        self.x = x
        return x @ as_leaf(self.weight, x).T + as_leaf(self.bias, x)

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dW = g^T x, dL/db = sum of g over the batch, dL/dx = g W."""
        accumulate_grad(self.weight, grad.T @ self.x)
        accumulate_grad(self.bias, grad.sum(0))
        return grad @ self.weight


class ReLU(Layer):
    """y = max(x, 0), element by element."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return x.relu()

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = g where x > 0, else 0."""
        return grad * (self.x > 0)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), element by element; `backward` needs only the output."""

    def forward(self, x: Array) -> Array:
        self.y = x.sigmoid()
        return self.y

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = g y (1 - y)."""
        return grad * self.y * (1 - self.y)


class Tanh(Layer):
    """y = tanh(x) = 2 sigmoid(2x) - 1, element by element; `backward` needs only the output."""

    def forward(self, x: Array) -> Array:
        self.y = x.tanh()
        return self.y

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = g (1 - y^2)."""
        return grad * (1 - self.y * self.y)


class Flatten(Layer):
    """Reshape (n, ...) to (n, features)."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = g in the shape of the input."""
        return grad.reshape(self.shape)


class Dropout(Layer):
    """In training, set each element to 0 with probability p and multiply the others by 1 / (1 - p).

    This "inverted" dropout keeps the expected value, so that evaluation mode returns the input unchanged.
    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    """

    def __init__(self, p: float):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout(p={p}): expected a probability from 0 to below 1")
        self.p = p

    def forward(self, x: Array) -> Array:
        self.mask = torch.ones_like(x.data)
        if self.training:
            random = torch.rand(x.shape, device=x.data.device)
            self.mask = (random >= self.p).to(x.data.dtype) / (1 - self.p)
        return x * self.mask

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = g times the mask of the forward pass."""
        return grad * self.mask


class BatchNorm(Layer):
    """Normalise each feature to mean 0 and variance 1 over the batch, then scale and shift by learned parameters.

    y = weight (x - mean) / sqrt(variance + eps) + bias; x: (n, features) or (n, features, h, w). Evaluation mode uses
    running_mean and running_var. In training these move to the statistics of each batch: running = (1 - momentum)
    running + momentum batch; as in PyTorch, running_var is divided by n - 1, the variance that normalises by n.
    Source: Ioffe and Szegedy, Batch normalization, 2015.
    """

    parameter_names = ("weight", "bias")
    buffer_names = ("running_mean", "running_var")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight, self.bias = torch.ones(num_features), torch.zeros(num_features)
        self.running_mean, self.running_var = torch.zeros(num_features), torch.ones(num_features)
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array) -> Array:
        if len(x.shape) not in (2, 4) or x.shape[1] != len(self.weight):
            raise ValueError(f"BatchNorm expects {len(self.weight)} features, (n, features, ...), got {tuple(x.shape)}")
        self.dims = (0,) if len(x.shape) == 2 else (0, 2, 3)
        mean, variance = self._statistics(x)
        self.std = (variance + self.eps).sqrt()
        self.normalised = (x - mean) / self.std
        return self.normalised * self._per_feature(as_leaf(self.weight, x)) + self._per_feature(as_leaf(self.bias, x))

    def _per_feature(self, value: Array) -> Array:
        """Reshape (features,) to (1, features) or (1, features, 1, 1), to broadcast over the batch."""
        return value.reshape(1, -1, *[1] * (len(self.dims) - 1))

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        """Return mean and variance of each feature; in training, update the running statistics."""
        if not self.training:
            return self._per_feature(self.running_mean), self._per_feature(self.running_var)
        count = x.data.numel() // x.shape[1]
        if count < 2:
            raise ValueError(f"BatchNorm cannot train on one value per feature, {tuple(x.shape)}; use a larger batch")
        mean = x.mean(self.dims, keepdim=True)
        variance = ((x - mean) ** 2).mean(self.dims, keepdim=True)
        self.running_mean = self.running_mean.lerp(mean.data.flatten(), self.momentum)
        self.running_var = self.running_var.lerp(variance.data.flatten() * count / (count - 1), self.momentum)
        return mean, variance

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dx = (g' - mean(g') - x' mean(g' x')) / std, with g' = weight g and x' the normalised x.

        The two means come from the dependence of mean and variance on x. In evaluation mode mean and variance are
        constants, and dL/dx = g' / std.
        """
        accumulate_grad(self.weight, (grad * self.normalised).sum(self.dims))
        accumulate_grad(self.bias, grad.sum(self.dims))
        grad = grad * self._per_feature(self.weight)
        if self.training:
            through_mean = grad.mean(self.dims, keepdim=True)
            through_variance = self.normalised * (grad * self.normalised).mean(self.dims, keepdim=True)
            grad = grad - through_mean - through_variance
        return grad / self.std


class SoftmaxCrossEntropy:
    """Cross entropy of softmax(logits), the loss of a classifier; both together have a simple gradient."""

    def __call__(self, logits: Array, target: Tensor) -> Array:
        """logits: (n, classes); target: class indices (n,) or one-hot (n, classes). Returns the mean loss, a scalar."""
        loss = cross_entropy(logits, target)
        self.logits = logits.data
        self.target = target if target.ndim == 2 else one_hot(target, logits.shape[1]).to(self.logits.dtype)
        return loss

    def backward(self) -> Tensor:
        """Return (softmax(logits) - target) / n, of shape (n, classes)."""
        return (softmax(self.logits) - self.target) / len(self.logits)


class SigmoidCrossEntropy:
    """Binary cross entropy of sigmoid(logits), for images that can have several classes, or none."""

    def __call__(self, logits: Array, target: Tensor) -> Array:
        """logits, target: (n, classes). Returns the mean over all elements, a scalar."""
        loss = binary_cross_entropy(logits, target)
        self.logits, self.target = logits.data, target
        return loss

    def backward(self) -> Tensor:
        """Return (sigmoid(logits) - target) / number of elements."""
        return (sigmoid(self.logits) - self.target) / self.logits.numel()


class MeanSquaredError:
    """The mean of (prediction - target)^2, the loss of a regression."""

    def __call__(self, prediction: Array, target: Tensor) -> Array:
        """Return the mean over all elements, a scalar; both arguments have the same shape."""
        loss = mean_squared_error(prediction, target)
        self.error = prediction.data - target
        return loss

    def backward(self) -> Tensor:
        """Return 2 (prediction - target) / number of elements."""
        return 2 * self.error / self.error.numel()


def main() -> None:
    """Pass one batch forward and back; print shapes, formulas, errors of the gradients, and what a step changes."""
    from kit.mechanism.gradient import numerical_gradient, relative_error

    torch.manual_seed(0)
    network, loss = (
        Sequential(Linear(4, 3), BatchNorm(3), ReLU(), Linear(3, 2)).to(torch.float64),
        SoftmaxCrossEntropy(),
    )
    x, target = 5 + torch.randn(6, 4).double(), torch.tensor([0, 1, 0, 1, 1, 0])
    value, outputs = x, []
    for layer in network.layers:
        outputs.append(layer(value))
        shapes = f"{tuple(value.shape)} -> {tuple(outputs[-1].shape)}"
        print(f"{type(layer).__name__:<9} {shapes:<16} {layer.backward.__doc__.splitlines()[0]}")
        value = outputs[-1]
    for name, output in (("Linear", outputs[0]), ("BatchNorm", outputs[1])):
        mean, std = output.mean(0).tolist(), output.std(0, correction=0).tolist()
        print(f"after {name}: mean of each feature", *(f"{m:.2f}" for m in mean), "  std", *(f"{s:.2f}" for s in std))
    before = loss(value, target)
    tensors = [("x", x), *network.named_parameters()]
    found = [network.backward(loss.backward()), *(p.grad for p in network.parameters())]
    print("gradient by hand        norm   relative error against the numerical gradient")
    for (name, tensor), gradient in zip(tensors, found, strict=True):
        error = relative_error(gradient, numerical_gradient(lambda _: loss(network(x), target), tensor))
        print(f"{name:<9} {tuple(tensor.shape)!s:<8} {gradient.norm():>9.5f}   {error:.0e}")
    for lr in (0.01, 0.1, 1.0):
        moved = copy.deepcopy(network)
        for p, gradient in zip(moved.parameters(), found[1:], strict=True):
            p -= lr * gradient
        predicted = -lr * sum(gradient.square().sum() for gradient in found[1:])
        change = loss(moved(x), target) - before
        print(f"a step with lr {lr:<4} changes the loss by {change:+.5f}; the gradient predicts {predicted:+.5f}")


if __name__ == "__main__":
    main()
