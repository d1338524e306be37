"""Is there room: cores, memory, limits, disk, kit's own files, and the way to the network?

about_machine(facts); about_files(facts); about_network(facts)
"""

from collections.abc import Iterator

from kit.doctor import mends
from kit.doctor.facts import GB, Facts, Finding, Host, Place, fine, note, size, wrong
from kit.recipe import Recipe

PREFETCH = 2
FLOAT_BYTES = 4
LITTLE_DISK, NO_DISK = 5 * GB, GB
LITTLE_MEMORY, NO_MEMORY = 4 * GB, 2 * GB
FEW_OPEN_FILES = 1024
ACTIONS = {"missing": "is missing", "changed": "is not what it was (its SHA-256 differs)"}


def about_precision(facts: Facts) -> Iterator[Finding]:
    """What arithmetic `--precision auto` takes here."""
    if chosen := facts.torch.precision.get(facts.torch.device):
        yield fine("precision", f"{chosen}, on {facts.torch.device}")


def about_unseen(facts: Facts) -> Iterator[Finding]:
    """What could not be looked at, and so is not judged."""
    for text in facts.unseen:
        yield note("doctor", f"could not look at {text}", "the lines about it are missing here; mend that error first")


def about_machine(facts: Facts) -> Iterator[Finding]:
    """Cores, threads, memory, shared memory, open files."""
    machine = facts.machine
    allowed = f"{machine.allowed:g} of {machine.cores}" if machine.allowed < machine.cores else f"{machine.cores}"
    threads = f", {facts.torch.threads} threads" if facts.torch.threads else ""
    yield fine("cores", f"{allowed}{threads}")
    yield from _cores(facts)
    yield from _memory(facts)
    yield from _shared_memory(facts)
    if machine.open_files is not None and machine.open_files < FEW_OPEN_FILES:
        what = f"{machine.open_files} at once: loading processes may stop with 'Too many open files'"
        yield note("open files", what, "ulimit -n 4096   (for good: in ~/.bashrc or ~/.zshrc)")


def _cores(facts: Facts) -> Iterator[Finding]:
    """Threads and loading processes against the cores that may be used: more of them wait for each other."""
    allowed, threads = facts.machine.allowed, facts.torch.threads
    share = max(1, int(allowed))
    if threads > max(2.0, 1.5 * allowed):
        what = f"torch takes {threads} threads where {allowed:g} cores may be used: they wait for each other"
        yield note("cores", what, mends.put(facts, "OMP_NUM_THREADS", str(share)))
    elif facts.system.variables.get("OMP_NUM_THREADS") == "1" and share > 1:
        what = f"OMP_NUM_THREADS=1 leaves {share - 1} of {share} cores idle"
        yield note("cores", what, mends.unset(facts, "OMP_NUM_THREADS"))
    if facts.torch.workers > max(2, 2 * share):
        what = f"kit would load images with {facts.torch.workers} processes where {allowed:g} cores may be used"
        yield note("workers", what, f"--workers {share}")


def _memory(facts: Facts) -> Iterator[Finding]:
    total, available = facts.machine.memory, facts.machine.available
    if total is None:
        return
    text = size(total) + (f", {size(available)} of it free" if available is not None else "")
    if total < NO_MEMORY:
        yield wrong(
            "memory", f"{text}: too little to train", "raise the container's limit, or take a machine with 8 GB"
        )
    elif (total if available is None else available) < LITTLE_MEMORY:
        yield note("memory", f"{text}: little to train with", "--batch 16 --workers 0, or end other programs")
    else:
        yield fine("memory", text)


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    """/dev/shm, through which loading processes hand over batches; docker gives 64 MB, and when full: a bus error."""
    free, workers = facts.machine.shared_memory, facts.torch.workers
    if free is None or not workers:
        return
    recipe = Recipe()
    needed = workers * PREFETCH * recipe.batch * 3 * recipe.size**2 * FLOAT_BYTES
    if free < needed:
        what = f"/dev/shm has {size(free)} free; {workers} loading processes need {size(needed)}, else: 'Bus error'"
        grow = "docker run --shm-size 2g ..." if facts.system.container else "sudo mount -o remount,size=2G /dev/shm"
        yield wrong("shared memory", what, f"{grow}   (or: --workers 0)")
    else:
        yield fine("shared memory", f"{size(free)} in /dev/shm, {size(needed)} needed for {workers} loading processes")


def about_files(facts: Facts) -> Iterator[Finding]:
    """The folders that kit writes to, and the files that it came with."""
    for place in facts.places:
        yield from _place(facts, place)
    for file in facts.shipped:
        if file.state != "whole":
            git = "git checkout -- data   (in kit's repository)"
            mend = git if facts.system.source else mends.again(facts, "PATH_OF_KITS_WHEEL")
            yield wrong("kit's files", f"{file.name} {ACTIONS[file.state]}", mend)
    if facts.shipped and all(file.state == "whole" for file in facts.shipped):
        yield fine("kit's files", ", ".join(file.name for file in facts.shipped))


def _place(facts: Facts, place: Place) -> Iterator[Finding]:
    """A folder: may it be written, is there room on its disk? Where a variable moves it, the mend names that."""
    taken = "" if place.size is None else f", {'' if place.counted else 'more than '}{size(place.size)}"
    if not place.writable:
        yield wrong(place.name, f"{place.path} cannot be written", _elsewhere(facts, place, "A_FOLDER_OF_YOURS"))
    elif place.free < LITTLE_DISK:
        verdict = wrong if place.free < NO_DISK else note
        what = f"{place.path}{taken}; its disk has only {size(place.free)} free"
        yield verdict(place.name, what, f"make room, or: {_elsewhere(facts, place, 'A_FOLDER_ON_ANOTHER_DISK')}")
    else:
        yield fine(place.name, f"{place.path}{taken}; {size(place.free)} free")


def _elsewhere(facts: Facts, place: Place, folder: str) -> str:
    return mends.put(facts, place.variable, folder) if place.variable else f"cd {folder}"


def about_network(facts: Facts) -> Iterator[Finding]:
    """Proxies, offline mode, and the hosts where they were asked."""
    outward = {scheme: host for scheme, host in facts.proxies.items() if scheme in ("http", "https", "all")}
    if outward:
        yield fine("proxy", ", ".join(f"{scheme} by {host}" for scheme, host in sorted(outward.items())))
        direct = facts.proxies.get("no", "")
        if outward.keys() != {"https"} and not any(word in direct for word in ("localhost", "127.0.0.1", "*")):
            what = "requests to this machine itself go to the proxy too: programs here cannot ask kit serve"
            yield note("proxy", what, mends.put(facts, "NO_PROXY", "localhost,127.0.0.1"))
    if facts.system.variables.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield note("network", "HF_HUB_OFFLINE is set: nothing comes from the Hub", mends.unset(facts, "HF_HUB_OFFLINE"))
    if facts.hosts is None:
        yield fine("network", "not asked (kit doctor --network asks the hosts that downloads come from)")
    for host in facts.hosts or ():
        yield _host(facts, host, any(not other.error for other in facts.hosts))


def _host(facts: Facts, host: Host, connected: bool) -> Finding:
    """One host; a name that is not found means no network, unless others answered."""
    name, text = "network", f"{host.name} ({host.use})"
    if not host.error:
        return fine(name, f"{text} answers ({host.answer})")
    what = f"{text}: {host.error}"
    if "certificate" in host.error:
        if facts.system.name == "Darwin":
            version = ".".join(facts.python.version.split(".")[:2])
            return wrong(name, what, f'open "/Applications/Python {version}/Install Certificates.command"')
        mend = f"{mends.put(facts, 'SSL_CERT_FILE', 'YOUR_COMPANYS_CERTIFICATES.pem')}   (never switch the check off)"
        return wrong(name, what, mend)
    if "407" in host.error:
        return wrong(name, what, mends.put(facts, "HTTPS_PROXY", "http://NAME:PASSWORD@PROXY:PORT"))
    unnamed = any(text in host.error for text in ("Name or service", "getaddrinfo", "name resolution", "nodename"))
    if unnamed and not connected:
        mend = "no name is found: connect this machine, or name your proxy: "
        return wrong(name, what, mend + mends.put(facts, "HTTPS_PROXY", "http://PROXY:PORT"))
    mend = f"let your firewall or proxy pass {host.name}, or bring the files by hand: kit says which go where"
    return wrong(name, what, mend)
