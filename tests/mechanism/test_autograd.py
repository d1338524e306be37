"""Autograd: every operation compared with PyTorch's."""

import pytest
import torch
from torch import Tensor

from kit.mechanism.autograd import Variable, accumulate_grad, as_leaf, cat, unbroadcast
from kit.mechanism.layers import MeanSquaredError, SoftmaxCrossEntropy
from kit.mechanism.losses import cross_entropy, mean_squared_error
from kit.mechanism.networks import mlp


def rand(*shape: int, seed: int = 0) -> Tensor:
    """Between 0.5 and 1.5, so that logarithms and roots exist."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


ONE = {
    "-x": lambda x: -x,
    "x + 3": lambda x: x + 3,
    "3 - x": lambda x: 3 - x,
    "3 * x": lambda x: 3 * x,
    "x / 3": lambda x: x / 3,
    "3 / x": lambda x: 3 / x,
    "x ** 3": lambda x: x**3,
    "x ** 0": lambda x: x**0 + x,
    "x * x": lambda x: x * x,
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "sqrt": lambda x: x.sqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: (x - 1).relu(),
    "sum": lambda x: x.sum() * x,
    "sum over rows": lambda x: x.sum(0) / x,
    "sum over two axes": lambda x: x.sum((0, 1), keepdim=True) * x,
    "mean": lambda x: x.mean() * x,
    "mean, axis kept": lambda x: x.mean(1, keepdim=True) - x * x,
    "amax": lambda x: x.amax(1) * 2,
    "amax, axis kept": lambda x: x / x.amax(0, keepdim=True),
    "reshape": lambda x: x.reshape(2, -1) * x.reshape(2, 6),
    "permute": lambda x: x.reshape(3, 2, 2).permute(2, 0, 1) * x.reshape(2, 3, 2),
    "permute with negative axes": lambda x: x.reshape(3, 2, 2).permute(-1, 0, -2).reshape(4, 3) @ x,
    "T": lambda x: x.T @ x,
    "a constant on the left of @": lambda x: torch.ones(2, 3, dtype=torch.float64) @ (x * x),
    "a constant tensor over x": lambda x: torch.full((4,), 2.0, dtype=torch.float64) / x,
    "a constant vector on the right of @": lambda x: x @ torch.arange(4.0, dtype=torch.float64),
    "a constant vector on the left of @": lambda x: torch.arange(3.0, dtype=torch.float64) @ x,
    "cat": lambda x: (cat if isinstance(x, Variable) else torch.cat)([x, x * 2, x.sum(1, keepdim=True)], 1).exp(),
}

TWO = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: x / y,
    "used three times": lambda x, y: x * y + x / y - y,
}

SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (1, 4)), ((3, 4), ()), ((2, 1, 4), (3, 1))]

FACTORS = [((3, 4), (4, 2)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 3, 4), (2, 4, 5))]
FACTORS += [((3, 4), (4,)), ((4,), (4, 2)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5))]


def assert_same_gradients(formula, *tensors: Tensor) -> None:
    """Ours and PyTorch's values and gradients of the sum of squares of `formula`."""
    ours = [Variable(tensor.clone()) for tensor in tensors]
    theirs = [tensor.clone().requires_grad_(True) for tensor in tensors]
    (mine, other) = formula(*ours), formula(*theirs)
    torch.testing.assert_close(mine.data, other.detach(), rtol=1e-12, atol=0)
    (mine * mine).sum().backward()
    (other * other).sum().backward()
    for variable, tensor in zip(ours, theirs, strict=True):
        torch.testing.assert_close(variable.grad, tensor.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ONE)
def test_an_operation_has_the_gradient_that_pytorch_gives_it(name):
    assert_same_gradients(ONE[name], rand(3, 4))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", TWO)
def test_gradients_are_summed_over_broadcast_axes(name, shapes):
    assert_same_gradients(TWO[name], rand(*shapes[0]), rand(*shapes[1], seed=1))


@pytest.mark.parametrize("shapes", FACTORS, ids=str)
def test_the_gradients_of_a_matrix_product_are_pytorchs(shapes):
    assert_same_gradients(lambda x, y: x @ y, rand(*shapes[0]), rand(*shapes[1], seed=1))


@pytest.mark.parametrize("name", TWO)
def test_float32_and_float64_give_float64_and_each_gets_a_gradient_of_its_own_dtype(name):
    x, y = rand(3, 4).float(), rand(4, seed=1)
    ours = [Variable(x.clone()), Variable(y.clone())]
    theirs = [x.clone().requires_grad_(True), y.clone().requires_grad_(True)]
    mine, other = TWO[name](*ours), TWO[name](*theirs)
    assert mine.data.dtype == other.dtype == torch.float64
    mine.sum().backward()
    other.sum().backward()
    assert [v.grad.dtype for v in ours] == [torch.float32, torch.float64]
    for variable, tensor in zip(ours, theirs, strict=True):
        torch.testing.assert_close(variable.grad, tensor.grad)


def test_a_constant_tensor_keeps_its_precision():
    third = torch.full((1,), 1 / 3, dtype=torch.float64)
    for formula in (lambda x: x * third, lambda x: third / x):
        assert formula(Variable(torch.ones(1))).data.item() == 1 / 3


def test_the_gradient_of_x_to_the_0_is_0_at_0_too():
    x = Variable(torch.tensor([0.0, 2.0]))
    (x**0).sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_a_power_that_is_no_number_is_refused_with_the_formula_to_use():
    x = Variable(torch.ones(2))
    with pytest.raises(ValueError, match=r"x \*\* Variable: the power is a number; for x > 0 use \(y \* x.log"):
        x**x


def test_two_apples_at_100_with_a_tenth_of_tax():
    apple, number, tax = (Variable(torch.tensor(value)) for value in (100.0, 2.0, 1.1))
    price = apple * number * tax
    price.backward()
    assert price.data.item() == pytest.approx(220)
    assert [v.grad.item() for v in (apple, number, tax)] == pytest.approx([2.2, 110, 200])


def test_a_variable_used_twice_gets_both_gradients():
    x = Variable(torch.tensor(3.0))
    (x * x + x).backward()
    assert x.grad.item() == 7


def test_a_long_chain_of_shared_variables_costs_one_visit_each():
    x = y = Variable(torch.tensor(1.0, dtype=torch.float64))
    for _ in range(60):  # as a tree this would be 2 to the 60 visits
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


def test_a_graph_may_be_deeper_than_python_s_recursion():
    x = y = Variable(torch.tensor(1.0, dtype=torch.float64))
    for _ in range(5000):
        y = y * 1.0
    y.backward()
    assert x.grad.item() == 1


def test_gradients_add_up_until_they_are_set_to_zero():
    x = Variable(torch.tensor(2.0))
    for _ in range(3):
        (x * 5).backward()
    assert x.grad.item() == 15


def test_equal_largest_values_share_the_gradient():
    x = Variable(torch.tensor([1.0, 3.0, 3.0]))
    x.amax(0).backward()
    assert x.grad.tolist() == [0, 0.5, 0.5]


def test_constants_get_no_gradient_and_none_is_computed_for_them():
    images, plain = Variable(torch.ones(2, 3), requires_grad=False), torch.full((3,), 2.0)
    weight = Variable(torch.ones(3, 1))
    halved = images * 0.5
    assert halved.sources == () and not halved.requires_grad
    ((halved @ weight).sum() + (plain / weight.T).sum()).backward()
    assert images.grad is None and plain.grad is None
    assert weight.grad.tolist() == [[-1.0]] * 3  # 1 from the two halves, less the 2 of 2 / w


def test_the_sigmoid_of_a_very_small_number_has_the_gradient_zero_and_not_nan():
    x = Variable(torch.tensor([-200.0, 0.0, 200.0]))
    x.sigmoid().sum().backward()
    assert x.grad.tolist() == [0, 0.25, 0]


def test_the_gradient_of_relu_is_0_at_0():
    x = Variable(torch.tensor([-1.0, 0.0, 2.0]))
    x.relu().sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_the_gradient_of_a_network_reaches_every_weight_where_pytorch_keeps_it():
    network, x, y = mlp(4, 5, 3), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    SoftmaxCrossEntropy()(network(Variable(x)), y).backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in network.parameters())


def test_the_losses_also_take_variables():
    logits, labels, target = rand(3, 4), torch.tensor([0, 3, 1]), rand(3, 4, seed=1)
    assert_same_gradients(lambda x: cross_entropy(x, labels), logits)
    assert_same_gradients(lambda x: mean_squared_error(x, target), logits)
    assert_same_gradients(lambda x: MeanSquaredError()(x, target), logits)


def test_unbroadcast_sums_over_expanded_axes():
    assert unbroadcast(torch.ones(2, 3, 4), torch.Size([3, 1])).tolist() == [[8.0]] * 3
    assert unbroadcast(torch.ones(2, 3), torch.Size([])).item() == 6


def test_as_leaf_makes_a_variable_only_for_an_input_variable():
    weight = torch.ones(2)
    assert as_leaf(weight, torch.ones(2)) is weight
    assert as_leaf(weight, Variable(torch.ones(2))).data is weight


def test_accumulate_grad_stores_a_copy():
    parameter, grad = torch.zeros(2), torch.ones(2)
    accumulate_grad(parameter, grad)
    grad += 1
    assert parameter.grad.tolist() == [1, 1]


def test_a_variable_holds_floating_point_numbers_only():
    with pytest.raises(ValueError, match="floating point tensor, not torch.int64; use .float()"):
        Variable(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="not list"):
        Variable([1.0])


def test_backward_begins_at_a_scalar():
    with pytest.raises(ValueError, match=r"backward\(\) of a variable of shape \(2, 3\): sum it first"):
        Variable(torch.ones(2, 3)).backward()


def test_backward_may_begin_anywhere_with_a_given_gradient():
    x = Variable(torch.ones(2))
    (x * 3).backward(torch.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [3, 30]
