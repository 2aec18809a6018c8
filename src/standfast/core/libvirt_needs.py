"""What a guest needs of the host that it is to move to, read from its definition and from that host."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from standfast.core.jobs import NotUnderstood
from standfast.core.libvirt import number


@dataclass(frozen=True)
class Needs:
    """What a guest needs of a host. `memory_kib` None: not from free memory (huge pages)."""

    memory_kib: int | None
    compare_cpu: bool
    """Whether its CPU is named; host-passthrough, and a domain without a CPU, cannot be compared."""
    cpu_words: tuple[str, ...]
    """Options of `virsh hypervisor-cpu-compare`."""
    networks: tuple[str, ...] = ()
    """libvirt's networks that it has an interface in. Bridges of the host's own are not told by libvirt."""


def needs(domain: Element) -> Needs:
    """Read `virsh dumpxml`. Raises NotUnderstood."""
    memory = domain.find("memory")
    if domain.tag != "domain" or memory is None or memory.get("unit", "KiB") != "KiB":
        raise NotUnderstood("no <domain> with its memory in KiB")
    amount = number((memory.text or "").strip())
    if amount is None:
        raise NotUnderstood(f"memory {memory.text!r}")
    cpu, kind, emulator = domain.find("cpu"), domain.find("os/type"), domain.find("devices/emulator")
    words = ["--virttype", domain.get("type", "")]
    if kind is not None:
        words += ["--arch", kind.get("arch", ""), "--machine", kind.get("machine", "")]
    if emulator is not None and emulator.text:
        words += ["--emulator", emulator.text]
    return Needs(
        memory_kib=None if domain.find("memoryBacking/hugepages") is not None else amount,
        compare_cpu=cpu is not None and cpu.find("model") is not None and "" not in words,
        cpu_words=tuple(words),
        networks=tuple(sorted(_networks(domain))),
    )


def _networks(domain: Element) -> set[str]:
    sources = (one.find("source") for one in domain.iterfind("devices/interface[@type='network']"))
    return {source.get("network", "") for source in sources if source is not None} - {""}


def maximum_memory_bytes(text: str) -> int | None:
    """The `Max memory` of `virsh dominfo`; None: it does not say, or not in KiB."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if key.strip() == "Max memory" and len(words) == 2 and words[1] == "KiB":
            amount = number(words[0])
            return None if amount is None else 1024 * amount
    return None


def free_memory_kib(text: str) -> int | None:
    """What `virsh nodememstats` shows as free or quickly freed; None: it does not say."""
    pairs = (line.partition(":") for line in text.splitlines())
    found = {key.strip(): value.split() for key, colon, value in pairs if colon}
    values = [found.get(key, []) for key in ("free", "buffers", "cached")]
    if not all(len(value) == 2 and value[1] == "KiB" and value[0].isdigit() for value in values):
        return None
    return sum(int(value[0]) for value in values)
