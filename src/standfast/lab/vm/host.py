"""One host of a lab: a machine with libvirtd and sshd, on which real guests run."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from standfast.cluster.run import Result
from standfast.lab.errors import LabError
from standfast.lab.machine import Machine
from standfast.lab.vm import emulator, layout, seed
from standfast.lab.vm.layout import VmSpec, host_dir, number_of

READY_LIMIT_SECONDS = 40.0
VIRSH_LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.1
_FOLDERS = ("etc", "var/lib", "var/log", "var/cache")
"""Where a host has files of its own, and where libvirt keeps its."""
ON_STATES = ("running", "blocked", "idle", "no state", "paused", "in shutdown", "pmsuspended")
"""What `virsh domstate` says of a domain that has a QEMU."""
_ROOT_HOME = re.compile(r"^(root:(?:[^:\n]*:){4})[^:\n]*:", re.MULTILINE)
"""passwd(5)."""


@dataclass(frozen=True)
class Host(Machine):
    """A host of the lab below `root`."""

    spec: VmSpec

    kind = "host"
    init = Path(__file__).with_name("host_init.py")

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return number_of(self.name)

    @property
    def directory(self) -> Path:
        """Everything that outlives the host's power: the guests' definitions too."""
        return host_dir(self.root, self.name)

    @property
    def own(self) -> Path:
        """What the host sees as /run/lab/own."""
        return self.directory / "own"

    def prepare(self) -> None:
        """Lay out the configuration of a host without guests."""
        own, disk, libvirt = self.own, self.directory / "disk", self.directory / "libvirt"
        for name in _FOLDERS:
            (disk / name / "libvirt").mkdir(parents=True)
            (libvirt / name).mkdir(parents=True)
        (self.directory / "run").mkdir()
        own.mkdir(mode=0o700)
        (self.directory / "image").symlink_to(self.spec.image)
        (self.directory / "python").symlink_to(self.spec.python)
        identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self.spec.group}")
        (libvirt / "etc/libvirtd.conf").write_text(_libvirtd_conf(self.number, identity))
        (libvirt / "etc/qemu.conf").write_text(_qemu_conf(self.number))
        (disk / "etc/hosts").write_text(seed.hosts_file(self.spec))
        (disk / "etc/machine-id").write_text(identity.hex + "\n")
        self._accounts()
        # root's password is locked in one way or another; sshd lets nobody in whose field begins with "!".
        (disk / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
        (disk / "etc/shadow").chmod(0o600)
        (own / "bin").mkdir()
        (own / "bin" / emulator.NAME).write_text(emulator.program(self.spec))
        (own / "bin" / emulator.NAME).chmod(0o755)
        (own / "sshd_config").write_text(_sshd_config(self.number))
        keys = self.root / "keys"
        for source, name in ((f"{self.name}", "host_key"), ("guests.pub", "authorized_keys")):
            shutil.copyfile(keys / source, own / name)
            (own / name).chmod(0o600)
        self._trusts_the_others()

    def _trusts_the_others(self) -> None:
        """The hosts log in to each other, as those of a site do: `standfast migrate` has the source's libvirt
        go to the target by ssh."""
        home = self.own / ".ssh"
        home.mkdir(mode=0o700)
        shutil.copyfile(self.root / "keys" / "guests", home / "id_ed25519")
        (home / "id_ed25519").chmod(0o600)
        (home / "known_hosts").write_text(seed.known_hosts(self.root, self.spec))

    def _accounts(self) -> None:
        """libvirtd does not start without Debian's account for QEMU, although all runs as root here.

        root lives elsewhere: what this machine's root has in its home is not the host's.
        """
        for name, line in (
            ("passwd", "x:64055:64055::/nonexistent:/usr/sbin/nologin"),
            ("group", "x:64055:"),
        ):
            text = Path("/etc", name).read_text()
            if not any(entry.startswith("libvirt-qemu:") for entry in text.splitlines()):
                text += f"libvirt-qemu:{line}\n"
            if name == "passwd":
                text = _ROOT_HOME.sub(rf"\g<1>{layout.INSIDE}/own:", text)
            (self.directory / "disk/etc" / name).write_text(text)

    def virsh(
        self, *argv: str, limit_seconds: float = VIRSH_LIMIT_SECONDS, input: str | None = None
    ) -> Result:
        """virsh on this host. Raises LabError without power."""
        return self.execute(["virsh", "-q", "-c", "qemu:///system", *argv], limit_seconds, input)

    def must_virsh(self, *argv: str, input: str | None = None) -> str:
        """What virsh prints. Raises LabError where it fails."""
        done = self.virsh(*argv, input=input)
        if not done.ok:
            raise LabError(f"{self.name}: `virsh {' '.join(argv)}` failed: {done.complaint()}")
        return done.stdout.strip()

    def wait_ready(self) -> None:
        """Wait until libvirtd answers. Raises LabError at the limit."""
        deadline = time.monotonic() + READY_LIMIT_SECONDS
        while not (said := self.virsh("list", limit_seconds=30.0)).ok:
            if time.monotonic() > deadline:
                log = self.directory / "libvirt/var/log/libvirtd.log"
                raise LabError(f"libvirtd of {self.name} does not answer: {said.complaint()} (see {log})")
            time.sleep(_POLL_SECONDS)

    def domains(self) -> dict[str, str]:
        """The guests that this host has or knows, and their state as virsh says; {} without power."""
        if self.init_pid() is None:
            return {}
        listed = self.must_virsh("list", "--all")
        rows = (line.split(None, 2) for line in listed.splitlines() if line.strip())
        return {row[1]: row[2].strip() for row in rows if len(row) == 3}

    def qemu_pid(self, guest: str) -> int | None:
        """Process id on this machine of the QEMU that runs a guest here."""
        wanted = f"guest={guest},".encode()
        for pid in self.group.pids():
            try:
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in argv[0] and any(word.startswith(wanted) for word in argv):
                return pid
        return None

    def monitor(self, guest: str) -> Path:
        """The socket of a guest's second QEMU monitor, which libvirt leaves alone."""
        return self.own / f"{guest}.qmp"


def _libvirtd_conf(number: int, identity: uuid.UUID) -> str:
    # No login between the hosts: their network exists only in the namespaces of this lab.
    return f"""listen_tls = 0
listen_tcp = 1
listen_addr = "{layout.host_address(number)}"
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
host_uuid = "{identity}"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def _qemu_conf(number: int) -> str:
    # Migrations have a network of their own, also where nobody says so on a command line.
    return f"""migration_host = "{layout.migration_address(number)}"
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
remember_owner = 0
"""


def _sshd_config(number: int) -> str:
    # A home of its own: what this machine's root has in ~/.bashrc may wait for a lock, for a minute (seen).
    # The first choice of OpenSSH 9 for the key exchange, with sntrup761, costs an emulated guest 1.6 s of its
    # processor in each login: fence_virsh took 9.9 s by it, 2.6 s without (measured).
    return f"""Port 22
KexAlgorithms curve25519-sha256
ListenAddress {layout.host_address(number)}
HostKey {layout.INSIDE}/own/host_key
AuthorizedKeysFile {layout.INSIDE}/own/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv HOME={layout.INSIDE}/own
PidFile none
"""
