"""The program that each host's libvirtd starts as QEMU: it puts two things right, then becomes QEMU."""

from standfast.lab.vm.layout import VmSpec

NAME = "qemu-system-x86_64"
NICE = -10
_ODD_BYTES = 8192
_PAGES_OF_A_WORD = 64
_PAGE_BYTES = 4096


def program(spec: VmSpec) -> str:
    """A shell script. It must come first in libvirtd's PATH and be the domains' emulator.

    Time: an emulated guest that waits for a compiler misses its heartbeats (those of corosync outside guests
    are real-time). The kernel shares time among sessions (sched(7), "The autogroup feature"), and libvirt
    starts each guest in one of its own, so that its niceness alone says nothing.

    Memory: before QEMU 9.0 an emulated guest writes without a trace to pages that were copied already, if its
    memory is a multiple of 64 pages. (Fixed there by "physmem: Fix migration dirty bitmap coherency with TCG
    memory access", which Debian 12's 7.2.22 does not have.) Seen: kernel panics in the timers' tree right
    after a migration. So the guest gets 8 KiB more, which libvirt itself would round, and QEMU takes its
    other, slower way.
    """
    lines = ["#!/bin/sh", f"echo {NICE} >/proc/self/autogroup 2>/dev/null"]
    if spec.accelerator == "tcg":
        asked = spec.memory_mib * 1024 * 1024
        given = odd_bytes(asked)
        lines += [
            "previous=",
            'for word in "$@"; do',
            "  shift",
            "  case $previous$word in",
            f"  -m{spec.memory_mib}) word={given // 1024}k ;;",
            f"""  *'"id":"pc.ram","size":{asked}'*) word=${{word%%{asked}*}}{given}${{word##*{asked}}} ;;""",
            "  esac",
            '  set -- "$@" "$word"',
            "  previous=$word",
            "done",
        ]
    return "\n".join([*lines, f'exec nice -n {NICE} /usr/bin/{NAME} "$@"']) + "\n"


def odd_bytes(asked: int) -> int:
    """The next size that is no multiple of 64 pages; QEMU wants one of 8 KiB."""
    given = asked + _ODD_BYTES
    return given if given % (_PAGES_OF_A_WORD * _PAGE_BYTES) else given + _ODD_BYTES
