"""Autograd: a computational graph that records how to compute the gradient of each operation.

A `Variable` holds a tensor and, for each variable it was computed from, a function: gradient with respect to the result
-> gradient with respect to that source. `backward` goes through the graph from the loss to the leaves, applies these
functions and adds up the results: the chain rule. This is back-propagation (Rumelhart, Hinton and Williams, Learning
representations by back-propagating errors, 1986). Run `python -m kit.mechanism.autograd` for a small example.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rule = Callable[[Tensor], Tensor]


class Variable:
    """A tensor in a computational graph: `data` holds its values, `grad` its gradient after `backward`.

    Methods have PyTorch's names, so a formula written for tensors also works on variables. Tensors and numbers in a
    formula are constants. The gradient of a leaf is stored in `data.grad`. For a leaf with `requires_grad=False`, such
    as a batch of images, no gradient is computed.
    """

    def __init__(self, data: Tensor, sources: Sequence[tuple["Variable", Rule]] = (), requires_grad: bool = True):
        if not isinstance(data, Tensor) or not data.is_floating_point():
            kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
            raise ValueError(f"a Variable holds a floating point tensor, not {kind}; use .float()")
        self.data = data
        self.sources = tuple((source, rule) for source, rule in sources if source.requires_grad)
        self.requires_grad = bool(self.sources) if sources else requires_grad

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    @property
    def grad(self) -> Tensor | None:
        """The gradient of a leaf, of the shape of `data`; None before `backward`."""
        return self.data.grad

    def backward(self, grad: Tensor | None = None) -> None:
        """Add the gradient of this variable with respect to each leaf to the `grad` of that leaf.

        grad: the gradient of the loss with respect to this variable; by default 1, for a scalar.
        """
        if grad is None:
            if self.data.numel() != 1:
                shape = tuple(self.shape)
                raise ValueError(f"backward() of a variable of shape {shape}: sum it first, or pass its gradient")
            grad = torch.ones_like(self.data)
        grads = {id(self): grad}
        for variable in reversed(self._topological_order()):
            grad = grads.pop(id(variable))
            if not variable.sources:
                accumulate_grad(variable.data, grad)
            for source, rule in variable.sources:
                part = unbroadcast(rule(grad), source.shape).to(source.data.dtype)
                grads[id(source)] = grads[id(source)] + part if id(source) in grads else part

    def _topological_order(self) -> list["Variable"]:
        """Return this variable and all that it was computed from, sources first."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            variable, expanded = stack.pop()
            if expanded:
                order.append(variable)
            elif id(variable) not in seen:
                seen.add(id(variable))
                stack.append((variable, True))
                stack += [(source, False) for source, _ in variable.sources]
        return order

    def __add__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.add, lambda g, x, y: g, lambda g, x, y: g)

    def __mul__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.mul, lambda g, x, y: g * y, lambda g, x, y: g * x)

    def __truediv__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.true_divide, lambda g, x, y: g / y, lambda g, x, y: -g * x / (y * y))

    def __matmul__(self, other: "Variable | Tensor") -> "Variable":
        """(n, k) @ (k, m) -> (n, m); the gradients are g y^T and x^T g. A vector is one row on the left, one column on
        the right, and this axis is missing in the result."""
        if len(other.shape) == 1:
            product = self @ other.reshape(-1, 1)
            return product.reshape(product.shape[:-1])
        if len(self.shape) == 1:
            product = self.reshape(1, -1) @ other
            return product.reshape(product.shape[:-2] + product.shape[-1:])
        return _binary(self, other, torch.matmul, lambda g, x, y: g @ y.mT, lambda g, x, y: x.mT @ g)

    def __sub__(self, other: "Variable | Tensor | float") -> "Variable":
        return self + -other

    def __neg__(self) -> "Variable":
        return self * -1.0

    def __rsub__(self, other: Tensor | float) -> "Variable":
        return -self + other

    def __rtruediv__(self, other: Tensor | float) -> "Variable":
        return self._constant(other) / self

    def __rmatmul__(self, other: Tensor) -> "Variable":
        return self._constant(other) @ self

    def _constant(self, other: Tensor | float) -> "Variable":
        return Variable(_constant(other, self.data.dtype), requires_grad=False)

    __radd__, __rmul__ = __add__, __mul__

    def exp(self) -> "Variable":
        """exp(x); derivative exp(x)."""
        y = self.data.exp()
        return Variable(y, [(self, lambda g: g * y)])

    def log(self) -> "Variable":
        """Natural logarithm; derivative 1 / x."""
        return Variable(self.data.log(), [(self, lambda g: g / self.data)])

    def __pow__(self, power: float) -> "Variable":
        """x^power for a number `power`; derivative power * x^(power - 1), and 0 for x^0, also at x = 0."""
        if not isinstance(power, int | float):
            raise ValueError(f"x ** {type(power).__name__}: the power is a number; for x > 0 use (y * x.log()).exp()")
        slope = (lambda x: power * x ** (power - 1)) if power else torch.zeros_like
        return Variable(self.data**power, [(self, lambda g: g * slope(self.data))])

    def sqrt(self) -> "Variable":
        """Square root; derivative 1 / (2 sqrt(x))."""
        y = self.data.sqrt()
        return Variable(y, [(self, lambda g: g / (2 * y))])

    def sigmoid(self) -> "Variable":
        """y = 1 / (1 + exp(-x)); derivative y (1 - y). From exp and / it would be 0 * infinity = NaN at x = -100."""
        y = self.data.sigmoid()
        return Variable(y, [(self, lambda g: g * y * (1 - y))])

    def tanh(self) -> "Variable":
        """y = tanh(x); derivative 1 - y^2."""
        y = self.data.tanh()
        return Variable(y, [(self, lambda g: g * (1 - y * y))])

    def relu(self) -> "Variable":
        """max(x, 0); derivative 1 where x > 0, else 0."""
        return Variable(self.data.clamp(min=0), [(self, lambda g: g * (self.data > 0))])

    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> "Variable":
        """Sum over `dim` (all by default); every element gets the gradient of its sum."""
        dims = tuple(range(self.data.ndim)) if dim is None else dim
        kept = self.data.sum(dims, keepdim=True)
        y = kept if keepdim else kept.squeeze(dims)
        return Variable(y, [(self, lambda g: g.reshape(kept.shape).expand(self.shape))])

    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> "Variable":
        """Mean over `dim` (all by default): the sum divided by the number of elements."""
        total = self.sum(dim, keepdim)
        return total * (total.data.numel() / self.data.numel())

    def amax(self, dim: int, keepdim: bool = False) -> "Variable":
        """Maximum along `dim`; the gradient goes to the maximum, in equal parts where several are equal."""
        maximum = self.data.amax(dim, keepdim=True)
        is_max = (self.data == maximum).to(self.data.dtype)
        share = is_max / is_max.sum(dim, keepdim=True)
        return Variable(
            maximum if keepdim else maximum.squeeze(dim), [(self, lambda g: g.reshape(maximum.shape) * share)]
        )

    def reshape(self, *shape: int) -> "Variable":
        """Reshape; the gradient is reshaped back."""
        return Variable(self.data.reshape(*shape), [(self, lambda g: g.reshape(self.shape))])

    def permute(self, *dims: int) -> "Variable":
        """Reorder the axes: axis i of the result is axis `dims[i]`; the gradient is reordered back."""
        back = torch.tensor([dim % self.data.ndim for dim in dims]).argsort().tolist()
        return Variable(self.data.permute(dims), [(self, lambda g: g.permute(back))])

    @property
    def T(self) -> "Variable":
        """The transpose of a matrix; the gradient is transposed back."""
        return Variable(self.data.T, [(self, lambda g: g.T)])

    def __repr__(self) -> str:
        return f"Variable({self.data})"


def _binary(x: Variable, other: "Variable | Tensor | float", forward: Callable, *rules: Callable) -> Variable:
    """Apply an operation with two operands; rules: the gradients with respect to x and to other, if a Variable."""
    to_x, to_y = rules
    y = other.data if isinstance(other, Variable) else _constant(other, x.data.dtype)
    sources = [(x, lambda g: to_x(g, x.data, y))]
    if isinstance(other, Variable):
        sources.append((other, lambda g: to_y(g, x.data, y)))
    return Variable(forward(x.data, y), sources)


def _constant(value: Tensor | float, dtype: torch.dtype) -> Tensor:
    """A tensor keeps its dtype, and the result has the larger one, as in PyTorch; a number gets `dtype`."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=dtype)


def unbroadcast(grad: Tensor, shape: torch.Size) -> Tensor:
    """Sum `grad` over the axes that broadcasting expanded, so that it has the shape `shape` of the operand."""
    extra = grad.ndim - len(shape)
    expanded = [extra + axis for axis, size in enumerate(shape) if size == 1 and grad.shape[extra + axis] != 1]
    dims = [*range(extra), *expanded]
    return grad.sum(dims).reshape(shape) if dims else grad


def accumulate_grad(parameter: Tensor, grad: Tensor) -> None:
    """Add `grad` to `parameter.grad`, as PyTorch does: gradients add up until they are set to zero."""
    parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad


def as_leaf(parameter: Tensor, x: "Variable | Tensor") -> "Variable | Tensor":
    """Return `parameter` as a leaf `Variable` if the input `x` is a `Variable`, else unchanged."""
    return Variable(parameter) if isinstance(x, Variable) else parameter


def cat(parts: Sequence["Variable | Tensor"], dim: int = 0) -> "Variable | Tensor":
    """Concatenate along `dim`; the gradient is split into the parts."""
    if not isinstance(parts[0], Variable):
        return torch.cat(list(parts), dim)
    ends = torch.tensor([part.shape[dim] for part in parts]).cumsum(0).tolist()
    sources = [
        (part, lambda g, end=end, size=part.shape[dim]: g.narrow(dim, end - size, size))
        for part, end in zip(parts, ends, strict=True)
    ]
    return Variable(torch.cat([part.data for part in parts], dim), sources)


def main() -> None:
    """Print the derivatives of a price, 2 apples at 100 each with 10 % tax, with respect to all three numbers."""
    apple, number, tax = (Variable(torch.tensor(value)) for value in (100.0, 2.0, 1.1))
    price = apple * number * tax
    price.backward()
    print(f"price {price.data.item():.0f}")
    for name, variable in (("apple", apple), ("number", number), ("tax", tax)):
        print(f"d price / d {name:<6} = {variable.grad.item():.1f}")


if __name__ == "__main__":
    main()
