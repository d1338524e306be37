"""Mutants: small changes in the code that its tests should find.

    python tests/bench/mutants.py                                    # 12 mutants of each module, about half an hour
    python tests/bench/mutants.py --each 30 --module loop --module layers
    python tests/bench/mutants.py --again                            # only those that no test found last time

A mutant is a module with one change: `<` instead of `<=`, `+` instead of `-`, another number, a statement or an
argument left out. It is caught if a quick test of its module fails. Results are appended to a file (`--results`), so
that a run that was stopped goes on; a module that has changed starts afresh. `EQUIVALENT` and `EXAMPLES` hold the
survivors that need no test, each with its reason; they are not counted. Run it again after a change in what it covers:
survivors need a test or a reason.

No file is changed: torch and fastai are imported once, and each mutant is a forked process that imports the changed
module in place of the original. mutmut and cosmic-ray start a new interpreter, or copy the project; the imports would
take longer than the tests.
"""

import argparse
import ast
import copy
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kit.mechanism import exercise  # noqa: E402

TESTS = {
    **{
        path.relative_to(ROOT).as_posix(): [
            *(test.relative_to(ROOT).as_posix() for test in exercise.tests_of(path.stem)),
            "tests/mechanism/test_defaults.py",
        ]
        for path in sorted((ROOT / "kit/mechanism").glob("[!_]*.py"))
    },
    "kit/intervals.py": ["tests/test_intervals.py"],
    "kit/data/splits.py": ["tests/data/test_splits.py", "tests/data/test_folders.py"],
    "kit/evaluate/calibration.py": ["tests/evaluate/test_calibration.py", "tests/bundle/test_calibration_and_ood.py"],
    "kit/model/heads.py": ["tests/model/test_heads.py", "tests/model/test_build.py"],
    "kit/train/linear.py": ["tests/train/test_linear.py"],
    **{f"kit/features/{name}.py": ["tests/features/test_features.py"] for name in ("compute", "store")},
    **{f"kit/features/{name}.py": ["tests/features/test_neighbours.py"] for name in ("embedding", "neighbours")},
}
"""Each module and its tests, in the order in which they are run."""
IMPORTS = ("torch", "torchvision.models", "fastai.vision.all", "matplotlib.figure", "pandas", "scipy.stats",
           "sklearn.datasets", "sklearn.linear_model")  # fmt: skip
"""What the tests import besides kit; imported once."""
UNTRIED = {
    "strict",
    "encoding",
    "devices",
    "figsize",
    "layout",
    "alpha",
    "s",
    "ms",
    "mew",
    "lw",
    "linewidth",
    "linewidths",
    "fontsize",
    "dpi",
    "markersize",
}
"""Arguments that are not changed: `strict` guards lengths that are equal, `encoding` and `devices` matter on other
machines than that of the tests, the others change how a picture looks."""
SHOWN = {"main", "PrintSteps", "compare_starts"}
"""What only prints, or only slow tests run."""
START = "where an example starts, or what part of it is drawn; any similar number shows the same"
TRAINED = "a size or a rate of an example; any similar one learns as well"
TUNED = "chosen by measurement; a similar number works as well"
SEED = "any other seed draws others of the same kind"
EXAMPLES = {
    "approximation": {"trained_network": TRAINED, "largest_error": "a number of points; as many find the same error"},
    "lab": {"train": TRAINED},
    "landscapes": {"LANDSCAPES": START},
    "linear_probe": {
        "PRETRAINED_CLASSES, NEW_CLASSES, PIXELS, FEATURES": TRAINED,
        "SyntheticImages": TRAINED,
        "train": TRAINED,
        "pretrain": TRAINED,
        "compare_fine_tuning": TRAINED,
    },
    "networks": {"train_on_digits": TRAINED},
    "optimizers": {"EXAMPLES": TRAINED},
    "overfitting": {"train": TRAINED, "compare_remedies": TRAINED},
    "segmentation": {"draw_scenes": START, "train": TRAINED},
    "transfer": {"scatter": START},
}
"""module -> function or name -> why no test should find another number in it."""
EQUIVALENT = {
    ("approximation", "in: first, last = Linear("): "their weights are replaced",
    ("approximation", "in: middle, k = (x[1:] + x[:-1]) / 2, 1000.0"): "as steep as it may be",
    ("approximation", "in: sign = torch.where("): START,
    ("approximation", "torch.zeros -> torch.ones  in: network"): START,
    ("batches", "2 ** 32 - 1 -> 2 ** 32 + 1"): "another number once in 2^32 times",
    ("calibration", "0 -> 1  in: def calibrate("): SEED,
    (
        "calibration",
        "np.empty(len(truth), dtype=int) -> np.empty(len(truth))",
    ): "floats compare with numbers of folds too",
    ("convolution", "in: image = columns.new_zeros("): "a larger image, of which the same part is taken",
    ("gradient", "0.0 -> 1.0  in: here = "): "not read by central differences",
    ("compute", "np.empty((0, 0), np.float32)"): "a part without rows, of any width",
    ("embedding", "5 -> 6  in: AXES, LANDMARKS, NEIGHBOURS = "): TUNED,
    ("embedding", "0 -> 1  in: reduced = PCA("): SEED,
    ("embedding", "20 -> 21  in: weights = "): TUNED,
    ("embedding", "init='pca', random_sta -> "): "the default of scikit-learn too",
    ("embedding", "30.0 -> 37.5"): TUNED,
    ("embedding", "3 -> 4  in: return TSNE("): TUNED,
    ("neighbours", "kind='stable') -> "): "which of equal cosines comes first is not said",
    ("neighbours", "in: PAIRS_AT_ONCE = "): TUNED,
    ("neighbours", "0 -> 1  in: best = "): "NumPy fills no column from one as well as from none",
    ("neighbours", "in: step = max("): "the size of a block, which changes no result",
    ("embedding", "cosines - cosines[:, :1] -> cosines + cosines[:, :1]"): "a factor that all weights of a row have",
    ("lab", "param_groups(parts, weight_decay=0.1)"): TRAINED,
    ("linear_probe", "> 0 -> (gradient * (new - last)).sum() >= 0"): "0 at the minimum alone, where no step moves",
    ("linear", "range(some_folds.max() + 1)"): "one more fold, in which no image is",
    ("linear", "0.01 -> 0.0125  in: USUAL"): TUNED,
    ("losses", "log_softmax(logits, dim=1) -> "): "axis 1 of (n, classes) is the last one too",
    ("networks", "True -> False  in: loaders = batches."): "an example, which learns in any order of its images",
    ("networks", "in: return body(torch.zeros("): "only the number of outputs matters",
    ("overfitting", "in: wrong = torch.rand("): "a random number is hardly ever equal to the probability",
    ("overfitting", "y + shift -> y - shift"): "another of the other classes, all as likely",
    ("parallel", "1 -> 2  in: sizes = [1] * len(parts)"): "any one size for all",
    ("plots", "full_matrices=False) -> torch.linalg.svd(reference - mean)"): "more vectors, which are not used",
    ("splits", "len(units) > 1 -> len(units) >= 1"): "the only unit is never taken",
    ("splits", "in: chosen = CHOOSERS[how](rows.iloc[free].reset_index("): "one more column, which is not read",
    ("calibration", "log_temperature / SPREAD -> "): "it is 1",
    ("linear", "0 -> 1  in: if standard.shape[1] <= "): "the same head, not rotated, which takes longer",
    ("compute", "in: layout = "): "another order in memory of the same numbers",
    ("embedding", "1e-09 -> 1e-08"): TUNED,
    ("neighbours", "argpartition(block, first, axis=1) -> "): "the last axis is axis 1",
    ("calibration", "in: shifted = logits - "): "logarithms of probabilities are too near 0 for an overflow",
    ("linear", "1.0 -> 1.25  in: spread = np.where("): "a constant feature is 0, whatever it is divided by",
    ("linear", "in: TINY = "): "between a rounding error and the spread of any feature",
    ("compute", "device=device) -> "): "tests run on one device",
    ("splits", "1 -> 2  in: sets = join_sets("): "NumPy takes any negative number for the size that is missing",
    ("splits", "0 -> 1  in: side = [0] * len(rows)"): "each is set before it is read",
}
"""(module, part of a mutant as it is printed) -> why no test should find it."""

ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "mean": "sum", "zeros": "ones", "ones": "zeros", "floor": "ceil", "ceil": "floor",
         "amax": "amin", "amin": "amax", "argmax": "argmin", "zeros_like": "ones_like",
         "ones_like": "zeros_like"}  # fmt: skip


class Mutant(NamedTuple):
    """One change: where it is (module, function or name, line), how it is printed, and which change at which place of
    the syntax tree it is."""

    module: str
    name: str
    line: int
    text: str
    place: int
    change: int


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    new = copy.deepcopy(node)
    match new:
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            new.op = ARITHMETIC[type(op)]()
            yield new
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            new.ops = [COMPARISONS[type(op)]()]
            yield new
        case ast.BoolOp():
            new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield new.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not new.value)
        case ast.Constant(value=int()):
            yield ast.Constant(new.value + 1)
        case ast.Constant(value=float()):
            yield ast.Constant(new.value * (1.25 if abs(new.value) > 1e-3 else 10) or 1.0)
        case ast.If() | ast.IfExp():
            new.test = ast.UnaryOp(ast.Not(), new.test)
            yield new
        case ast.Attribute() if new.attr in NAMES:
            new.attr = NAMES[new.attr]
            yield new
        case ast.Name() if new.id in NAMES:
            new.id = NAMES[new.id]
            yield new
        case ast.Call(keywords=[_, *_]):
            for place in range(len(new.keywords)):
                if new.keywords[place].arg in UNTRIED:
                    continue
                fewer = copy.deepcopy(new)
                del fewer.keywords[place]
                yield fewer
        case ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Yield (parent, field, index) of every node to change: no texts, no types, nothing in `SHOWN` or `UNTRIED`."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or (field == "exc" and isinstance(node, ast.Raise)):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            untried = isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name in SHOWN
            started = isinstance(child, ast.If) and "__main__" in ast.unparse(child.test)
            cosmetic = isinstance(child, ast.keyword) and child.arg in UNTRIED
            if isinstance(child, ast.AST) and not (isinstance(child, ast.JoinedStr) or untried or started or cosmetic):
                yield node, field, index
                yield from places(child)


def mutants(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module."""
    found, lines, tree = [], source.splitlines(), ast.parse(source)
    for place, (parent, field, index) in enumerate(places(tree)):
        node = getattr(parent, field) if index is None else getattr(parent, field)[index]
        line = getattr(node, "lineno", getattr(parent, "lineno", 1))
        outer = next(one for one in tree.body if one.lineno <= line <= one.end_lineno)
        for change, new in enumerate(changes(node)):
            text = f"{shortened(node)} -> {shortened(new)}  in: {lines[line - 1].strip()[:80]}"
            found.append(Mutant(module, name_of(outer), line, text, place, change))
    return found


def name_of(statement: ast.stmt) -> str:
    """The name that a statement of a module defines."""
    match statement:
        case ast.FunctionDef() | ast.ClassDef():
            return statement.name
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            return ast.unparse(target).strip("()")
    return ""


def reason(mutant: Mutant) -> str:
    """Why no test needs to find a mutant; "" where one should."""
    module = Path(mutant.module).stem
    listed = [why for (one, part), why in EQUIVALENT.items() if one == module and part in mutant.text]
    number = re.match(r"[0-9.e+-]+ -> ", mutant.text)
    return (listed + [EXAMPLES.get(module, {}).get(mutant.name, "")] * bool(number) + [""])[0]


def shortened(node: ast.AST) -> str:
    """The code of a node in one line of at most 70 characters."""
    return " ".join(ast.unparse(node).split())[:70]


def mutated(mutant: Mutant) -> ast.Module:
    """Return the syntax tree of a mutant."""
    tree = ast.parse((ROOT / mutant.module).read_text())
    parent, field, index = next(islice(places(tree), mutant.place, None))
    node = getattr(parent, field) if index is None else getattr(parent, field)[index]
    new = next(islice(changes(node), mutant.change, None))
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    return ast.fix_missing_locations(tree)


class Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from a changed syntax tree."""

    def __init__(self, mutant: Mutant):
        super().__init__(mutant.module.removesuffix(".py").replace("/", "."), str(ROOT / mutant.module))
        self.tree = mutated(mutant)

    def find_spec(self, fullname, path=None, target=None):
        if fullname == self.name:
            return importlib.util.spec_from_file_location(fullname, self.path, loader=self)
        return None

    def get_code(self, fullname):
        return compile(self.tree, self.path, "exec")


def run_tests(mutant: Mutant | None, tests: list[str]) -> None:
    """In a forked process: run the tests with the changed module, and exit with pytest's code."""
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    os.setpgid(0, 0)
    for name in [name for name in sys.modules if name.split(".")[0] == "kit"]:
        del sys.modules[name]
    if mutant:
        sys.meta_path.insert(0, Changed(mutant))
    os._exit(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]))


def result(mutant: Mutant | None, tests: list[str], limit: float) -> str:
    """Return "caught", "survived", or "timeout", which counts as caught."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(mutant, tests))
    process.start()
    process.join(limit)
    if process.is_alive():
        os.killpg(process.pid, 9)
        process.join()
        return "timeout"
    return "survived" if process.exitcode == 0 else "caught"


def main() -> None:
    """Try the mutants that have no result yet, and print the share that was caught and the survivors."""
    parser = argparse.ArgumentParser(description="Make small changes in the code and count those that tests find.")
    parser.add_argument("--each", type=int, default=12, help="mutants of each module, at random")
    parser.add_argument("--module", action="append", help="only modules with this name; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600, help="seconds for the tests of one mutant")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"), help="the file to append to")
    parser.add_argument("--again", action="store_true", help="try again what survived")
    options = parser.parse_args()
    chosen = [module for module in TESTS if not options.module or Path(module).stem in options.module]
    results = options.results.absolute()
    os.chdir(ROOT)
    for package in IMPORTS:
        importlib.import_module(package)
    lines = results.read_text().splitlines() if results.exists() else []
    known = {(row["sha"], row["line"], row["text"]): row["result"] for row in map(json.loads, lines)}
    counts, survivors = {}, []
    for module in chosen:
        source, tests = (ROOT / module).read_text(), TESTS[module]
        sha = hashlib.sha256(source.encode()).hexdigest()[:12]
        every = mutants(module, source)
        sample = sorted(random.Random(options.seed).sample(every, min(options.each, len(every))), key=lambda m: m.line)
        counts[module], tried = Counter(), False
        for mutant in sample:
            key = (sha, mutant.line, mutant.text)
            if key not in known or (options.again and known[key] == "survived" and not reason(mutant)):
                known[key] = result(mutant, tests, options.limit)
                tried = True
                row = {"module": module, "sha": sha, "line": mutant.line, "text": mutant.text, "result": known[key]}
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            outcome = "equivalent" if known[key] == "survived" and reason(mutant) else known[key]
            counts[module][outcome] += 1
            if outcome == "survived":
                survivors.append(f"{module}:{mutant.line}: {mutant.text}")
        if tried and not counts[module]["survived"] and result(None, tests, options.limit) != "survived":
            raise SystemExit(f"{module}: its tests fail without a change: {' '.join(tests)}")
        total, equivalent = sum(counts[module].values()), counts[module]["equivalent"]
        caught = total - equivalent - counts[module]["survived"]
        print(f"{module:36} {caught:>3} of {total - equivalent:>3} caught, {equivalent} equivalent", flush=True)
    sums = sum(counts.values(), Counter())
    caught, tried = sums["caught"] + sums["timeout"], sums.total() - sums["equivalent"]
    share = f" ({caught / tried:.1%})" if tried else ""
    print(f"\n{caught} of {tried} mutants caught{share}, {sums['equivalent']} equivalent\n", *survivors, sep="\n")


if __name__ == "__main__":
    main()
