"""The facts of the machine, and the one JSON file and summary of tests/gpu/verify.sh. Needs only the standard library.

python tests/gpu/summary.py facts facts.json
python tests/gpu/summary.py merge PARTS PHOTOS verify.json      # exit code 1 where something failed or was not done
"""

import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "timm", "fastai", "numpy", "pandas", "scikit-learn", "pillow", "onnxruntime", "triton"
)  # fmt: skip
FIELDS = "name,driver_version,memory.total,memory.used,compute_cap,clocks.sm,clocks.mem,temperature.gpu,power.draw"


def facts() -> dict[str, Any]:
    """Commit, date, packages, processor and GPU."""
    found: dict[str, Any] = {"commit": commit(), "date": time.strftime("%Y-%m-%d %H:%M:%S"), "cores": os.cpu_count()}
    found |= {"python": platform.python_version(), "system": platform.platform(), "load": os.getloadavg()[0]}
    found["packages"] = {name: installed(name) for name in PACKAGES}
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    found["processor"] = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    found["nvidia-smi"] = said("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader")
    try:
        import torch

        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        found["card"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except Exception as error:
        found["torch failed"] = repr(error)
    return found


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=15).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"


def commit() -> str:
    """The commit that prepare.sh wrote down, or that of the checkout."""
    written = Path(".gpu/commit")
    if Path(".git").exists() or not written.exists():
        return said("git", "rev-parse", "HEAD") or "not known"
    return " ".join(written.read_text().split("\n")).strip()


def tests(path: Path) -> dict[str, Any]:
    """Outcome, seconds and measured values of each test, from pytest's report."""
    if not path.exists():
        return {}
    cases = {}
    for case in ElementTree.parse(path).iter("testcase"):
        bad = [one for kind in ("failure", "error") for one in case.findall(kind)]
        skipped = case.find("skipped")
        outcome = "failed" if bad else "skipped" if skipped is not None else "passed"
        entry: dict[str, Any] = {"outcome": outcome, "seconds": round(float(case.get("time", 0)), 2)}
        if bad:
            entry |= {"message": bad[0].get("message", ""), "traceback": (bad[0].text or "")[-3000:]}
        if skipped is not None:
            entry["message"] = skipped.get("message", "")
        values = {one.get("name"): one.get("value") for one in case.iter("property")}
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
        cases[name] = entry | ({"measured": values} if values else {})
    return cases


def one_line(text: str) -> str:
    return " ".join(text.split())


def read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else {}


def merge(parts: Path, photos: str, out: Path) -> int:
    """Write everything as one JSON file and print a summary; returns the exit code."""
    lines = (parts / "stages").read_text().splitlines() if (parts / "stages").exists() else []
    stages = [json.loads(line) for line in lines]
    cases, bench, about = tests(parts / "tests.xml"), read(parts / "bench.json"), read(parts / "facts.json")
    whole = {"facts": about, "photos": photos, "stages": stages, "tests": cases, "benchmark": bench}
    out.write_text(json.dumps(whole, indent=1))
    by = {outcome: [name for name, one in cases.items() if one["outcome"] == outcome] for outcome in OUTCOMES}
    undone = [f"{one['name']}: {one['ended']}" for one in stages if one["ended"] != "finished"]
    undone += [f"benchmark, {key}: {one_line(why)[-300:]}" for key, why in bench.get("not measured", {}).items()]
    undone += [f"failed: {name}: {one_line(cases[name]['message'])[:300]}" for name in by["failed"]]
    undone += [] if cases else ["no test has a result"]
    undone += [] if bench else ["nothing was measured"]
    print("\n===== summary")
    torch = about.get("packages", {}).get("torch")
    print(f"{about.get('card') or 'no GPU'}, torch {torch}, commit {about.get('commit')}")
    print(", ".join(f"{len(names)} tests {outcome}" for outcome, names in by.items()))
    for name in by["skipped"]:
        print(f"skipped: {name}: {cases[name]['message']}")
    for name, one in cases.items():
        if "measured" in one:
            print(f"{name}: {one['measured']}")
    for key, figures in bench.get("measured", {}).items():
        print(f"{key}: {figures}")
    for name, value in bench.get("goals", {}).items():
        print(f"goal: {name}: {value}")
    print("\n".join(["not done or wrong:", *undone]) if undone else "all was done")
    print(f"written: {out}")
    return 1 if undone else 0


OUTCOMES = ("passed", "failed", "skipped")

if __name__ == "__main__":
    if sys.argv[1] == "facts":
        Path(sys.argv[2]).write_text(json.dumps(facts()))
    else:
        sys.exit(merge(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
