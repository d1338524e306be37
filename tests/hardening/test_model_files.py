"""HARDENING rows 1, 2 and 4 to 10: files of weights and bundles that somebody made to harm, or that were damaged."""

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import load_file, save_file

import kit
from kit.errors import BundleError, KitError, WeightsError
from kit.files import sha256
from kit.manifest import FIELDS, read_config, read_form, vocab_hash, write_config
from kit.model.architectures import build_network, cut_body, find_architecture
from kit.model.weightfile import read_tensors
from kit.model.weights import load_weights

MEGABYTES = 1e6


def start_from(path, arch="resnet18"):
    architecture = find_architecture(arch)
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return network, load_weights(network, body.module, architecture, str(path))


class Attack:
    """What a pickle would run when it is read: it leaves a file behind."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def attacks(trace: Path):
    """The same attack as plain pickle, in both formats of torch.save, and in the newest protocol."""
    yield pickle.dumps(Attack(trace))
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        memory = io.BytesIO()
        torch.save({"conv1.weight": Attack(trace)}, memory, **options)
        yield memory.getvalue()


@pytest.mark.parametrize("name", ["export.pkl", "export.PICKLE", "weights.npz"])
def test_row_1_a_pickle_that_runs_a_command_is_refused_unread(tmp_path, name):
    for content in attacks(tmp_path / "ran"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="reading one can run any program that it names, so it was not read"):
            start_from(tmp_path / name)
        with pytest.raises(BundleError, match="is no bundle: it is not a folder"):
            kit.bundle.load(tmp_path / name)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["export.pth", "export.pt", "pytorch_model.bin", "checkpoint.pth.tar", "weights"])
def test_row_2_the_same_inside_a_pth_is_refused_and_never_run(tmp_path, name):
    for content in attacks(tmp_path / "ran"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            start_from(tmp_path / name)
        assert not (tmp_path / "ran").exists()


@contextmanager
def at_most(megabytes: float):
    """The block may raise the largest memory of this process by so much."""
    peak = Path("/proc/self/status")
    if not peak.is_file():
        pytest.skip("needs /proc to measure memory")

    def kilobytes() -> int:
        return int(next(line for line in peak.read_text().splitlines() if line.startswith("VmHWM")).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes()
    yield
    assert (kilobytes() - before) / 1000 < megabytes


NUMBERS = 77


def saved(count: int, old: bool = False) -> bytes:
    """A .pth of 77 zeros which says everywhere that there are `count`."""
    memory = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(NUMBERS)}, memory, _use_new_zipfile_serialization=not old)
    claimed = (b"K" + bytes([NUMBERS]), b"J" + count.to_bytes(4, "little"))
    if old:
        return memory.getvalue().replace(*claimed)
    changed = io.BytesIO()
    with zipfile.ZipFile(memory) as original, zipfile.ZipFile(changed, "w") as bomb:
        for member in original.infolist():
            bomb.writestr(member.filename, original.read(member).replace(*claimed))
    return changed.getvalue()


def deflated(path: Path):
    """A .pth of 5 MB (of 1 MB, packed harder) whose one tensor unpacks to 1 GiB of zeros, as many as it says."""
    original = zipfile.ZipFile(io.BytesIO(saved(2**28)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for member in original.infolist():
            zeros = member.filename.endswith("data/0")
            with bomb.open(member.filename, "w") as part:
                for piece in [bytes(2**20)] * 1024 if zeros else [original.read(member)]:
                    part.write(piece)


def claiming(path: Path, old: bool = False):
    """A .pth of 1 kB whose storage says that it holds 10^9 elements."""
    path.write_bytes(saved(10**9, old))


def stretched(path: Path, old: bool = False):
    """A .pth of 1 kB that shows one number 10^9 times."""
    torch.save({"conv1.weight": torch.zeros(1).expand(10**9)}, path, _use_new_zipfile_serialization=not old)


def repeated(path: Path):
    """A .pth of 4 MB that shows the same megabytes a thousand times under a thousand names."""
    block = torch.zeros(10**6)
    torch.save({f"layer{number}": block for number in range(1000)}, path)


class Bytes:
    """A pickle that asks for 10^9 zero bytes, by a call that torch's own safe reader allows."""

    def __reduce__(self):
        return bytearray, (10**9,)


def calling(path: Path):
    """A .pth of 1 kB that has a billion bytes made."""
    torch.save({"conv1.weight": Bytes()}, path)


BOMBS = {
    "unpacks to 1 GiB": deflated,
    "claims 10^9": claiming,
    "claims 10^9, old format": lambda path: claiming(path, old=True),
    "stretches one number": stretched,
    "stretches one number, old format": lambda path: stretched(path, old=True),
    "repeats a block": repeated,
    "has bytes made": calling,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_row_4_a_pth_that_would_fill_the_memory_is_refused_under_50_megabytes(tmp_path, bomb):
    BOMBS[bomb](tmp_path / "small.pth")
    assert (tmp_path / "small.pth").stat().st_size < 6 * MEGABYTES
    with at_most(50), pytest.raises(WeightsError, match="cannot be read as weights"):
        read_tensors(tmp_path / "small.pth")


def entry(first: int, last: int, **changes) -> dict:
    return {"dtype": "F32", "shape": [(last - first) // 4], "data_offsets": [first, last]} | changes


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
MALFORMED = {
    "empty file": b"",
    "length cut": b"\x01\x02",
    "short header": struct.pack("<Q", 1000) + b'{"a":',
    "endless header": struct.pack("<Q", 2**63) + b"{}",
    "overlapping": ({"a": entry(0, 8), "b": entry(4, 12)}, 12),
    "gap": ({"a": entry(0, 4), "b": entry(8, 12)}, 12),
    "out of range": ({"a": entry(0, 400)}, 4),
    "backwards": ({"a": entry(4, 0)}, 4),
    "shape too large": ({"a": entry(0, 4, shape=[10**9])}, 4),
    "negative shape": ({"a": entry(0, 4, shape=[-1])}, 4),
    "unknown numbers": ({"a": entry(0, 4, dtype="F33")}, 4),
    "no shape": ({"a": {"dtype": "F32"}}, 4),
    "not an object": ([1, 2], 4),
    "entry not an object": ({"a": 1}, 4),
    "bytes left over": ({"a": entry(0, 4)}, 400),
    "duplicate key": (TWICE, 4),
    "deep": (b"[" * 100_000, 4),
    "100,000 tensors": ({f"t{number}": entry(4 * number, 4 * number + 4) for number in range(100_000)}, 400_000),
    "25,000 tensors": ({f"{number}": entry(4 * number, 4 * number + 4) for number in range(25_000)}, 100_000),
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_row_5_malformed_safetensors_are_refused_in_one_line(tmp_path, name):
    content = MALFORMED[name]
    if isinstance(content, tuple):
        header = content[0] if isinstance(content[0], bytes) else json.dumps(content[0]).encode()
        content = struct.pack("<Q", len(header)) + header + bytes(content[1])
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with at_most(50), pytest.raises(WeightsError, match="cannot be read as weights|Git LFS pointer") as caught:
        start_from(path)
    assert len(caught.value.problem.splitlines()) == 1
    assert len(caught.value.problem) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_row_6_weights_that_are_not_finite_are_refused(tmp_path, value, suffix):
    state = torchvision.models.resnet18().state_dict()
    state["layer3.0.conv1.weight"][1, 2, 0, 0] = value
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    with pytest.raises(WeightsError, match=r"not finite \(layer3.0.conv1.weight\)"):
        start_from(path)


def copy_of(run, folder: Path, **changes) -> Path:
    """A copy of the run's bundle with other fields in config.json."""
    copy = shutil.copytree(run.bundle, folder / "bundle")
    rewrite(copy, **changes)
    return copy


def rewrite(folder: Path, **changes) -> None:
    """Other fields in config.json, the hash of every file as it now is: by somebody who knows the format."""
    config = json.loads((folder / "config.json").read_text()) | changes
    if "files" not in changes:
        config["files"] = {name: sha256(folder / name) for name in config["files"]}
    write_config(folder, config)


def test_row_6_a_bundle_with_such_weights_is_refused_even_if_its_hashes_fit(run, tmp_path):
    copy = copy_of(run, tmp_path)
    facts = {"vocab_sha256": json.loads((copy / "config.json").read_text())["vocab_sha256"]}
    tensors = load_file(copy / "model.safetensors")
    tensors["1.8.weight"][0, 0] = float("nan")
    save_file(tensors, copy / "model.safetensors", metadata=facts)
    rewrite(copy)
    with pytest.raises(KitError, match=r"not finite \(1.8.weight\)"):
        kit.bundle.load(copy, engine="torch")


def tiny_bundle(folder: Path) -> Path:
    """A bundle of a few kilobytes, with every kind of file: enough to be hashed."""
    (folder / "examples").mkdir(parents=True)
    vocab = ["cat", "dog"]
    contents = {"README.md": b"# A card", "examples/example_1.jpg": bytes(range(256)), "model.onnx": b"\x08\x0a" * 300}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    facts = {"vocab_sha256": vocab_hash(vocab)}
    save_file({"0.weight": torch.arange(300.0)}, folder / "model.safetensors", metadata=facts)
    files = {name: sha256(folder / name) for name in (*contents, "model.safetensors")}
    fields = {name: kind() for name, kind in FIELDS.items()}
    image = {"size": 64, "resize": "crop", "at_least": 64, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    fields |= {"format": "kit-bundle", "version": 1, "task": "classification", "temperature": 1.25, "image": image}
    fields |= {
        "architecture": {"name": "resnet18", "head": "fastai"},
        "vocab": vocab,
        "vocab_sha256": vocab_hash(vocab),
        "files": files,
    }
    write_config(folder, fields | {"metrics": {"error_rate": 0.125, "n": 80, "low": 0.1, "high": 0.2}})
    return folder


def test_row_7_one_flipped_bit_anywhere_in_a_bundle_is_refused_each_time(tmp_path):
    folder = tiny_bundle(tmp_path / "bundle")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in paths}
    places = [(path, bit) for path in paths for bit in range(8 * len(contents[path]))]
    for path, bit in random.Random(7).sample(places, 1000):
        flipped = bytearray(contents[path])
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(BundleError):
            read_config(folder)
        path.write_bytes(contents[path])
    assert read_config(folder)["vocab"] == ["cat", "dog"]


def test_row_7_every_bit_of_config_json_and_of_its_seal_counts(tmp_path):
    folder = tiny_bundle(tmp_path / "bundle")
    for path in (folder / "config.json", folder / "config.json.sha256"):
        content = path.read_bytes()
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            with pytest.raises(BundleError):
                read_form(folder)
        path.write_bytes(content)
    read_form(folder)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_row_8_a_bundle_overwritten_after_loading_answers_as_before(run, shapes, tmp_path, engine):
    copy = copy_of(run, tmp_path)
    images = sorted(map(str, (shapes / "circle").glob("*.png")))[:3]
    predictor = kit.bundle.load(copy, engine=engine)
    before = [one.probabilities for one in predictor.predict(images)]
    for path in copy.iterdir():
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb+") as file:  # in place: the same file that may be mapped
                file.write(b"\x55" * size)
    assert [one.probabilities for one in predictor.predict(images)] == before


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_row_8_weights_overwritten_after_loading_stay_as_they_were(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    state = {"weight": torch.arange(1000.0)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    tensors, _ = read_tensors(path)
    with path.open("rb+") as file:
        file.write(b"\x55" * path.stat().st_size)
    assert torch.equal(tensors["weight"], torch.arange(1000.0))


CONFIGS = {
    "not JSON": ("{", "config.json is not JSON"),
    "nothing": ("", "config.json is not JSON"),
    "deep": ("[" * 100_000, "config.json is not JSON"),
    "a list": ("[]", "does not describe a kit bundle"),
    "wrong version": ({"version": 99}, "version 99; this kit reads version 1"),
    "unknown architecture": (
        {"architecture": {"name": "resnett18", "head": "fastai"}},
        "field architecture.name: unknown network 'resn",
    ),
    "vocabulary of another length": ({"vocab": ["circle", "square"]}, "field vocab does not fit its hash"),
    "path leading out": ({"files": {"../secret": "0" * 64}}, "field files names '../secret', which leads out"),
    "absolute path": ({"files": {"/etc/hostname": "0" * 64}}, "field files names '/etc/hostname', which leads out"),
    "50 MB string": ({"label": "x" * 50_000_000}, r"config.json has 50,0\d\d,\d\d\d bytes; at most 20,000,000"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_row_9_a_config_that_is_not_as_it_should_be_is_refused_and_the_field_named(run, tmp_path, name):
    content, problem = CONFIGS[name]
    copy = copy_of(run, tmp_path)
    if isinstance(content, str):
        (copy / "config.json").write_text(content)
    elif "files" in content:
        rewrite(copy, files=content["files"] | json.loads((copy / "config.json").read_text())["files"])
    else:
        rewrite(copy, **content)
    with pytest.raises(BundleError, match=problem):
        kit.bundle.load(copy, engine="torch")


def test_row_9_a_vocabulary_of_another_length_is_refused_even_if_its_hash_fits(run, tmp_path):
    vocab = ["circle", "square"]
    copy = copy_of(run, tmp_path, vocab=vocab, vocab_sha256=vocab_hash(vocab), metrics=run.evaluation.figures())
    for engine in ("onnx", "torch"):
        with pytest.raises(BundleError, match="for other classes, or in another order"):
            kit.bundle.load(copy, engine=engine)


def test_row_9_a_link_that_leads_out_of_the_bundle_is_refused(run, tmp_path):
    copy = copy_of(run, tmp_path)
    (copy / "README.md").rename(tmp_path / "elsewhere.md")
    (copy / "README.md").symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(BundleError, match="names 'README.md', which leads out of the bundle"):
        kit.bundle.load(copy)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_row_10_weights_of_another_class_order_are_refused_by_the_vocabularys_hash(run, tmp_path, engine):
    vocab = ["square", "circle", "triangle"]
    copy = copy_of(run, tmp_path, vocab=vocab, vocab_sha256=vocab_hash(vocab))
    with pytest.raises(BundleError, match="for other classes, or in another order"):
        kit.bundle.load(copy, engine=engine)
    with pytest.raises(WeightsError, match="for other classes, or in another order"):
        start_from(copy, "test_resnet")
