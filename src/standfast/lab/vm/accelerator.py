"""KVM where a guest really boots with it, emulation everywhere else.

That /dev/kvm can be opened proves nothing: seen, a kernel whose KVM makes a machine in which no guest boots.
"""

from __future__ import annotations

import os
from pathlib import Path

from standfast.lab.process import run
from standfast.lab.vm import cache
from standfast.lab.vm.image import Image
from standfast.lab.vm.layout import Accelerator

PROBE_LIMIT_SECONDS = 10.0
_SAID = "LAB-PROBE-OK"


def choose(image: Image) -> Accelerator:
    """Boot the probe under KVM; the answer is kept until this machine boots again."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def probe(directory: Path) -> None:
        (directory / "accelerator").write_text("kvm" if boots_under_kvm(image) else "tcg")

    kept = cache.entry(f"accelerator-{boot}", probe) / "accelerator"
    return "kvm" if kept.read_text() == "kvm" else "tcg"


def boots_under_kvm(image: Image) -> bool:
    """Whether a guest gets as far as its first program under KVM within 10 s."""
    if not os.access("/dev/kvm", os.W_OK):
        return False
    argv = [
        "setpriv", "--pdeathsig=KILL", "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "256",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
        "-append", "console=ttyS0 quiet panic=-1 lab.probe",
    ]  # fmt: skip
    return _SAID in run(argv, limit_seconds=PROBE_LIMIT_SECONDS).stdout
