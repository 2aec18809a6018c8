"""A guest as libvirt defines it."""

from __future__ import annotations

import uuid

from standfast.lab.vm import emulator, layout
from standfast.lab.vm.layout import INSIDE, VmSpec, number_of
from standfast.lab.vm.wires import BRIDGE

_EMULATED_CPU = (
    "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model>"
    # Feeds the random pool, or sshd and TLS wait for it.
    "<feature policy='require' name='rdrand'/></cpu>"
)
_REAL_CPU = "<cpu mode='host-passthrough'/>"


def xml(spec: VmSpec, guest: str) -> str:
    """The domain: its state is in its memory alone, so that a migration moves nothing else.

    The disks are read-only and shareable: libvirt then needs no shared storage for a live migration.
    """
    number = number_of(guest)
    kind, cpu = ("kvm", _REAL_CPU) if spec.accelerator == "kvm" else ("qemu", _EMULATED_CPU)
    # Under emulation a page table change at each system call, against Meltdown, costs most of the time; and
    # QEMU before 8 translates a program anew for each address at which it is loaded (norandmaps: always one).
    command_line = (
        "console=ttyS0 quiet panic=0 random.trust_cpu=on mitigations=off norandmaps no_timer_check "
        f"lab.node={layout.node_name(number)} lab.address={layout.guest_address(number)}"
    )
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{INSIDE}/{file}'/>"
        f"<target dev='{device}' bus='virtio'/><readonly/><shareable/></disk>\n"
        for device, file in (("vda", "image/root.ext4"), ("vdb", "python.ext4"), ("vdc", "shared/seed.ext4"))
    )
    return f"""<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>{guest}</name>
<uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, f"{guest}.{spec.group}")}</uuid>
<memory unit='MiB'>{spec.memory_mib}</memory>
<vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{INSIDE}/image/vmlinuz</kernel>
<initrd>{INSIDE}/image/initramfs.gz</initrd><cmdline>{command_line}</cmdline></os>
<features><acpi/></features>
{cpu}
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices><emulator>{INSIDE}/own/bin/{emulator.NAME}</emulator>
{disks}<interface type='bridge'><source bridge='{BRIDGE}'/><mac address='{layout.mac_address(number)}'/>
<model type='virtio'/><rom enabled='no'/></interface>
<serial type='file'><source path='{INSIDE}/shared/{guest}.console' append='on'/></serial>
<memballoon model='none'/><panic model='isa'/></devices>
<qemu:commandline><qemu:arg value='-qmp'/>
<qemu:arg value='unix:{INSIDE}/own/{guest}.qmp,server=on,wait=off'/></qemu:commandline>
</domain>
"""
