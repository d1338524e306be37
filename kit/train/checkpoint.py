"""Checkpoints: all state of a training, written at the end of each epoch and every few minutes.

kit fine-tune photos --checkpoint-every 2      # writes runs/NAME/checkpoint/; kit fine-tune --resume runs/NAME goes on

A checkpoint is one safetensors file, whose metadata hold the state that is not a tensor as JSON. On a CPU, a training
that goes on from one equals in every bit the training that was never stopped.
"""

import json
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.vision.all import Callback, CancelEpochException, L, Learner
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kit import processes
from kit.console import say
from kit.errors import OutputError, Terminated, first_line
from kit.files import CHECKPOINT, atomic_path
from kit.signals import Signals
from kit.train.history import History
from kit.train.state import random_state, set_random_state

KEPT = 2
SUFFIX = ".safetensors"


class Checkpoint(Callback):
    """Writes checkpoints to `folder`/checkpoint, and goes on from the last one after `load`.

    minutes: between checkpoints inside an epoch. Of other callbacks the attributes that their class names in
    `checkpointed` are saved. signals: inside an epoch they end training after the current batch, with a checkpoint.
    """

    order = 1000  # after everything that changes what is saved

    def __init__(self, folder: Path, minutes: float, signals: Signals):
        super().__init__()
        self.signals = signals
        self.folder, self.minutes, self.started = folder / CHECKPOINT, minutes, time.monotonic()
        self.saved, self.seconds, self.written = self.started, 0.0, False
        self.loaded: dict[str, Any] | None = None
        self.state: dict[str, Any] | None = None

    # read

    def load(self, same_data: bool = True) -> None:
        """Read the last checkpoint, or where it is damaged the one before; without any, training starts over.

        With other images than before (`same_data` false) the epoch begins again. Of several processes the first reads.
        """
        self.loaded = processes.first(self._read, same_data)
        if self.loaded:
            self.seconds = self.loaded["seconds"]

    def _read(self, same_data: bool) -> dict[str, Any] | None:
        for unfinished in self.folder.glob(".*"):  # ours and those of safetensors, left by a process that was killed
            unfinished.unlink()
        for path in reversed(checkpoints(self.folder)):
            try:
                loaded = read_checkpoint(path)
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                say(f"note: {path} is damaged ({first_line(error)}); an earlier one is used, or training starts over")
                continue
            if not same_data:
                loaded["batch"] = 0
                for random in (loaded["random"], *loaded["other_random"]):
                    random["batch"] = random["epoch"]
            return loaded
        return None

    @property
    def halvings(self) -> int:
        """How many times the batch was halved (out of memory) before the loaded checkpoint was written."""
        return self.loaded["halvings"] if self.loaded else 0

    @property
    def log_run(self) -> str | None:
        """The MLflow run that the training of the loaded checkpoint is logged to."""
        return self.loaded["callbacks"]["history"].get("log_run") if self.loaded else None

    def begin(self, learn: Learner, history: History) -> None:
        """Prepare an attempt to train; the first one goes on from the loaded checkpoint."""
        self.state, self.loaded = self.loaded, None
        for changed in ("_do_fit", "all_batches"):  # by an attempt that failed
            vars(learn).pop(changed, None)
        if self.state is not None:
            _set(history, self.state["callbacks"]["history"])
            history.say_all()
            learn._do_fit = partial(self._do_fit, learn)

    def _do_fit(self, learn: Learner) -> None:
        """fastai's loop over epochs, but in the phase of the checkpoint without the epochs before it."""
        first = 0
        if self.state and self.state["phase"] == self.history.phase:
            del learn._do_fit
            first = self._restore(learn, self.state)
        for epoch in range(first, learn.n_epoch):
            learn.epoch = epoch
            learn._with_events(learn._do_epoch, "epoch", CancelEpochException)

    def _restore(self, learn: Learner, state: dict[str, Any]) -> int:
        """Restore all state but the position inside the epoch; returns the epoch."""
        learn.model.load_state_dict(state["weights"])
        for parameter, gradient in zip(learn.model.parameters(), state["gradients"], strict=True):
            if gradient is not None:
                zeros = torch.zeros_like(parameter)
                parameter.grad = zeros if gradient is True else zeros.copy_(gradient)
        learn.opt.load_state_dict(_for_optimizer(learn.opt, state["optimizer"]))
        for callback in learn.cbs:
            _set(callback, state["callbacks"].get(callback.name, {}))
        vars(learn.recorder.smooth_loss).update(state["smooth_loss"])
        learn.train_iter = state["train_iter"]
        _restore_random(learn, state, "epoch")
        learn.all_batches = partial(self._all_batches, learn, state)
        self.state = None
        return state["epoch"]

    def _all_batches(self, learn: Learner, state: dict[str, Any]) -> None:
        """fastai's loop over batches without those already trained: they are loaded again, so that the loader and its
        worker processes draw the same random numbers."""
        del learn.all_batches
        learn.n_iter = len(learn.dl)
        batches = enumerate(learn.dl)
        for _ in islice(batches, state["batch"]):
            pass
        learn.iter = state["batch"] - 1
        _restore_random(learn, state, "batch")
        if state["batch"]:
            learn.pct_train = state["pct_train"]
        for batch in batches:
            learn.one_batch(*batch)

    # write

    def before_fit(self) -> None:
        """After a long time without batches, as for features, a checkpoint before the first epoch."""
        if self.n_epoch and self._agree() and self.state is None:
            self.epoch_random = random_state(self.dls)
            self.save(0, 0, self.epoch_random)

    def before_train(self) -> None:
        """Keep the random states from which the order of the epoch is drawn."""
        self.epoch_random, self.signals.deferred = random_state(self.dls), True

    def after_batch(self) -> None:
        """A checkpoint where the time has come; on Ctrl-C and SIGTERM one before training ends."""
        due = self._agree()
        if self.training and (self.signals.stop or due):
            self.save(self.epoch, self.iter + 1, random_state(self.dls))
        elif self.signals.stop:
            self.save(self.epoch, self.trained_batches, self.train_random)
        if self.signals.stop:
            self.signals.release()

    def after_train(self) -> None:
        """Keep the random states for a checkpoint while validation goes on."""
        self.trained_batches, self.train_random = self.n_iter, random_state(self.dls)

    def after_epoch(self) -> None:
        self.epoch_random = random_state(self.dls)
        self.save(self.epoch + 1, 0, self.epoch_random)
        self.release()

    def release(self) -> None:
        """Raise what a signal to one of the processes asked for; from now on signals are raised at once."""
        self._agree()
        self.signals.release()

    def _agree(self) -> bool:
        """Whether a checkpoint is due by the clock of the first process; a signal to one process is one to all."""
        due = time.monotonic() - self.saved >= 60 * self.minutes and processes.rank() == 0
        kinds = [isinstance(self.signals.stop, kind) for kind in (KeyboardInterrupt, Terminated)]
        due, interrupted, terminated = processes.total(due, *kinds)
        if (interrupted or terminated) and not self.signals.stop:
            self.signals.stop = KeyboardInterrupt() if interrupted else Terminated()
        return bool(due)

    def save(self, epoch: int, batch: int, batch_random: dict[str, Any]) -> None:
        """Write the state; an error costs this checkpoint only, and training goes on."""
        others = processes.gathered({"epoch": self.epoch_random, "batch": batch_random})[1:]
        if processes.rank():
            return
        tensors: dict[str, Tensor] = {}
        numbers = [int(path.stem) for path in checkpoints(self.folder)]
        path = self.folder / f"{max(numbers, default=0) + 1:06}{SUFFIX}"
        try:
            state = json.dumps(pack(self._state(epoch, batch, batch_random, others), tensors))
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial_path:
                metadata = {"state": state, "progress": json.dumps(self._progress(epoch, batch))}
                save_file(tensors, partial_path, metadata=metadata | {"crc32": str(checksum(state, tensors))})
            self.written = True
            for old in checkpoints(self.folder)[:-KEPT]:
                old.unlink()
        except (OutputError, SafetensorError, OSError, TypeError) as error:
            problem = error.problem if isinstance(error, OutputError) else first_line(error)
            say(f"note: no checkpoint was written, and training goes on: {problem}")
        self.saved = time.monotonic()

    def _progress(self, epoch: int, batch: int) -> dict[str, Any]:
        """Where training is, for `kit runs`."""
        row = self.history.rows[-1] if self.history.rows else {}
        where = {"phase": self.history.phase, "epoch": epoch, "epochs": self.n_epoch, "batch": batch}
        return where | {"steps": len(self.history.steps), "valid_loss": row.get("valid_loss")}

    def _state(self, epoch: int, batch: int, batch_random: dict[str, Any], others: list) -> dict[str, Any]:
        gradients = [parameter.grad for parameter in self.model.parameters()]
        return {
            "phase": self.history.phase,
            "epoch": epoch,
            "batch": batch,
            "pct_train": self.learn.pct_train,
            "train_iter": self.learn.train_iter,
            "halvings": self.history.chosen["halvings"],
            "seconds": self.elapsed,
            "random": {"epoch": self.epoch_random, "batch": batch_random},
            "other_random": others,
            "weights": self.model.state_dict(),
            # Gradients that are not None but zero, as after a step, need no room.
            "gradients": [bool((one == 0).all()) or one if one is not None else None for one in gradients],
            "optimizer": self.opt.state_dict(),
            "smooth_loss": vars(self.recorder.smooth_loss),
            "callbacks": {callback.name: _get(callback) for callback in self.learn.cbs},
        }

    @property
    def elapsed(self) -> float:
        """Seconds of training until now, over all processes."""
        return self.seconds + time.monotonic() - self.started

    @property
    def any(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(checkpoints(self.folder))

    @contextmanager
    def tidied(self, resumed: bool) -> Iterator[None]:
        """After an error: removes the folder of a new run that has no checkpoint yet, else says how to go on."""
        try:
            yield
        except BaseException as error:
            if processes.rank():
                raise
            if not self.any and not resumed:
                self.remove()
            elif self.written and isinstance(error, Exception) and not processes.lost(error):
                say(f"to go on from the last checkpoint: kit fine-tune --resume {self.folder.parent}")
            raise

    def remove(self) -> None:
        """Delete the folder, because it is not needed any more; its job last, so that after a kill the run goes on."""
        for path in sorted(self.folder.glob("*"), key=lambda path: (path.suffix == ".json", path.name)):
            path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the last one last."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _get(callback: Callback) -> dict[str, Any]:
    """The state of a callback; that of a history has an array instead of its many steps."""
    state = {name: getattr(callback, name) for name in getattr(type(callback), "checkpointed", ())}
    if "steps" in state:
        state["steps"] = torch.tensor([[one["loss"], one["rate"]] for one in state["steps"]], dtype=torch.float64)
    return {name: one.state_dict() if hasattr(one, "state_dict") else one for name, one in state.items()}


def _set(callback: Callback, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if hasattr(one := getattr(callback, name), "load_state_dict"):
            one.load_state_dict(value)
        elif name == "steps":
            rows = enumerate(value.reshape(-1, 2).tolist(), 1)
            callback.steps = [{"step": number, "loss": loss, "rate": rate} for number, (loss, rate) in rows]
        else:
            setattr(callback, name, value)


def _restore_random(learn: Learner, state: dict[str, Any], when: str) -> None:
    """Restore this process's random states of "epoch" or "batch"; a process that there was not before draws others."""
    kept, rank = [state["random"], *state["other_random"]], processes.rank()
    set_random_state(learn.dls, kept[min(rank, len(kept) - 1)][when])
    if rank >= len(kept):
        torch.manual_seed(torch.initial_seed() + rank)


def _for_optimizer(opt: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state of fastai's optimiser on the device of its parameters. torch's own move it themselves."""
    if "hypers" not in state:
        return state
    parameters = [parameter for parameter, *_ in opt.all_params()]
    moved = [
        {name: one.to(parameter.device) if isinstance(one, Tensor) else one for name, one in each.items()}
        for parameter, each in zip(parameters, state["state"], strict=True)
    ]
    return {"state": moved, "hypers": L(state["hypers"])}


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON; its tensors and arrays are copied to `tensors`, and named by their number there."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().as_subclass(Tensor).to("cpu", copy=True).contiguous()
        # Copies keep the order of elements in memory: some sums depend on it.
        return {"tensor": name} | ({} if value.is_contiguous() else {"strides": value.stride()})
    if isinstance(value, Mapping):
        return {"items": [[pack(key, tensors), pack(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple | L):
        return [pack(one, tensors) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {value!r}")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `pack` was given; tuples have become lists."""
    if isinstance(value, list):
        return [unpack(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    if "items" in value:
        return {unpack(key, tensors): unpack(one, tensors) for key, one in value["items"]}
    tensor = tensors[value["tensor"]]
    if "strides" not in value:
        return tensor
    return torch.empty_strided(tensor.shape, value["strides"], dtype=tensor.dtype).copy_(tensor)


def checksum(state: str, tensors: Mapping[str, Tensor]) -> int:
    """The CRC-32 of the state and of the bytes of all tensors."""
    found = zlib.crc32(state.encode())
    for tensor in tensors.values():
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), found)
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint; `ValueError` where a bit of it is not what was written."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys(), key=int)}
    if checksum(metadata["state"], tensors) != int(metadata["crc32"]):
        raise ValueError("its checksum is wrong")
    return unpack(json.loads(metadata["state"]), tensors)
