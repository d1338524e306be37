"""Start app.py and compare its answers with those recorded in smoke.json: python smoke.py

It exits with 1 where an answer differs, and says which.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from gradio_client import Client, handle_file
from tasks import of

HERE = Path(__file__).parent
TOLERANCE = 1e-3
PATIENCE = 120


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(address: str, app: subprocess.Popen) -> Client:
    """A client of the app, as soon as it listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(address, verbose=False)
        except Exception:
            if app.poll() is not None or time.monotonic() > end:
                raise SystemExit("app.py did not start") from None
            time.sleep(0.2)


def same(said: object, recorded: object, width: dict[str, float], near: float = TOLERANCE) -> bool:
    """Whether two answers agree: numbers within TOLERANCE of their `width` (1 for probabilities), all else equal."""
    if isinstance(said, dict) and isinstance(recorded, dict):
        pairs = [(said[name], value, width.get(name, 1)) for name, value in recorded.items() if name in said]
        return len(pairs) == len(recorded) and all(same(a, b, width, TOLERANCE * size) for a, b, size in pairs)
    if isinstance(said, float) and isinstance(recorded, float):
        return abs(said - recorded) <= near
    return said == recorded


def main() -> int:
    """How many answers differ, as an exit status."""
    recorded = json.loads((HERE / "smoke.json").read_text(encoding="utf-8"))
    model = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
    width = {name: high - low for name, (low, high) in of(model["task"]).ranges(model).items()}
    port = free_port()
    settings = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    app = subprocess.Popen([sys.executable, HERE / "app.py"], env=os.environ | settings, stdout=subprocess.DEVNULL)
    try:
        client = connect(f"http://127.0.0.1:{port}", app)
        wrong = 0
        for name, expected in recorded.items():
            said = client.predict(handle_file(str(HERE / name)), api_name="/predict")
            if not same(said, expected, width):
                wrong += 1
                print(f"{name}: {said}; recorded was {expected}")
    finally:
        app.terminate()
        app.wait()
    print(f"{len(recorded) - wrong} of {len(recorded)} answers as recorded")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
