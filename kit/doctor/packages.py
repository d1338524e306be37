"""Python and the installed packages: do they fit each other, by what their own metadata require?

about_python(facts, Fixes(facts)); about_packages(facts, Fixes(facts))
"""

import os
import platform
import shutil
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import reduce
from importlib.metadata import distributions
from importlib.util import find_spec
from operator import and_
from pathlib import Path
from types import SimpleNamespace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kit.doctor.findings import Finding, fine, note, wrong
from kit.doctor.fixes import Fixes

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
KIT = "transfer-learning-kit"
MAIN = ("torch", "torchvision", "timm", "fastai", "gradio")
# Packages that install the same files.
RIVALS = (("onnxruntime", "onnxruntime-gpu"), ("onnxruntime", "onnxruntime-directml"), ("pillow", "pillow-simd"))
WHY = {"torch": "; below 2.10 its loader could be made to run code"}
MOST = 5

Need = tuple[SimpleNamespace, Requirement]  # a package, and what it requires of another


def python(prefix: Path = Path(sys.prefix), virtual: bool = sys.prefix != sys.base_prefix) -> SimpleNamespace:
    """This interpreter: the kind of its environment, what installs into it, and which other one the shell activated."""
    kind = "venv" if virtual else "system"
    if not virtual and (prefix / "conda-meta").is_dir():
        kind = "conda base" if (prefix / "condabin").is_dir() else "conda"
    shell = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX", "")
    return SimpleNamespace(
        version=platform.python_version(),
        executable=sys.executable or "python",
        kind=kind,
        prefix=str(prefix),
        pip="pip" if find_spec("pip") else "uv" if shutil.which("uv") else "",
        activated=shell if shell and Path(shell).resolve() != prefix.resolve() else "",
    )


def installed(path: list[str] | None = None, project: Path = PROJECT) -> list[SimpleNamespace]:
    """Every installed package in the order of the path, from its metadata: nothing is imported that may be broken.

    Where kit runs from its repository, `project` says what it requires: an editable installation may be older.
    """
    found = []
    for one in distributions() if path is None else distributions(path=path):
        name = canonicalize_name((one.metadata or {}).get("Name") or "")
        requires = one.requires or []
        if name == KIT and project.is_file():
            requires = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
        folder = str(Path(one.locate_file("")).resolve())
        package = SimpleNamespace(name=name, version=one.version, folder=folder, requires=requires)
        if name and package.version and package not in found:  # leftovers of a broken uninstall have no name
            found.append(package)
    return found


def about_python(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """The interpreter, and whether its environment is its own."""
    python = facts.python
    yield fine("Python", f"{python.version}, {python.kind} in {python.prefix}")
    if python.kind == "conda base":
        what = "conda's base: what other programs install there changes what kit finds"
        yield note("environment", what, "conda create -n kit python=3.12 && conda activate kit, then install kit there")
    if python.kind == "system" and not facts.system.container:
        yield note("environment", "the system's Python: its packages belong to the system", fix.new_environment)
    if python.activated:
        what = f"kit runs in {python.prefix}, though {python.activated} is activated, with other packages"
        yield note("environment", what, "deactivate   (or install kit in the activated environment as well)")
    for file in map(Path, facts.system.shadows[:1]):
        what = f"{file} is imported by programs in this folder in place of the package {file.stem}"
        yield note("environment", what, f"rename it: mv {file.name} my_{file.name}")


def about_packages(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """Everything about the packages, worst first; one line where all fit."""
    packages, needs = fix.packages, needed(fix.packages)
    if KIT not in packages:
        what = "not installed, so what it requires of other packages is not known here"
        yield note("kit", what, fix.install("-e", facts.system.source or "PATH_OF_KITS_WHEEL"))
    ours = packages.keys() & {KIT, *MAIN, *needs}
    found = [*_unmet(fix, needs), *_duplicates(facts, fix, ours), *_wrong_files(facts, fix)]
    yield from found
    # Packages that kit does not need may still fail with kit's, and their next update may break kit.
    others = [package for name, package in packages.items() if name not in ours]
    for package in others:
        wanted = [(package, one) for one in _requirements(package) if one.name in ours - {each.name for each in found}]
        if broken := _broken(fix, wanted)[:MOST]:
            what = f"{_said(broken)}; updating {package.name} could break kit"
            yield note(package.name, what, f"keep kit in an environment of its own: {fix.new_environment}")
    text = ", ".join(f"{name} {packages[name].version}" for name in MAIN if name in packages)
    if not any(finding.verdict == "wrong" for finding in found):
        text += f"; all {len(ours)} packages that kit needs fit each other"
    yield fine("packages", text or "none")


def needed(packages: dict[str, SimpleNamespace]) -> dict[str, list[Need]]:
    """What kit, and each package that it needs, directly or not, requires on this machine, by the required package.

    What a package requires under an extra counts where another one asks for that extra.
    """
    needs = defaultdict(list)
    waiting = [(name, "") for name in (KIT, *MAIN)]
    for name, extra in waiting:  # it grows meanwhile
        for one in _requirements(packages[name], extra) if name in packages else ():
            if (packages[name], one) not in needs[one.name]:
                needs[one.name].append((packages[name], one))
            asked = [(one.name, each) for each in ("", *sorted(one.extras))]
            waiting += [each for each in asked if each not in waiting]
    return needs


def _requirements(package: SimpleNamespace, extra: str = "") -> Iterator[Requirement]:
    for text in package.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirement.name = canonicalize_name(requirement.name)
            yield requirement


def _broken(fix: Fixes, needs: list[Need]) -> list[Need]:
    """Those requirements that no installed package meets."""

    def met(one: Requirement) -> bool:
        target = fix.packages.get(one.name)
        return bool(target) and one.specifier.contains(target.version, prereleases=True)

    return [(package, one) for package, one in needs if not met(one)]


def _said(broken: list[Need]) -> str:
    return ", ".join(f"{package.name} {package.version} requires {one.name}{one.specifier}" for package, one in broken)


def _unmet(fix: Fixes, needs: dict[str, list[Need]]) -> Iterator[Finding]:
    """Every package that is missing, or is not what another requires."""
    for name, every in needs.items():
        broken = _broken(fix, every)
        if not broken:
            continue
        target, wanted = fix.packages.get(name), reduce(and_, (one.specifier for _, one in every))
        command = fix.same_torch if name in ("torch", "torchvision") else fix.install(f"{name}{wanted}")
        here = f"{target.version} is installed" if target else "is missing"
        # torch and torchvision are made for each other: whichever is too old, both are installed again.
        only_vision = target and name == "torch" and {package.name for package, _ in broken} == {"torchvision"}
        what = f"{name} {here}; {_said(broken[:MOST])}{WHY.get(name, '')}"
        yield wrong("torchvision" if only_vision else name, what, command)


def _duplicates(facts: SimpleNamespace, fix: Fixes, ours: set[str]) -> Iterator[Finding]:
    """Packages of which several versions are installed: mixed in one folder, or one hiding the other."""
    for name in sorted(ours):
        first = fix.packages[name]
        others = [one for one in facts.packages if one.name == name and one.version != first.version]
        mixed = [one for one in others if one.folder == first.folder]
        if mixed:
            what = f"{first.version} and {mixed[0].version} are mixed in {first.folder}: an update went wrong"
            out = fix.pip(f"uninstall -y {name}")
            yield wrong(name, what, f"{out}   (until it says that nothing is left), then: {fix.install(name)}")
        elif others:
            folders, command = (first.folder, others[0].folder), fix.new_environment
            if any(folder in facts.system.variables.get("PYTHONPATH", "") for folder in folders):
                command = fix.unset("PYTHONPATH")
            elif any(".local" in folder or "Roaming" in folder for folder in folders):
                command = fix.set("PYTHONNOUSERSITE", "1") + "   (packages of your user then stay out)"
            yield note(name, f"{first.version} in {folders[0]} hides {others[0].version} in {folders[1]}", command)


def _wrong_files(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """Packages that overwrite each other's files, and an import of torch that takes another file than pip's."""
    for one, other in RIVALS:
        if one in fix.packages and other in fix.packages:
            what = f"{one} and {other} write the same files: what is imported is a mixture"
            yield wrong(one, what, f"{fix.pip(f'uninstall -y {one} {other}')}, then: {fix.install(one)}")
    torch, file, conda = fix.torch, facts.torch.file, facts.system.conda_torch
    if torch and file and "git" not in torch.version and not Path(file).is_relative_to(torch.folder):
        command = fix.unset("PYTHONPATH") if "PYTHONPATH" in facts.system.variables else f"rename or remove {file}"
        yield wrong("torch", f"import torch takes {file}, not torch {torch.version} in {torch.folder}", command)
    if torch and conda not in ("", torch.version.partition("+")[0]):
        what = f"conda's pytorch {conda} and pip's torch {torch.version} write into one folder"
        yield wrong("conda", what, fix.new_environment)
