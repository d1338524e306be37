"""How `kit serve` answers: ready when, one image, 50 users at once, health at 200, thousands of requests. Run by hand.

python tests/bench/serve.py                            # resnet34, 224 pixels, random weights
python tests/bench/serve.py --bundle runs/pets --requests 5000

One image goes through REST in turn with the same image in this process: through the engine alone (prepared pixels in,
probabilities out) and through the predictor (the file's bytes in). Beside it `gradio.Interface` with a fastai Learner,
called as `gradio_client` calls kit's page; the last line is how many times longer that takes than a call of REST.
"""

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from bundles import sample, untrained

from kit.cli.script import script

USERS, AT_ONCE, WARM_UP = 50, 4, 200
CROWD, HEALTH_SECONDS = 200, 10
PROBE = """
import http.client, statistics, sys, time
seen, end = [], time.perf_counter() + int(sys.argv[2]) - 1
while time.perf_counter() < end:
    begun, connection = time.perf_counter(), http.client.HTTPConnection(sys.argv[1])
    connection.request("GET", "/v2/health/ready")
    connection.getresponse().read()
    connection.close()
    seen.append(1000 * (time.perf_counter() - begun))
    time.sleep(0.05)
p50, p95 = statistics.median(seen), statistics.quantiles(seen, n=20)[-1]
print(f"/v2/health/ready: p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {max(seen):.0f} ms of {len(seen)}")
"""
INTERFACE = """
import sys, time
import gradio as gr
from fastai.vision.all import load_learner

learn = load_learner(sys.argv[1])

def classify(image):
    with learn.no_bar():
        _, _, probabilities = learn.predict(image)
    return dict(zip(map(str, learn.dls.vocab), map(float, probabilities)))

demo = gr.Interface(classify, gr.Image(), gr.Label(), api_name="predict", analytics_enabled=False)
print("ready:", demo.launch(server_port=0, prevent_thread_lock=True, quiet=True)[1].rstrip("/"), flush=True)
demo.block_thread()
"""


@contextmanager
def server(command: list[str]) -> Iterator[tuple[subprocess.Popen, str, float]]:
    """A server as a process of its own, its address, and the seconds until it was ready."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next((line for line in process.stdout if line.startswith("ready: ")), None)
        if line is None:
            raise SystemExit(f"{' '.join(command[:4])} never became ready")
        yield process, line.split()[1], time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


class Client:
    """One user: a connection that is kept, and one photo."""

    def __init__(self, address: str, photo: bytes):
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
        self.photo = photo

    def __call__(self) -> int:
        """Ask once; the status of the answer."""
        self.connection.request("POST", "/v1/predict", self.photo, {"Content-Type": "image/jpeg"})
        answer = self.connection.getresponse()
        body = json.loads(answer.read())
        if answer.status == 200 and not body["predictions"][0]["label"]:
            raise SystemExit(f"no answer: {body}")
        return answer.status


def milliseconds(functions: dict[str, Callable[[], object]], times: int) -> dict[str, list[float]]:
    """How long each takes, in turn, after a warm-up."""
    seen: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(times + 5):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if turn >= 5:
                seen[name].append(1000 * (time.perf_counter() - begun))
    return seen


def one_image(address: str, bundle: Path, photo: Path, times: int) -> float:
    """Print what one image takes, and return REST's median."""
    from kit.bundle import load

    predictor, data = load(bundle), photo.read_bytes()
    pixels = predictor.prepare(data)[None]
    ways = {
        "engine alone": lambda: predictor.engine(pixels),
        "predictor.predict": lambda: predictor.predict(data),
        "REST": Client(address, data),
    }
    seen = milliseconds(ways, times)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, values in seen.items():
        p95 = statistics.quantiles(values, n=20)[-1]
        print(f"one image, {name:20} p50 {medians[name]:.1f} ms, p95 {p95:.1f} ms")
    for name in ("engine alone", "predictor.predict"):
        print(f"REST / {name}: {medians['REST'] / medians[name]:.2f}x")
    return medians["REST"]


def together(users: int, work: Callable[[int], None]) -> float:
    """Seconds until `work` is done for each user, in threads that begin at the same moment."""
    barrier = threading.Barrier(users + 1)

    def one(number: int) -> None:
        barrier.wait()
        work(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def fifty_users(address: str, data: bytes) -> None:
    """Print how many of 50 users who ask at once are served, and how soon the others are told."""
    clients, status, refused = [Client(address, data) for _ in range(USERS)], [], []

    def ask(number: int) -> None:
        begun = time.perf_counter()
        status.append(clients[number]())
        if status[-1] == 503:
            refused.append(time.perf_counter() - begun)

    took = together(USERS, ask)
    told = f", told within {max(refused):.2f} s" if refused else ""
    print(f"{USERS} users at once: {dict(Counter(status))} in {took:.2f} s{told}")


def health(address: str, data: bytes) -> None:
    """Print how long /v2/health/ready takes while many users ask without a pause. Another process measures it."""
    end, status = time.perf_counter() + HEALTH_SECONDS, []

    def ask(number: int) -> None:
        client = Client(address, data)
        while time.perf_counter() < end:
            status.append(client())

    probe = [sys.executable, "-c", PROBE, address.removeprefix("http://"), str(HEALTH_SECONDS)]
    with subprocess.Popen(probe):
        together(CROWD, ask)
    print(f"meanwhile, {CROWD} users: {dict(Counter(status))}")


def many_requests(process: subprocess.Popen, address: str, data: bytes, count: int) -> None:
    """Print images a second over `count` requests by a few users, and by how much the server's memory grew."""

    def ask(times: int) -> Callable[[int], None]:
        def work(number: int) -> None:
            client = Client(address, data)
            for _ in range(times):
                if (status := client()) != 200:
                    raise SystemExit(f"status {status}")

        return work

    together(AT_ONCE, ask(WARM_UP // AT_ONCE))
    before = memory(process)
    took = together(AT_ONCE, ask(count // AT_ONCE))
    after = memory(process)
    print(f"{count} requests by {AT_ONCE} users: {count / took:.1f} images/s")
    print(f"memory {before:.0f} MiB before, {after:.0f} MiB after: {after / before - 1:+.1%}")


def memory(process: subprocess.Popen) -> float:
    """The memory that a process has, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1024


def through_gradio(address: str, export: Path, photo: Path, times: int) -> float:
    """Print what `gradio_client` waits for kit's page and for `gradio.Interface`, and return the latter's median."""
    from gradio_client import Client as GradioClient
    from gradio_client import handle_file

    with server([sys.executable, "-c", INTERFACE, str(export)]) as (_, other, seconds):
        print(f"gradio.Interface with a fastai Learner: ready after {seconds:.1f} s")
        clients = {
            "kit's page": GradioClient(address, verbose=False),
            "gradio.Interface": GradioClient(other, verbose=False),
        }
        ways = {
            name: lambda client=client: client.predict(handle_file(str(photo)), api_name="/predict")
            for name, client in clients.items()
        }
        medians = {name: statistics.median(values) for name, values in milliseconds(ways, times).items()}
    for name, value in medians.items():
        print(f"gradio_client, {name:18} p50 {value:.1f} ms")
    page, interface = medians.values()
    print(f"gradio.Interface / kit's page: {interface / page:.1f}x")
    return interface


def main(
    bundle: Annotated[Path | None, typer.Option(help="serve this bundle, without fastai beside it")] = None,
    image: Annotated[Path | None, typer.Option(help="a photo (JPEG); by default a drawing")] = None,
    arch: str = "resnet34",
    size: int = 224,
    times: int = 100,
    requests: int = 5000,
):
    """Print all of it."""
    photo = image or Path(sample(1)[0])
    with ExitStack() as stack:
        folder = bundle or stack.enter_context(untrained(arch, size)) / "bundle"
        command = [sys.executable, "-m", "kit.cli.main", "serve", str(folder), "--port", "0"]
        process, address, seconds = stack.enter_context(server(command))
        print(f"kit serve: ready after {seconds:.1f} s", flush=True)
        rest = one_image(address, folder, photo, times)
        fifty_users(address, photo.read_bytes())
        health(address, photo.read_bytes())
        many_requests(process, address, photo.read_bytes(), requests)
        if not bundle:
            print(f"{through_gradio(address, folder.parent / 'export.pkl', photo, times) / rest:.1f}x")


if __name__ == "__main__":
    script(main)
