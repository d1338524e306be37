"""Which packages are installed, read from their metadata: nothing is imported that may be broken.

[package.name for package in installed() if package.ours]
"""

import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kit.doctor.facts import Package

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
ROOTS = ("kit", "torch", "torchvision", "timm", "fastai", "gradio")


def installed(path: list[str] | None = None, project: Path | None = PROJECT) -> tuple[Package, ...]:
    """Every installed package, in the order of the path (or of `path`), each place and version of it once.

    What a package wants under an extra counts where another package that kit needs asks for that extra. Where kit runs
    from its repository, `project` says what it wants: what was written down when it was installed may be older.
    """
    own = _dependencies(project)
    found = [
        (name, distribution, own if own and name == "kit" else [*_requirements(distribution.requires or [])])
        for name, distribution in _named(distributions() if path is None else distributions(path=path))
    ]
    extras = _needed({name: wishes for name, _, wishes in reversed(found)})
    return tuple(dict.fromkeys(_package(*one, extras.get(one[0])) for one in found))


def _dependencies(project: Path | None) -> list[Requirement]:
    """What kit's own pyproject.toml asks for; [] where kit was installed without it."""
    if project is None or not project.is_file():
        return []
    return [*_requirements(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])]


def _named(every: Iterable[Distribution]) -> Iterator[tuple[str, Distribution]]:
    """The distributions with their names; leftovers of a broken uninstall have none."""
    for distribution in every:
        name = (distribution.metadata or {}).get("Name")
        if name and distribution.version:
            yield canonicalize_name(name), distribution


def _requirements(texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue


def _holds(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement holds on this machine, for any of the extras."""
    try:
        return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
    except UndefinedEnvironmentName:
        return False


def _needed(requirements: dict[str, list[Requirement]]) -> dict[str, set[str]]:
    """The packages that kit needs, directly or not, each with the extras that are asked of it ("" for none)."""
    needed: dict[str, set[str]] = {}
    waiting = [(name, "") for name in ROOTS]
    while waiting:
        name, extra = waiting.pop()
        if name not in requirements or extra in needed.get(name, ()):
            continue
        needed.setdefault(name, set()).add(extra)
        for requirement in requirements[name]:
            if _holds(requirement, [extra]):
                target = canonicalize_name(requirement.name)
                waiting += [(target, asked) for asked in ("", *sorted(requirement.extras))]
    return needed


def _package(name: str, distribution: Distribution, wishes: list[Requirement], extras: set[str] | None) -> Package:
    wanted = [
        f"{canonicalize_name(requirement.name)}{requirement.specifier}"
        for requirement in wishes
        if _holds(requirement, extras or [""])
    ]
    folder = Path(distribution.locate_file("")).resolve()
    python = distribution.metadata.get("Requires-Python") or ""
    return Package(name, distribution.version, str(folder), tuple(dict.fromkeys(wanted)), python, extras is not None)
