"""Do Python and the installed packages fit each other? Their own metadata say what each wants of the others.

about_packages(facts)
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from kit.doctor import mends
from kit.doctor.facts import Facts, Finding, Package, fine, note, wrong
from kit.errors import some_of

MAIN = ("torch", "torchvision", "timm", "fastai", "gradio")
WITH_TORCH = {"torchvision", "torchaudio"}
RIVALS = (("onnxruntime", "onnxruntime-gpu"), ("onnxruntime", "onnxruntime-directml"), ("pillow", "pillow-simd"))
WHY = {"torch": "; below 2.10 its loader could be made to run code"}
FEW = 5


def about_python(facts: Facts) -> Iterator[Finding]:
    """The interpreter: its version, its kind, and whether its environment is its own."""
    python = facts.python
    refusing = [package for package in facts.packages if package.ours and not _allows(package.python, python.version)]
    for package in refusing[:1]:
        names = some_of([other.name for other in refusing])
        what = f"{python.version} is refused by {names}; {package.name} {package.version} is for {package.python}"
        yield wrong("Python", what, mends.fresh(facts, _another_python(facts)))
    if python.bits < 64:
        what = f"{python.bits} bits; torch is made for 64"
        yield wrong("Python", what, "install Python 3.12, 64 bits (https://www.python.org/downloads), and start anew")
    if facts.system.translated:
        what = "made for Intel, translated by Rosetta; torch for Apple's processors needs Python for arm64"
        yield wrong("Python", what, "brew install python@3.12   (Homebrew in /opt/homebrew), and start anew")
    if not refusing:
        yield fine("Python", f"{python.version}, {python.kind} in {python.prefix}")
    yield from _about_environment(facts)


def _about_environment(facts: Facts) -> Iterator[Finding]:
    if facts.python.kind == "conda base":
        what = "conda's base: what other programs install there changes what kit finds"
        yield note("environment", what, "conda create -n kit python=3.12 && conda activate kit, then install kit there")
    if facts.python.activated:
        what = f"kit runs in {facts.python.prefix}, though {facts.python.activated} is activated, with other packages"
        yield note("environment", what, "deactivate   (or install kit in the activated environment as well)")
    if facts.python.kind == "system" and not facts.system.container:
        what = "the system's Python: its packages belong to the system"
        yield note("environment", what, mends.fresh(facts))
    if facts.system.shadows:
        name = Path(facts.system.shadows[0])
        what = f"{name} is imported by programs in this folder in place of the package {name.stem}"
        yield note("environment", what, f"rename it: mv {name.name} my_{name.name}")


def _allows(versions: str, version: str) -> bool:
    try:
        return SpecifierSet(versions).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def _another_python(facts: Facts) -> str:
    """A Python that every package takes: 3.12 where possible, since most is built for it."""
    ours = [package.python for package in facts.packages if package.ours]
    fitting = [minor for minor in (12, 13, 11, 14, 15) if all(_allows(text, f"3.{minor}.99") for text in ours)]
    minor = fitting[0] if fitting else 12
    return f"py -3.{minor}" if mends.windows(facts) else f"python3.{minor}"


def about_packages(facts: Facts) -> Iterator[Finding]:
    """Everything about the packages, worst first; one line where all fit."""
    if facts.package("kit") is None:
        what = "not installed, so what it wants of other packages is not known here"
        yield note("kit", what, mends.install(facts, "-e", facts.system.source or "PATH_OF_KITS_WHEEL"))
    found = [*_unmet(facts), *_old_torch(facts), *_twice(facts), *_rivals(facts), *_from_elsewhere(facts)]
    yield from found
    yield from _strangers(facts, {finding.name for finding in found})
    yield from _conda(facts)
    named = [package for name in MAIN if (package := facts.package(name))]
    text = ", ".join(f"{package.name} {package.version}" for package in named)
    if not any(finding.verdict == "wrong" for finding in found):
        count = len({package.name for package in facts.packages if package.ours})
        text += f"; all {count} packages that kit needs fit each other"
    yield fine("packages", text or "none")


Wish = tuple[Package, Requirement]


def _wishes(facts: Facts, ours: bool) -> Iterator[tuple[str, Wish]]:
    """What kit's packages (or all others) want, each with its target's name."""
    for package in dict.fromkeys(facts.package(package.name) for package in facts.packages):
        if package.ours == ours:
            for text in package.requires:
                requirement = Requirement(text)
                yield requirement.name, (package, requirement)


def _met(facts: Facts, wish: Wish) -> bool:
    target = facts.package(wish[1].name)
    return target is not None and wish[1].specifier.contains(target.version, prereleases=True)


def _said(wishes: list[Wish]) -> str:
    return ", ".join(f"{package.name} {package.version} wants {requirement}" for package, requirement in wishes[:FEW])


def _unmet(facts: Facts) -> Iterator[Finding]:
    """Every package that is missing, or is not what another wants; one finding a package."""
    wishes: dict[str, list[Wish]] = defaultdict(list)
    for name, wish in _wishes(facts, ours=True):
        wishes[name].append(wish)
    for name, every in wishes.items():
        broken = [wish for wish in every if not _met(facts, wish)]
        target = facts.package(name)
        if not broken:
            continue
        pair = name in ("torch", "torchvision")
        wanted = name + narrowed([wish[1].specifier for wish in every])
        mend = mends.both(facts, mends.build_tag(facts)) if pair else mends.install(facts, wanted)
        if target is None:
            yield wrong(name, f"missing; {_said(broken)}", mend)
        elif name == "torch" and {wish[0].name for wish in broken} <= WITH_TORCH:
            what = f"{_said(broken)}; here is torch {target.version}. The two are made for each other"
            yield wrong("torchvision", what, mend)
        else:
            yield wrong(name, f"{target.version}; {_said(broken)}{WHY.get(name, '')}", mend)


def narrowed(ranges: list[SpecifierSet]) -> str:
    """Several ranges of versions as one, without the bounds that another includes: ">=2.0.2,<3"."""
    parts = {part for one in ranges for part in one}
    lowest = sorted((part for part in parts if part.operator == ">="), key=lambda part: Version(part.version))
    highest = sorted((part for part in parts if part.operator == "<"), key=lambda part: Version(part.version))
    others = sorted(str(part) for part in parts if part.operator not in (">=", "<"))
    return ",".join([*map(str, lowest[-1:]), *map(str, highest[:1]), *others])


def _old_torch(facts: Facts) -> Iterator[Finding]:
    """torch before 2.3 was compiled for NumPy 1; its metadata do not say so."""
    torch, numpy = facts.package("torch"), facts.package("numpy")
    if torch and numpy and _allows("<2.3", torch.version) and _allows(">=2", numpy.version):
        what = f"{numpy.version}; torch {torch.version} was compiled for NumPy 1 and cannot hand arrays to NumPy 2"
        yield wrong("numpy", what, mends.install(facts, "--upgrade", "torch", "torchvision"))


def _twice(facts: Facts) -> Iterator[Finding]:
    """Packages of which several versions are installed: mixed in one folder, or one hiding the other."""
    for name in dict.fromkeys(package.name for package in facts.packages if package.ours):
        every = [package for package in facts.packages if package.name == name]
        others = [package for package in every if package.version != every[0].version]
        mixed = [package for package in others if package.folder == every[0].folder]
        if mixed:
            what = f"{every[0].version} and {mixed[0].version} are mixed in {mixed[0].folder}: an update went wrong"
            out = mends.pip(facts, f"uninstall -y {name}")
            mend = f"{out}   (until it says that nothing is left), then: {mends.install(facts, name)}"
            yield wrong(name, what, mend)
        elif others:
            what = f"{every[0].version} in {every[0].folder} hides {others[0].version} in {others[0].folder}"
            yield note(name, what, _without_the_other(facts, every[0].folder, others[0].folder))


def _without_the_other(facts: Facts, *folders: str) -> str:
    searched = facts.system.variables.get("PYTHONPATH", "")
    if any(folder in searched for folder in folders):
        return mends.unset(facts, "PYTHONPATH")
    if any(".local" in folder or "Roaming" in folder for folder in folders):
        return mends.put(facts, "PYTHONNOUSERSITE", "1") + "   (packages of your user then stay out)"
    return mends.fresh(facts)


def _rivals(facts: Facts) -> Iterator[Finding]:
    for pair in RIVALS:
        if all(facts.package(name) for name in pair):
            what = f"{pair[0]} and {pair[1]} write the same files: what is imported is a mixture"
            out = mends.pip(facts, f"uninstall -y {pair[0]} {pair[1]}")
            yield wrong(pair[0], what, f"{out}, then: {mends.install(facts, pair[0])}")


def _from_elsewhere(facts: Facts) -> Iterator[Finding]:
    """An import that takes a file that is not of the installed package."""
    torch, file = facts.package("torch"), facts.torch.file
    if torch and file and "git" not in torch.version and not Path(file).is_relative_to(torch.folder):
        here = facts.system.variables.get("PYTHONPATH")
        what = f"import torch takes {file}, not torch {torch.version} in {torch.folder}"
        yield wrong("torch", what, mends.unset(facts, "PYTHONPATH") if here else f"rename or remove {file}")


def _strangers(facts: Facts, told: set[str]) -> Iterator[Finding]:
    """Packages that kit does not need, and that kit's packages break: they fail, and their next update breaks kit."""
    broken: dict[str, list[Wish]] = defaultdict(list)
    for _, wish in _wishes(facts, ours=False):
        target = facts.package(wish[1].name)
        if target and target.ours and target.name not in told and not _met(facts, wish):
            broken[wish[0].name].append(wish)
    for name, wishes in [*broken.items()][:FEW]:
        target = facts.package(wishes[0][1].name)
        what = f"{_said(wishes)}; here is {target.version}. Updating {name} could break kit"
        yield note(name, what, f"keep kit in an environment of its own: {mends.fresh(facts)}")


def _conda(facts: Facts) -> Iterator[Finding]:
    """conda's torch, CUDA and cuDNN beside pip's torch, and what people switch off when conda fails."""
    torch, conda = facts.package("torch"), facts.system.conda
    names = [name for name in conda if name not in ("pytorch", "torchvision")]
    if torch and conda.get("pytorch", torch.version.partition("+")[0]) != torch.version.partition("+")[0]:
        what = f"conda's pytorch {conda['pytorch']} and pip's torch {torch.version} write into one folder"
        yield wrong("conda", what, mends.fresh(facts))
    elif torch and names and "pytorch" not in conda:
        what = f"{', '.join(f'{name} {conda[name]}' for name in names)}: torch does not use them, it brings its own"
        yield note("conda", what, f"conda remove {' '.join(names)}")
    if facts.system.conda_unverified:
        what = "~/.condarc says ssl_verify: no, so conda does not check whom it downloads from"
        yield note("conda", what, "conda config --remove-key ssl_verify")
