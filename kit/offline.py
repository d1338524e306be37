"""Whether the network may be asked at all: KIT_OFFLINE=1, HF_HUB_OFFLINE=1 or --offline forbid every request.

offline()                                        # 'KIT_OFFLINE=1', or None
"""

import os

SWITCHES = ("KIT_OFFLINE", "HF_HUB_OFFLINE")
YES = ("1", "ON", "YES", "TRUE")


def offline() -> str | None:
    """The environment variable that forbids every request, as "KIT_OFFLINE=1"; None where the network may be asked.

    HF_HUB_OFFLINE is Hugging Face's own; whoever sets it has no network, so that kit asks nobody else either.
    """
    values = ((name, os.environ.get(name, "")) for name in SWITCHES)
    return next((f"{name}={value}" for name, value in values if value.upper() in YES), None)


def go_offline() -> None:
    """From here on nothing is asked of the network, by kit, by Hugging Face's client, or by a process started later."""
    os.environ.update(dict.fromkeys(SWITCHES, "1"))
