"""The computational graph: every operation remembers how to send a gradient back to what it was made from.

A `Variable` holds a tensor and, for each variable it was made from, the one local rule that matters here: given the
gradient with respect to the result, what is the gradient with respect to the source? `backward` walks the graph from
the loss to the leaves and multiplies the local rules together. That is the chain rule, and all of back-propagation
(Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986).

    python -m kit.mechanism.autograd
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rule = Callable[[Tensor], Tensor]


class Variable:
    """A tensor in a graph. `data`: its values; `grad`: of the same shape, after `backward`.

    Methods carry PyTorch's names, so that a formula written for tensors runs on variables. A plain tensor or number
    in a formula is a constant. The gradient of a leaf is kept where PyTorch keeps it: in `data.grad`. A leaf with
    `requires_grad=False`, such as a batch of images, is a constant too: no gradient is worked out towards it.
    """

    def __init__(self, data: Tensor, sources: Sequence[tuple["Variable", Rule]] = (), requires_grad: bool = True):
        if not isinstance(data, Tensor) or not data.is_floating_point():
            kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
            raise ValueError(f"a Variable holds a tensor of floating point numbers, not {kind}; use .float()")
        self.data = data
        self.sources = tuple((source, rule) for source, rule in sources if source.requires_grad)
        self.requires_grad = bool(self.sources) if sources else requires_grad

    @property
    def shape(self) -> torch.Size:
        """The shape of the values."""
        return self.data.shape

    @property
    def grad(self) -> Tensor | None:
        """The gradient of what `backward` was called on with respect to this; None before."""
        return self.data.grad

    def backward(self, grad: Tensor | None = None) -> None:
        """Add the gradient of this variable to `grad` of every leaf it was made from.

        grad: the gradient with respect to this variable, of its shape; 1 for a scalar, where a loss begins.
        """
        if grad is None:
            if self.data.numel() != 1:
                problem = f"backward() begins at a scalar, this variable has shape {tuple(self.shape)}"
                raise ValueError(f"{problem}; sum it first, or pass the gradient with respect to it")
            grad = torch.ones_like(self.data)
        grads = {id(self): grad}
        for variable in reversed(self._in_order()):
            grad = grads.pop(id(variable))
            if not variable.sources:
                accumulate(variable.data, grad)
            for source, rule in variable.sources:
                part = unbroadcast(rule(grad), source.shape)
                grads[id(source)] = grads[id(source)] + part if id(source) in grads else part

    def _in_order(self) -> list["Variable"]:
        """Every variable below this one, sources before what is made from them (a topological order)."""
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

    # Addition passes the gradient on; multiplication exchanges the factors.

    def __add__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.add, lambda g, x, y: g, lambda g, x, y: g)

    def __mul__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.mul, lambda g, x, y: g * y, lambda g, x, y: g * x)

    def __truediv__(self, other: "Variable | Tensor | float") -> "Variable":
        return _binary(self, other, torch.true_divide, lambda g, x, y: g / y, lambda g, x, y: -g * x / (y * y))

    def __matmul__(self, other: "Variable | Tensor") -> "Variable":
        """(n, k) @ (k, m) -> (n, m): each factor's gradient is the other, transposed, on its own side."""
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
        return Variable(torch.as_tensor(other, dtype=self.data.dtype), requires_grad=False)

    __radd__, __rmul__ = __add__, __mul__

    def exp(self) -> "Variable":
        """e to the x: its own derivative."""
        y = self.data.exp()
        return Variable(y, [(self, lambda g: g * y)])

    def log(self) -> "Variable":
        """The natural logarithm: 1 / x."""
        return Variable(self.data.log(), [(self, lambda g: g / self.data)])

    def __pow__(self, power: float) -> "Variable":
        """x to a power that is a number: power * x^(power - 1)."""
        return Variable(self.data**power, [(self, lambda g: g * power * self.data ** (power - 1))])

    def sqrt(self) -> "Variable":
        """The square root: 1 / (2 sqrt(x))."""
        y = self.data.sqrt()
        return Variable(y, [(self, lambda g: g / (2 * y))])

    def sigmoid(self) -> "Variable":
        """1 / (1 + exp(-x)): y (1 - y). One rule: chained from exp and / it would be 0 * infinity at x = -100."""
        y = self.data.sigmoid()
        return Variable(y, [(self, lambda g: g * y * (1 - y))])

    def tanh(self) -> "Variable":
        """The hyperbolic tangent: 1 - y^2."""
        y = self.data.tanh()
        return Variable(y, [(self, lambda g: g * (1 - y * y))])

    def relu(self) -> "Variable":
        """max(x, 0): the gradient passes where x is above 0."""
        return Variable(self.data.clamp(min=0), [(self, lambda g: g * (self.data > 0))])

    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> "Variable":
        """Sum over `dim` (all by default): every element gets the gradient of the sum it is in."""
        dims = tuple(range(self.data.ndim)) if dim is None else dim
        kept = self.data.sum(dims, keepdim=True)
        y = kept if keepdim else kept.squeeze(dims)
        return Variable(y, [(self, lambda g: g.reshape(kept.shape).expand(self.shape))])

    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> "Variable":
        """Mean over `dim` (all by default): a sum, shared equally."""
        total = self.sum(dim, keepdim)
        return total * (total.data.numel() / self.data.numel())

    def amax(self, dim: int, keepdim: bool = False) -> "Variable":
        """The largest along `dim`: the gradient goes to it; equal ones share it."""
        top = self.data.amax(dim, keepdim=True)
        chosen = (self.data == top).to(self.data.dtype)
        share = chosen / chosen.sum(dim, keepdim=True)
        return Variable(top if keepdim else top.squeeze(dim), [(self, lambda g: g.reshape(top.shape) * share)])

    def reshape(self, *shape: int) -> "Variable":
        """The same numbers in another shape; so is the gradient."""
        return Variable(self.data.reshape(*shape), [(self, lambda g: g.reshape(self.shape))])

    def permute(self, *dims: int) -> "Variable":
        """Axes in another order; the gradient's axes go back to theirs."""
        back = [dims.index(axis) for axis in range(len(dims))]
        return Variable(self.data.permute(*dims), [(self, lambda g: g.permute(*back))])

    @property
    def T(self) -> "Variable":
        """A matrix transposed."""
        return self.permute(1, 0)

    def __getitem__(self, index: object) -> "Variable":
        """Chosen elements: the gradient goes back to where they came from, and adds up where one is chosen twice."""

        def rule(g: Tensor) -> Tensor:
            places = torch.arange(self.data.numel(), device=g.device).reshape(self.shape)[index].flatten()
            return g.new_zeros(self.data.numel()).index_add(0, places, g.flatten()).reshape(self.shape)

        return Variable(self.data[index], [(self, rule)])

    def __repr__(self) -> str:
        return f"Variable({self.data})"


def _binary(x: Variable, other: "Variable | Tensor | float", forward: Callable, *rules: Callable) -> Variable:
    """An operation on two, and a rule for each; only variables get a gradient."""
    to_x, to_y = rules
    y = other.data if isinstance(other, Variable) else torch.as_tensor(other, dtype=x.data.dtype)
    sources = [(x, lambda g: to_x(g, x.data, y))]
    if isinstance(other, Variable):
        sources.append((other, lambda g: to_y(g, x.data, y)))
    return Variable(forward(x.data, y), sources)


def unbroadcast(grad: Tensor, shape: torch.Size) -> Tensor:
    """Sum `grad` back to `shape`: what was stretched by broadcasting was used many times, and its gradients add up."""
    extra = grad.ndim - len(shape)
    stretched = [extra + axis for axis, size in enumerate(shape) if size == 1 and grad.shape[extra + axis] != 1]
    dims = [*range(extra), *stretched]
    return grad.sum(dims).reshape(shape) if dims else grad


def accumulate(parameter: Tensor, grad: Tensor) -> None:
    """Add to a parameter's gradient, as every backward does until someone sets it to zero."""
    parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad


def like(x: "Variable | Tensor", parameter: Tensor) -> "Variable | Tensor":
    """`parameter` as a leaf of x's graph where x is a `Variable`; as it is where x is a tensor."""
    return Variable(parameter) if isinstance(x, Variable) else parameter


def cat(parts: Sequence["Variable | Tensor"], dim: int = 0) -> "Variable | Tensor":
    """Join along an axis; the gradient is cut where the parts met."""
    if not isinstance(parts[0], Variable):
        return torch.cat(list(parts), dim)
    ends = torch.tensor([part.shape[dim] for part in parts]).cumsum(0).tolist()
    sources = [
        (part, lambda g, end=end, size=part.shape[dim]: g.narrow(dim, end - size, size))
        for part, end in zip(parts, ends, strict=True)
    ]
    return Variable(torch.cat([part.data for part in parts], dim), sources)


def main() -> None:
    """Two apples at 100 each and 10 % tax: how much does the price change with each of the three?"""
    apple, number, tax = (Variable(torch.tensor(value)) for value in (100.0, 2.0, 1.1))
    price = apple * number * tax
    price.backward()
    print(f"price {price.data.item():.0f}")
    for name, variable in (("apple", apple), ("number", number), ("tax", tax)):
        print(f"d price / d {name:<6} = {variable.grad.item():.1f}")


if __name__ == "__main__":
    main()
