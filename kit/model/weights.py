"""Where pretrained weights come from: a file, a bundle, kit's own, the libraries' caches, or their servers.

start = load_weights(network, body, find_architecture("resnet18"), "imagenet")
start.origin                                     # 'imagenet: resnet18-f37072fd.pth'
"""

import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from kit.console import say
from kit.errors import ArchitectureError, FetchError, KitError, OutputError, WeightsError
from kit.fetch import Digest, Source, download
from kit.files import packaged, sha256
from kit.manifest import WEIGHTS, find_bundle, read_config
from kit.model.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture

BUNDLED = {"resnet18": "resnet18-cifar10.safetensors"}
CONNECT_SECONDS = 5
Figures = tuple[float, ...]


@dataclass(frozen=True)
class Start:
    """What a network starts from: where its weights came from, the normalisation they expect, the file's SHA-256.

    `asked` is what the recipe wanted; where it differs from what came (`kind`), `note` says why.
    """

    asked: str
    kind: str
    origin: str
    mean: Figures = IMAGENET_MEAN
    std: Figures = IMAGENET_STD
    sha256: str | None = None
    note: str | None = None

    @property
    def pretrained(self) -> bool:
        """Whether anything was learned before."""
        return self.kind != "none"


def load_weights(network: nn.Module, body: nn.Module, architecture: Architecture, weights: str) -> Start:
    """Fill `network`, and with it the `body` cut from it, with what a recipe's `weights` means; say where it came from.

    weights: "imagenet", "bundled", "none", the path of a .safetensors or .pth file, or of a bundle's folder.
    Where ImageNet weights cannot be had, resnet18 falls back to bundled, with a line that says so; any other network
    stops with `WeightsError`, which names the file and where to put it.
    """
    if weights == "none":
        return Start("none", "none", "random numbers")
    if weights == "bundled":
        return _bundled(network, architecture)
    if weights == "imagenet":
        return _imagenet_or_bundled(network, architecture)
    path = Path(weights).expanduser()
    if path.is_dir():
        return _from_bundle(body, architecture, path)
    if path.is_file():
        return _from_file(network, architecture, path)
    problem = f"weights {weights!r}: neither a file nor a bundle's folder, nor one of imagenet, bundled, none"
    raise WeightsError(problem, fix="correct the path, or choose --weights imagenet")


def _bundled(network: nn.Module, architecture: Architecture) -> Start:
    if architecture.full_name not in BUNDLED:
        problem = f"no weights are bundled for {architecture.full_name}; they are for: {', '.join(BUNDLED)}"
        raise WeightsError(problem, fix="--arch resnet18, or another --weights")
    path = packaged("weights") / BUNDLED[architecture.full_name]
    if not path.is_file():
        raise WeightsError(f"the bundled weights {path} are missing", fix="install kit again")
    return replace(
        _from_file(network, architecture, path), asked="bundled", kind="bundled", origin=f"bundled: {path.name}"
    )


def _imagenet_or_bundled(network: nn.Module, architecture: Architecture) -> Start:
    try:
        return (
            _torchvision(network, architecture)
            if architecture.library == "torchvision"
            else _timm(network, architecture)
        )
    except (FetchError, OutputError) as error:
        if architecture.full_name not in BUNDLED:
            raise WeightsError(
                f"no ImageNet weights for {architecture.full_name}: {error.problem}", fix=_fix(error)
            ) from error
        note = "ImageNet weights could not be had; kit's own, learned on CIFAR-10, were taken: expect a higher error"
        say(f"note: {note}\n  Fix: {error.fix}")
        return replace(_bundled(network, architecture), asked="imagenet", note=note)


def _fix(error: KitError) -> str:
    return f"{error.fix}; or --weights none, or --arch resnet18, which has bundled weights"


def _torchvision(network: nn.Module, architecture: Architecture) -> Start:
    """torchvision's default weights, from its cache or its server; the file's name holds the start of its SHA-256."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(architecture.name).DEFAULT
    name = weights.url.rsplit("/", 1)[-1]
    digest = Digest("sha256", name.rsplit("-", 1)[-1].removesuffix(".pth"))
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    path = download([Source(weights.url, digest)], cache / name, f"the ImageNet weights of {architecture.name}")
    figures = weights.transforms()
    start = _from_file(network, architecture, path)
    return replace(
        start,
        asked="imagenet",
        kind="imagenet",
        origin=f"imagenet: {name}",
        mean=tuple(figures.mean),
        std=tuple(figures.std),
    )


def _timm(network: nn.Module, architecture: Architecture) -> Start:
    """timm's default weights for the name: from the Hugging Face cache, or from the hub; read by timm's own rules."""
    import timm

    config = network.pretrained_cfg
    path = _hub_file(config.get("hf_hub_id"), architecture)
    trained = timm.create_model(
        architecture.name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(path)}
    )
    network.load_state_dict(trained.state_dict())
    figures = {"mean": tuple(config["mean"]), "std": tuple(config["std"])}
    return Start("imagenet", "imagenet", f"timm: {config['hf_hub_id']}", sha256=sha256(path), **figures)


def _hub_file(repository: str | None, architecture: Architecture) -> Path:
    """model.safetensors of a Hugging Face repository: from the cache, else fetched, if the hub answers at all."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, what = "model.safetensors", f"the pretrained weights of {architecture.full_name} are"
    if not repository:
        raise FetchError(f"{what} not on the Hugging Face hub", fix="give a file as --weights PATH")
    try:
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        address = urlsplit(constants.ENDPOINT)
    fix = f'get "{name}" of {repository} by hand ({constants.ENDPOINT}/{repository}) and say --weights PATH'
    try:
        if not getproxies().get(address.scheme):
            # One look first: the hub's client would try for most of a minute.
            socket.create_connection((address.hostname, address.port or 443), timeout=CONNECT_SECONDS).close()
        return Path(hf_hub_download(repository, name))
    except (OSError, HfHubHTTPError) as error:
        problem = f"{what} not in the cache, and {address.hostname} did not give them ({type(error).__name__})"
        raise FetchError(problem, fix=fix) from error


def _from_file(network: nn.Module, architecture: Architecture, path: Path) -> Start:
    """Weights from a .safetensors file, or a .pth file read without running any code in it."""
    tensors, facts = read_tensors(path)
    _fill(network, tensors, path)
    mean, std = (tuple(json.loads(facts[name])) if name in facts else None for name in ("mean", "std"))
    return Start(
        str(path),
        "file",
        str(path),
        mean or _own_figures(network, "mean"),
        std or _own_figures(network, "std"),
        sha256(path),
    )


def _own_figures(network: nn.Module, name: str) -> Figures:
    """The normalisation that a network's own configuration states; ImageNet's where it states none."""
    default = IMAGENET_MEAN if name == "mean" else IMAGENET_STD
    return tuple(getattr(network, "pretrained_cfg", {}).get(name) or default)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weights file by name, and its text metadata. `WeightsError` names a damaged or unsafe file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        problem = f"{path} cannot be read as weights ({str(error).splitlines()[0][:200]})"
        raise WeightsError(problem, fix="give a .safetensors file, or a .pth file that holds tensors only") from error
    for key in ("state_dict", "model"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict", fix="save model.state_dict(), best as .safetensors")
    return loaded, {}


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load all tensors but the classifier's; every other one must be there and fit."""
    own = network.state_dict()
    classifiers = ("fc.", "head.", "classifier.")
    wanted = {name for name in own if not name.startswith("fc.")}
    missing = sorted(name for name in wanted if name not in tensors)
    strange = sorted(name for name in tensors if name not in own and not name.startswith(classifiers))
    bent = sorted(name for name in wanted if name in tensors and tensors[name].shape != own[name].shape)
    for what, names in (("lacks", missing), ("has also", strange), ("has in another shape", bent)):
        if names:
            problem = f"{path} is of another network: it {what} {len(names)} tensors ({', '.join(names[:3])}, ...)"
            raise WeightsError(problem, fix="give the weights of the network that --arch names")
    _check_finite({name: tensors[name] for name in wanted}, path)
    network.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    broken = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor.float()).all())
    if broken:
        raise WeightsError(f"{path} holds values that are not finite ({broken[0]})", fix="get the file again")


def _from_bundle(body: nn.Module, architecture: Architecture, path: Path) -> Start:
    """The body of a bundle of ours, to go on from what it learned; its head stays behind."""
    folder = find_bundle(path)
    config = read_config(folder)
    name, image = config["architecture"]["name"], config["image"]
    if name != architecture.full_name:
        raise ArchitectureError(f"{folder} holds {name}, not {architecture.full_name}", fix=f"--arch {name}")
    tensors, _ = read_tensors(folder / WEIGHTS)
    _check_finite(tensors, folder / WEIGHTS)
    body.load_state_dict({name[2:]: tensor for name, tensor in tensors.items() if name.startswith("0.")})
    digest = config["files"][WEIGHTS]
    return Start(str(path), "bundle", f"bundle: {path}", tuple(image["mean"]), tuple(image["std"]), digest)
