"""Data parallel training by hand, and as PyTorch's DistributedDataParallel does it with two processes."""

import os
import sys

import pytest
import torch

from kit.mechanism.layers import BatchNorm, Linear, MeanSquaredError, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD
from kit.mechanism.parallel import (
    all_reduce_mean,
    error_against_whole_batch,
    gradients,
    ring_all_reduce,
    shards,
    step,
)

WORKERS, STEPS, RATE = 2, 5, 0.1


def batch(n=24, seed=0):
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=dice, dtype=torch.float64), torch.randint(3, (n,), generator=dice)


def network(norm=False, seed=0):
    torch.manual_seed(seed)
    first, last = Linear(6, 8), Linear(8, 3)
    return Sequential(first, *([BatchNorm(8)] if norm else []), ReLU(), last).to(torch.float64)


def parts_of(net, x, y, workers=WORKERS):
    return [gradients(net, SoftmaxCrossEntropy(), *part) for part in shards(x, y, workers)]


def relative_distance(a, b):
    """|a - b| / |b| over all elements of two lists of tensors."""
    a, b = (torch.cat([g.flatten() for g in part]) for part in (a, b))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8, 24])
def test_the_mean_of_the_workers_gradients_is_the_big_batchs_gradient(workers):
    x, y = batch()
    mean = all_reduce_mean(parts_of(network(), x, y, workers))
    assert relative_distance(mean, gradients(network(), SoftmaxCrossEntropy(), x, y)) < 1e-14


def test_with_integers_it_is_equal_bit_for_bit():
    dice = torch.Generator().manual_seed(0)
    x, weight, target = (torch.randint(-9, 10, (n, 4), generator=dice).double() for n in (32, 4, 32))
    net = Sequential(Linear(4, 4), ReLU(), Linear(4, 4)).to(torch.float64)
    net.layers[0].weight, net.layers[2].weight = weight, weight.T.clone()
    big = gradients(net, MeanSquaredError(), x, target)
    for workers in (2, 4, 8, 16):
        parts = [gradients(net, MeanSquaredError(), *part) for part in shards(x, target, workers)]
        assert all(torch.equal(mean, whole) for mean, whole in zip(all_reduce_mean(parts), big, strict=True))


def test_parts_of_different_sizes_must_be_weighted():
    x, y = batch(25)
    big, parts = gradients(network(), SoftmaxCrossEntropy(), x, y), parts_of(network(), x, y, 3)
    sizes = [len(part) for part, _ in shards(x, y, 3)]
    assert sizes == [9, 8, 8]
    assert relative_distance(all_reduce_mean(parts, sizes), big) < 1e-14
    assert relative_distance(all_reduce_mean(parts), big) > 1e-3


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_batch_norm_changes_the_gradient_in_training_mode_only(workers):
    net = network(norm=True)
    assert error_against_whole_batch(net, SoftmaxCrossEntropy(), *batch(), workers) > 0.05
    assert error_against_whole_batch(net.eval(), SoftmaxCrossEntropy(), *batch(), workers) < 1e-14


def test_workers_keep_equal_weights_bit_for_bit_and_train_like_one_worker():
    alone, together = network(), [network() for _ in range(3)]
    optimizers = [SGD(net.parameters(), lr=RATE, momentum=0.9) for net in together]
    single = SGD(alone.parameters(), lr=RATE, momentum=0.9)
    for seed in range(STEPS):
        step(together, optimizers, SoftmaxCrossEntropy(), batch(25, seed))
        for p, g in zip(alone.parameters(), gradients(alone, SoftmaxCrossEntropy(), *batch(25, seed)), strict=True):
            p.grad = g
        single.step()
    for other in together[1:]:
        assert all(torch.equal(a, b) for a, b in zip(together[0].parameters(), other.parameters(), strict=True))
    assert relative_distance(together[0].parameters(), alone.parameters()) < 1e-14


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_a_ring_gives_every_worker_the_sum_and_each_sends_twice_its_vector(workers):
    vectors = [torch.arange(30.0) * (worker + 1) for worker in range(workers)]
    sums, sent = ring_all_reduce(vectors)
    assert all(torch.equal(one, sum(vectors)) for one in sums)
    assert sent == 2 * (workers - 1) * 30
    assert torch.equal(vectors[0], torch.arange(30.0))


def test_more_workers_than_examples_are_refused():
    x, y = batch(3)
    with pytest.raises(ValueError, match="a batch of 3 for 4 workers: each needs at least one example"):
        shards(x, y, 4)


# The judge: two real processes. name: (batch norm, batch size); 25 does not divide by two.
CASES = {"equal": (False, 24), "batch norm": (True, 24), "unequal": (False, 25)}


def as_torch(net):
    """The same network of torch.nn layers, with the same weights."""
    norm = net.layers[1:-2]
    made = [torch.nn.Linear(6, 8), *(torch.nn.BatchNorm1d(8) for _ in norm), torch.nn.ReLU(), torch.nn.Linear(8, 3)]
    module = torch.nn.Sequential(*made).double()
    with torch.no_grad():
        for theirs, ours in zip(module.parameters(), net.parameters(), strict=True):
            theirs.copy_(ours)
    return module


def distributed_worker(rank, folder):
    """One of two processes: train every case on this rank's part with DistributedDataParallel; save what came out."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # both processes are here, whatever this machine calls itself
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    for name, (norm, n) in CASES.items():
        model = torch.nn.parallel.DistributedDataParallel(as_torch(network(norm)))
        optimizer, grads = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9), []
        for seed in range(STEPS):
            x, y = shards(*batch(n, seed), WORKERS)[rank]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            grads += [[p.grad.clone() for p in model.parameters()]]
            optimizer.step()
        weights = [p.detach() for p in model.parameters()]
        torch.save({"gradients": grads, "weights": weights}, f"{folder}/{name} {rank}.pt")
    torch.distributed.barrier()  # neither hangs up while the other still listens
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.spawn(distributed_worker, args=(str(folder),), nprocs=WORKERS)
    return {name: [torch.load(folder / f"{name} {rank}.pt") for rank in range(WORKERS)] for name in CASES}


def by_hand(norm, n):
    """The weights after the same training with simulated workers, without weighting the parts."""
    together = [network(norm) for _ in range(WORKERS)]
    optimizers = [SGD(net.parameters(), lr=RATE, momentum=0.9) for net in together]
    for seed in range(STEPS):
        step(together, optimizers, SoftmaxCrossEntropy(), batch(n, seed), weighted=False)
    return together[0].parameters()


@pytest.mark.slow  # two processes import torch
@pytest.mark.parametrize("name", CASES)
def test_simulated_workers_do_what_distributed_data_parallel_does_with_two_processes(distributed, name):
    norm, n = CASES[name]
    first = all_reduce_mean(parts_of(network(norm), *batch(n)))
    for process in distributed[name]:
        assert relative_distance(process["gradients"][0], first) < 1e-14
        assert relative_distance(process["weights"], by_hand(norm, n)) < 1e-13


@pytest.mark.slow
def test_distributed_data_parallel_equals_the_whole_batch_only_for_equal_parts_without_batch_norm(distributed):
    distances = {}
    for name, (norm, n) in CASES.items():
        big = gradients(network(norm), SoftmaxCrossEntropy(), *batch(n))
        distances[name] = relative_distance(distributed[name][0]["gradients"][0], big)
    assert distances["equal"] < 1e-14
    assert distances["batch norm"] > 0.05
    assert distances["unequal"] > 1e-3
