"""The Optuna study of `kit tune`: opened or joined in a database, for one table of images, by any number of processes.

study = open_study("sqlite:////data/study.db", "tune-photos", facts, maximise=False, seed=42, first=[{"size": 224}])
"""

import os
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import optuna
import psutil
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kit.errors import DataError, OutputError, RecipeError, Terminated, WeightsError, first_line
from kit.recipe import Recipe
from kit.scale.space import NETWORK

DRIVERS = {"sqlite": None, "postgresql": ("psycopg", "psycopg[binary]"), "mysql": ("pymysql", "pymysql")}
FACTS, PROCESS, SAME_AS = "kit", "process", "same_as"  # user attributes of studies and trials
HEARTBEAT, GRACE = 30, 120  # seconds: a trial without a heartbeat for so long is given up
LOCK_SECONDS = 60  # SQLite: how long to wait for another process that is writing
SECONDS_TO_CREATE = 10
OF_THE_MACHINE = (
    "device",
    "workers",
    "cache",
    "log",
    "checkpoint_every",
    "label",
    "labels",
    "follow_links",
    "unlabelled",
)
OTHER = "choose another --out, whose name is the study's"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without Optuna's own log of each trial, and without its warnings about experimental arguments."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def database_url(text: str) -> str:
    """The URL of a study for Optuna, with its driver. Raises `RecipeError` for one that kit does not know."""
    expected = (
        "sqlite:////FOLDER/study.db, postgresql://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE"
    )
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise RecipeError(f"--study {text!r} is not the URL of a database", fix=f"give {expected}") from error
    kind, _, driver = url.drivername.partition("+")
    kind = "postgresql" if kind == "postgres" else kind
    if kind not in DRIVERS:
        raise RecipeError(f"--study: a database {kind!r} is not known", fix=f"give {expected}")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        problem = f"--study {text!r} names no file, and what is in memory is lost when the search stops"
        raise RecipeError(problem, fix="sqlite:////FOLDER/study.db, or leave --study out")
    named = kind if kind == "sqlite" else f"{kind}+{driver or DRIVERS[kind][0]}"
    return url.set(drivername=named).render_as_string(hide_password=False)


def shown(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


@contextmanager
def database(url: str) -> Iterator[None]:
    """Raise `OutputError` where the database cannot be used in the block."""
    try:
        yield
    except ImportError as error:
        driver = DRIVERS[make_url(url).get_backend_name()]
        if driver is None or driver[0] not in str(error.__cause__ or error):
            raise
        problem = f"{shown(url)} needs a driver that is not installed ({error.__cause__ or error})"
        raise OutputError(problem, fix=f"pip install '{driver[1]}'") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
        problem = f"the database {shown(url)} cannot be used: {first_line(cause)}"
        raise OutputError(problem, fix="make it reachable and writable; the same command then goes on") from error


def open_study(
    url: str, name: str, facts: dict[str, Any], *, maximise: bool, seed: int, first: Sequence[dict[str, Any]]
) -> tuple[optuna.Study, optuna.Study]:
    """The study of that name: a new one, which starts with the trials `first`, or the one that others have started; and
    the study of its winner, in which each trial is an attempt to train it.

    facts: the SHA-256 "table" of the table of images, the "recipe" of all trials, the "space", and the networks that
    are "here". Raises `DataError` for a study of other images, `RecipeError` for one of other settings, `WeightsError`
    where its networks are not here.
    """
    engine = {"connect_args": {"timeout": LOCK_SECONDS}} if make_url(url).get_backend_name() == "sqlite" else {}
    storage = optuna.storages.RDBStorage(url, engine, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if maximise else "minimize",
            sampler=sampler(seed),
            pruner=pruner,
        )
    except DuplicatedStudyError:
        # With the seed of the first process, this one would try the same values.
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler(None), pruner=pruner)
        _check_same(study, facts, url)
    else:
        for values in first:
            study.enqueue_trial(values)
        study.set_user_attr(FACTS, facts)
    winner = optuna.create_study(storage=storage, study_name=f"{name}: winner", load_if_exists=True)
    if winner.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        problem = f"the study {name} in {shown(url)} is finished: its winner was measured on the held-out images"
        raise OutputError(problem, fix=f"a further search would choose by them; for a new one, {OTHER}")
    return study, winner


def sampler(seed: int | None) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra et al., 2011) over all settings together; those that other processes try count as bad."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _check_same(study: optuna.Study, facts: dict[str, Any], url: str) -> None:
    """Raise where a study was started with other images, settings or values than these."""
    where = f"the study {study.study_name} in {shown(url)}"
    until = time.monotonic() + SECONDS_TO_CREATE
    while (theirs := study.user_attrs.get(FACTS)) is None and time.monotonic() < until:
        time.sleep(0.1)  # its process has created it a moment ago
    if theirs is None:
        raise OutputError(f"{where} was not started by kit tune", fix=OTHER)
    if theirs["table"] != facts["table"]:
        problem = f"{where} was started with other images, labels or another split than these"
        raise DataError(problem, fix=f"restore them, or {OTHER}")
    names = [name for name in facts["recipe"] if name not in OF_THE_MACHINE]
    missing = [network for network in theirs["space"].get(NETWORK, ()) if network not in facts["here"]]
    if missing:
        problem = f"{where} tries networks whose weights are not on this machine: {', '.join(missing)}"
        raise WeightsError(problem, fix="copy them from the other machine: kit weights there says where they are")
    made = Recipe.from_json(
        theirs["recipe"]
    ).to_json()  # fields that another version did not have are at their defaults
    differ = [name for name in names if made[name] != facts["recipe"][name]]
    ours, others = facts["space"] | {NETWORK: None}, theirs["space"] | {NETWORK: None}
    differ += [name for name in ours | others if ours.get(name) != others.get(name)]
    if differ:
        problem = f"{where} was started with other settings: {', '.join(dict.fromkeys(differ))}"
        raise RecipeError(problem, fix=f"give those it was started with, or {OTHER}")


def this_process() -> list[Any]:
    """What tells this process from all others: host, number and start."""
    return [socket.gethostname(), os.getpid(), psutil.Process().create_time()]


def fail_dead_trials(study: optuna.Study) -> None:
    """Give up trials whose process was killed: at once on this host, elsewhere when their heartbeat is missing."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _alive(trial: FrozenTrial) -> bool:
    """Whether the process of a trial may still be running."""
    if PROCESS not in trial.user_attrs:  # asked for, but not begun
        return datetime.now() - trial.datetime_start < timedelta(seconds=GRACE)
    host, number, started = trial.user_attrs[PROCESS]
    if host != socket.gethostname():
        return True
    try:
        return psutil.Process(number).create_time() == started
    except psutil.Error:
        return False


def running_elsewhere(study: optuna.Study, before: int | None = None) -> str | None:
    """Which trials other processes are running, and on which hosts; None where there are none.

    before: look only at trials with a lower number.
    """
    fail_dead_trials(study)
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    trials = [trial for trial in trials if before is None or trial.number < before]
    hosts = ", ".join(sorted({str(trial.user_attrs.get(PROCESS, ["?"])[0]) for trial in trials}))
    return f"trial {', '.join(str(trial.number) for trial in trials)} on {hosts}" if trials else None


@contextmanager
def as_failure(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Record a trial that SIGTERM ends as failed, as Optuna does for Ctrl-C."""
    trial.set_user_attr(PROCESS, this_process())
    try:
        yield
    except Terminated:
        study.tell(trial, state=TrialState.FAIL)
        raise


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those that ended, also by pruning, and were not the same as another."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in trials if SAME_AS not in trial.user_attrs]
