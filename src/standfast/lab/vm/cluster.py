"""A lab of real guests: libvirt hosts in namespaces, QEMU guests with the cluster engine and standfastd."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from standfast.cluster.membership import ClusterStatus, parse_status
from standfast.cluster.run import Result
from standfast.lab import freezer as freezers
from standfast.lab import removal, settling
from standfast.lab.checks import check_vm_machine
from standfast.lab.cluster import make_root
from standfast.lab.errors import LabError
from standfast.lab.layout import check_id, labs_root, netns, new_id
from standfast.lab.network import SWITCH
from standfast.lab.vm import accelerator, channel, domain, environment, image, layout, migration, seed, wires
from standfast.lab.vm import fencing as lab_fencing
from standfast.lab.vm.host import ON_STATES, Host
from standfast.lab.vm.layout import MAX_GUESTS, VmFencing, VmSpec, number_of

MEMORY_MIB = 512
MIN_MEMORY_MIB = 256
_POLL_SECONDS = 0.5
_LOOK_SECONDS = 2.0
"""Between two looks at the whole cluster: crm_mon takes half a second of an emulated node, which the cluster
needs itself."""
_BOOT_LIMIT_SECONDS = 300.0
_SETTLE_LIMIT_SECONDS = 240.0
_GONE_LIMIT_SECONDS = 30.0
_SYSRQ_LIMIT_SECONDS = 2.0
_DAEMON_READY = (
    "from standfast.commands.daemon_client import ask; "
    "raise SystemExit(not ask({'op': 'status'}, 5.0).get('node'))"
)


@dataclass(frozen=True)
class Times:
    """When what was there, in seconds since `up` began; the image is in no figure."""

    hosts: float
    nodes: float
    """Every node is online and its standfastd answers."""
    settled: float


class VmLab:
    """A running lab of real guests. Make one with `up`, find one again with `load`; several can run."""

    def __init__(self, root: Path, spec: VmSpec) -> None:
        self.root = root
        self.spec = spec
        self.times: Times | None = None

    @property
    def id(self) -> str:
        """The lab's id."""
        return self.spec.lab_id

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all cluster nodes, powered or not."""
        return self.spec.nodes

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, powered or not."""
        return tuple(Host(self.root, self.spec, name) for name in self.spec.hosts)

    # -- up and down ---------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        lab_id: str | None = None,
        nodes: int = 2,
        heartbeat_timeout_seconds: float = 10.0,
        fencing: VmFencing = "standfast",
        memory_mib: int = MEMORY_MIB,
        say: Callable[[str], None] = lambda text: None,
    ) -> VmLab:
        """Start a lab and return once its cluster is settled and every standfastd answers.

        Raises LabError; then nothing is left of it. The image is built where it is not in the cache.
        """
        check_vm_machine()
        _check(nodes, heartbeat_timeout_seconds, memory_mib)
        chosen = check_id(lab_id or new_id())
        say("the guests' image")
        made = image.get()
        python = environment.get()
        how = accelerator.choose(made)
        say("guests run under KVM" if how == "kvm" else "no guest boots under KVM here: they are emulated")
        root = labs_root() / chosen
        try:
            make_root(root)
        except FileExistsError:
            raise LabError(
                f"lab {chosen} is there already; `standfast lab down {chosen}` removes it"
            ) from None
        root.chmod(0o700)
        version, mount_point = freezers.choose("auto")
        spec = VmSpec(
            lab_id=chosen,
            nodes=tuple(layout.node_name(n) for n in range(1, nodes + 1)),
            hosts=tuple(layout.host_name(n) for n in range(1, nodes + 2)),
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
            memory_mib=memory_mib,
            accelerator=how,
            fencing=fencing,
            freezer=version,
            group=str(mount_point / f"standfast-lab-{chosen}-{new_id()}"),
            image=str(made.directory),
            python=str(python),
        )
        spec.write(root)
        lab = cls(root, spec)
        try:
            lab._start(say)
        except BaseException as error:
            if isinstance(error, LabError):
                lab._keep_last_words(error)
            lab.down()
            raise
        return lab

    @classmethod
    def load(cls, lab_id: str) -> VmLab:
        """The lab of this id. Raises LabError when there is none, or one without real guests."""
        root = labs_root() / check_id(lab_id)
        return cls(root, VmSpec.read(root))

    def down(self) -> None:
        """Remove everything of this lab: processes, cgroups, namespaces, mounts, files."""
        removal.remove(self.root)

    def _start(self, say: Callable[[str], None]) -> None:
        begun = time.monotonic()
        say(f"{len(self.spec.hosts)} hosts with libvirtd and sshd")
        layout.shared_dir(self.root).mkdir(mode=0o700)
        for name in self.spec.hosts:
            self.spec.node_group(name).create()
        wires.build(self.root, self.spec.hosts)
        seed.make_keys(self.root, self.spec.hosts)
        for host in self.hosts:
            host.prepare()
            host.power_on()
        seed.make(self.root, self.spec)
        with ThreadPoolExecutor() as every:
            list(every.map(Host.wait_ready, self.hosts))
        hosts = time.monotonic() - begun
        say(f"booting {len(self.nodes)} guests of {self.spec.memory_mib} MiB")
        for guest in self.spec.guests:
            home = self.host(layout.host_name(number_of(guest)))
            layout.console(self.root, guest).touch()
            home.must_virsh("define", "/dev/stdin", input=domain.xml(self.spec, guest))
            home.must_virsh("start", guest)
        self.wait_ready()
        ready = time.monotonic() - begun
        say("resources" + ("" if self.spec.fencing == "none" else f" and fencing ({self.spec.fencing})"))
        lab_fencing.configure(self)
        self.wait_settled()
        self.times = Times(hosts, ready, time.monotonic() - begun)

    def _keep_last_words(self, error: LabError) -> None:
        """The directory goes; what the guests and hosts said last goes into the error."""
        texts = {guest: layout.console(self.root, guest) for guest in self.spec.guests}
        texts |= {host.name: host.directory / "console.log" for host in self.hosts}
        for name, path in texts.items():
            with suppress(OSError):
                for line in path.read_text(errors="replace").splitlines()[-2:]:
                    error.add_note(f"{name}: {line}")

    # -- names ---------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """A host of this lab. Raises LabError for an unknown name."""
        if name not in self.spec.hosts:
            raise LabError(f"lab {self.id} has no host {name!r}; it has {', '.join(self.spec.hosts)}")
        return Host(self.root, self.spec, name)

    def guest(self, name: str) -> str:
        """The guest that a guest's or a node's name means. Raises LabError for an unknown name."""
        names = {**dict(zip(self.nodes, self.spec.guests, strict=True)), **{g: g for g in self.spec.guests}}
        if name not in names:
            there = ", ".join((*self.spec.guests, *self.nodes))
            raise LabError(f"lab {self.id} has no guest {name!r}; it has {there}")
        return names[name]

    # -- running things ------------------------------------------------------------------------------

    def exec(
        self, name: str, argv: Sequence[str], limit_seconds: float = 30.0, input: str | None = None
    ) -> Result:
        """Run a command in a guest (by its own or its node's name) or on a host.

        At the limit it returns with `timed_out`, also from a guest that stands still. Raises LabError where
        the guest takes no commands or the host has no power.
        """
        if name in self.spec.hosts:
            return self.host(name).execute(argv, limit_seconds, input)
        address = layout.guest_address(number_of(self.guest(name)))
        return channel.call(netns(self.root, SWITCH), address, argv, limit_seconds, input)

    # -- guests --------------------------------------------------------------------------------------

    def states(self, guest: str) -> dict[str, str]:
        """What each host with power that knows the guest says of it, as `virsh list` does."""
        name = self.guest(guest)
        known = {host.name: host.domains() for host in self.hosts}
        return {host: domains[name] for host, domains in known.items() if name in domains}

    def place(self, guest: str) -> Host | None:
        """The host on which the guest has a QEMU; None where it is off. Raises LabError where two have it."""
        on = [host for host, state in self.states(guest).items() if state in ON_STATES]
        if len(on) > 1:
            raise LabError(f"{guest} is on {' and '.join(on)}: a migration is under way, or it runs twice")
        return self.host(on[0]) if on else None

    def must_place(self, guest: str) -> Host:
        """The host on which the guest is. Raises LabError where it is off."""
        host = self.place(guest)
        if host is None:
            raise LabError(f"{guest} is off; `standfast lab power {guest} on` starts it")
        return host

    def power(self, name: str, what: Literal["off", "on", "panic"]) -> None:
        """Switch a guest or a host off or on, or let a guest's kernel panic. A host takes its guests along.

        Returns once it is so; a guest that was started still has to boot. Raises LabError.
        """
        if name in self.spec.hosts:
            self._power_host(self.host(name), what)
            return
        guest = self.guest(name)
        if what == "on":
            self._power_on(guest)
        elif what == "off":
            if host := self.place(guest):
                host.must_virsh("destroy", guest)
        else:
            self._panic(guest)

    def is_on(self, name: str) -> bool:
        """Whether a guest has a QEMU, or a host power."""
        if name in self.spec.hosts:
            return self.host(name).init_pid() is not None
        return self.place(self.guest(name)) is not None

    def _power_host(self, host: Host, what: Literal["off", "on", "panic"]) -> None:
        if what == "panic":
            raise LabError(f"{host.name} is a host; only guests panic: `standfast lab power {host.name} off`")
        if what == "off":
            host.power_off()
            wires.plug(self.root, host.name, connected=False)
            return
        wires.plug(self.root, host.name, connected=True)
        host.power_on()
        host.wait_ready()

    def _power_on(self, guest: str) -> None:
        states = self.states(guest)
        if any(state in ON_STATES for state in states.values()):
            return
        if len(states) != 1:
            there = ", ".join(states) or "no host that has power"
            raise LabError(f"{guest} is defined on {there}: exactly one has to be, nothing was started")
        self.host(next(iter(states))).must_virsh("start", guest)

    def _panic(self, guest: str) -> None:
        host = self.must_place(guest)
        with suppress(channel.Unreachable):
            self.exec(guest, ["/bin/sh", "-c", "echo c > /proc/sysrq-trigger"], _SYSRQ_LIMIT_SECONDS)
        self.wait(lambda: self.place(guest) is None, _GONE_LIMIT_SECONDS, f"{guest} to end on {host.name}")

    def migrate(
        self, guest: str, host: str, *, blackout_seconds: float = 0.0, undefine_source: bool = True
    ) -> migration.Moved:
        """Live-migrate a guest with virsh, as an administrator does. Raises LabError with virsh's words.

        The blackout is as short as it comes, or at least `blackout_seconds` long. With `undefine_source` off,
        the source keeps a definition and says "shut off" of the guest.
        """
        name, target = self.guest(guest), self.host(host)
        source = self.must_place(name)
        if source.name == target.name:
            raise LabError(f"{name} is on {host} already")
        return migration.migrate(
            name, source, target, blackout_seconds=blackout_seconds, undefine_source=undefine_source
        )

    def blackout(self, guest: str, seconds: float) -> migration.Blackout:
        """Let a guest stand still for an exact time where it is. Raises LabError."""
        name = self.guest(guest)
        return migration.stand_still(self.must_place(name), name, seconds)

    # -- the cluster ---------------------------------------------------------------------------------

    def status(self, node: str | None = None, limit_seconds: float = 20.0) -> ClusterStatus | None:
        """The cluster as `node` (default: the first that answers) sees it; None if it cannot say."""
        for name in [node] if node else self.nodes:
            try:
                done = self.exec(name, ["crm_mon", "-1", "--output-as=xml"], limit_seconds)
                return parse_status(ElementTree.fromstring(done.stdout)) if done.ok else None
            except (channel.Unreachable, ElementTree.ParseError):
                continue
        return None

    def members(self, node: str) -> str:
        """The ring as a node's corosync has it: "ring id, members"; a new ring has a new id."""
        done = self.exec(node, ["corosync-quorumtool", "-s"], limit_seconds=20.0)
        fields = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
        if "Ring ID" not in fields:
            return f"corosync of {node} does not answer"
        return f"{fields['Ring ID'].strip()}, {fields['Nodes'].strip()} nodes"

    def set_fencing(self, wanted: bool) -> None:
        """Switch the cluster's fencing (stonith-enabled) on or off. Raises LabError."""
        lab_fencing.set_option(self, "stonith-enabled", str(wanted).lower())

    def powered(self) -> frozenset[str]:
        """The nodes whose guests are on."""
        on = set()
        for host in self.hosts:
            on |= {name for name, state in host.domains().items() if state in ON_STATES}
        return frozenset(n for n, g in zip(self.nodes, self.spec.guests, strict=True) if g in on)

    def daemon_ready(self, node: str) -> bool:
        """standfastd answers on a node, and has seen the cluster."""
        argv = [f"{environment.PREFIX}/bin/python3", "-c", _DAEMON_READY]
        try:
            return self.exec(node, argv, limit_seconds=15.0).ok
        except channel.Unreachable:
            return False

    def wait_ready(self, limit_seconds: float = _BOOT_LIMIT_SECONDS) -> float:
        """Wait until all powered nodes are online and each standfastd answers; returns how many seconds."""
        left = set(self.powered())

        def ready() -> bool:
            # The cheap questions first: each costs the guests time that they boot with.
            if not all(self._started(name) for name in left):
                return False
            if not settling.sees_all(self.status(), self.powered()):
                return False
            left.difference_update([name for name in sorted(left) if self.daemon_ready(name)])
            return not left

        what = "every node online and every standfastd ready"
        return self.wait(ready, limit_seconds, what, _LOOK_SECONDS)

    def _started(self, node: str) -> bool:
        """Pacemaker runs on a node, so far as its process list says."""
        try:
            return self.exec(node, ["pgrep", "-x", "pacemaker-contr"], limit_seconds=10.0).ok
        except channel.Unreachable:
            return False

    def wait_settled(self, limit_seconds: float = _SETTLE_LIMIT_SECONDS) -> None:
        """Wait until all powered nodes are online, each service is at home and the controller is idle."""
        self.wait(self._settled, limit_seconds, "the cluster to settle", _LOOK_SECONDS)

    def _settled(self) -> bool:
        seen, powered = self.status(), self.powered()
        devices = [(node, device) for node in self.nodes for device in lab_fencing.devices(self.spec, node)]
        if seen is None or seen.dc is None or not settling.at_home(seen, powered, devices):
            return False
        state = self.exec(seen.dc, ["crmadmin", "--status", seen.dc], limit_seconds=20.0)
        return seen.idle("S_IDLE" if "S_IDLE" in state.stdout else None)

    def wait(
        self,
        condition: Callable[[], bool],
        limit_seconds: float,
        what: str,
        poll_seconds: float = _POLL_SECONDS,
    ) -> float:
        """Wait for a condition; returns how long it took, in seconds. Raises LabError at the limit."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > limit_seconds:
                raise LabError(f"lab {self.id}: waited {limit_seconds:g} s for {what}; now: {self.status()}")
            time.sleep(poll_seconds)
        return time.monotonic() - begun


def _check(nodes: int, timeout_seconds: float, memory_mib: int) -> None:
    if not 2 <= nodes <= MAX_GUESTS:
        raise LabError(f"a lab of real guests has 2 to {MAX_GUESTS} nodes, not {nodes}")
    if timeout_seconds < 2:
        raise LabError(f"a heartbeat timeout of {timeout_seconds:g} s is too short, give 2 s or more")
    if memory_mib < MIN_MEMORY_MIB:
        raise LabError(f"{memory_mib} MiB are too little for a guest, give {MIN_MEMORY_MIB} or more")
