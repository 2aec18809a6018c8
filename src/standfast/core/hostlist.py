"""The control domains of clovmmigrate.conf, as the gate needs them: pure, and by the standard library alone.

The gate has to work on a node where nothing but the system's Python is left, so it cannot use
`standfast.config` (pydantic). It reads the same file through here. What is read is checked by the same rules;
what the gate does not need (budget, lease, unknown fields) is not looked at, so that a slip there, which
`clovmmigrate` refuses, never makes the gate blind.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from standfast.core import fields, host_fencing, names

NO_PPAR = -1
"""PPAR-ID of a host that is no control domain; its XSCF addresses are empty."""
FORMAT = 1
"""The only format of clovmmigrate.conf so far."""

T = TypeVar("T", str, int)


class HostListError(Exception):
    """The file cannot be used; the text names entry and field."""


class HostLookupError(Exception):
    """No control domain of the file, or more than one, answers to a name or address."""


@dataclass(frozen=True)
class ControlDomain:
    """One control domain that a guest of this cluster can live on, and the XSCF behind it."""

    name: str
    address: str
    kind: str
    ppar_id: int
    xscf_lan0: str
    xscf_lan1: str
    weight: int
    login: str = ""
    """User for ssh; empty: nobody logs in, and (ldm) its XSCF is asked instead."""
    uri: str = ""
    """Of kind libvirt: the connection."""
    fence_agent: str = ""
    """Of kind libvirt and manual: the fence agent that kills a guest there; empty: none."""
    fence_parameters: tuple[tuple[str, str], ...] = ()
    """What that agent needs to reach this host, by name."""

    @property
    def obeys(self) -> bool:
        """Whether Standfast can ask this host itself and tell it to do things."""
        return self.kind != "manual" and (bool(self.login) or fields.is_remote(self.uri))


@dataclass(frozen=True)
class HostList:
    """All control domains in the file's order, and what is needed to log in to them."""

    identity_file: str
    known_hosts: str
    hosts: tuple[ControlDomain, ...]

    def find(self, name_or_address: str, registered: Mapping[str, tuple[str, ...]]) -> ControlDomain:
        """The control domain that the operator means: by name, by address, or by a name in /etc/hosts.

        `registered` maps names to addresses (`parse_hosts`). Raises HostLookupError.
        """
        return find_host(self.hosts, name_or_address, registered)


def from_text(text: str) -> HostList:
    """Read the text of clovmmigrate.conf. Raises HostListError."""
    try:
        return from_document(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise HostListError(f"not TOML: {error}") from None


def from_document(document: Mapping[str, object]) -> HostList:
    """Read the parsed TOML document. Raises HostListError."""
    found = document.get("format")
    if found != FORMAT or type(found) is not int:
        raise HostListError(f"format {found!r} is not known to this version (it knows {FORMAT})")
    entries = document.get("control_domain")
    if not isinstance(entries, list) or not entries:
        raise HostListError("there is no [[control_domain]] entry")
    hosts = tuple(_entry(number, entry) for number, entry in enumerate(entries, 1))
    kinds = {host.kind for host in hosts}
    if "ldm" in kinds and len(kinds) > 1:
        raise HostListError("ldm and other kinds are in one file: no guest moves between them")
    for what in ("name", "address"):
        seen = [getattr(host, what) for host in hosts]
        twice = next((value for value in seen if seen.count(value) > 1), None)
        if twice is not None:
            raise HostListError(f"{what} {twice!r} is in two [[control_domain]] entries")
    fencing = [(host.name, host.fence_agent, dict(host.fence_parameters)) for host in hosts]
    for field, text in host_fencing.disagreeing(fencing):
        raise HostListError(f"control_domain: {field} {text}")
    return HostList(
        _field("file", document, "identity_file", fields.absolute_path, names.CONTROL_DOMAIN_KEY_FILE),
        _field("file", document, "known_hosts", fields.absolute_path, names.KNOWN_HOSTS_FILE),
        hosts,
    )


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Names and aliases of an /etc/hosts (hosts(5)), each with all its addresses, in the file's order.

    Lines that cannot be read are skipped, as the system's resolver skips them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = fields.address(words[0])
        except fields.FieldError:
            continue
        for word in words[1:]:
            key = word.lower()
            if address not in found.get(key, ()):
                found[key] = (*found.get(key, ()), address)
    return found


def find_host(
    hosts: tuple[ControlDomain, ...], name_or_address: str, registered: Mapping[str, tuple[str, ...]]
) -> ControlDomain:
    """See HostList.find. A name that /etc/hosts gives another address than the file does is refused."""
    wanted = name_or_address.strip()
    known = ", ".join(f"{host.name} ({host.address})" for host in hosts)
    try:
        addresses: tuple[str, ...] = (fields.address(wanted),)
    except fields.FieldError:
        addresses = registered.get(wanted.lower(), ())
    by_name = [host for host in hosts if host.name.lower() == wanted.lower()]
    by_address = [host for host in hosts if host.address in addresses]
    if by_name and addresses and by_name != by_address:
        raise HostLookupError(
            f"{wanted} is {by_name[0].address} in clovmmigrate.conf but {', '.join(addresses)} in /etc/hosts"
        )
    found = by_name or by_address
    if len(found) > 1:
        several = ", ".join(host.name for host in found)
        raise HostLookupError(f"{wanted} means several control domains: {several}")
    if not found:
        raise HostLookupError(f"{wanted} is no control domain of clovmmigrate.conf; it knows {known}")
    return found[0]


def _entry(number: int, entry: object) -> ControlDomain:
    if not isinstance(entry, Mapping):
        raise HostListError(f"control_domain {number} is no table")
    where = f"control_domain {number} ({entry.get('name', 'no name')})"
    kind = _field(where, entry, "kind", lambda text: fields.one_of(text, fields.KINDS), "ldm")
    ldm = kind == "ldm"
    found = ControlDomain(
        name=_field(where, entry, "name", fields.name),
        address=_field(where, entry, "address", fields.address),
        kind=kind,
        ppar_id=_field(where, entry, "ppar_id", fields.ppar_id) if ldm else NO_PPAR,
        xscf_lan0=_field(where, entry, "xscf_lan0", fields.address) if ldm else "",
        xscf_lan1=_field(where, entry, "xscf_lan1", fields.address) if ldm else "",
        weight=_field(where, entry, "weight", fields.weight, 1),
        login=_field(where, entry, "login", fields.login, ""),
        uri=_field(where, entry, "uri", fields.uri, "qemu:///system") if kind == "libvirt" else "",
        fence_agent=_field(where, entry, "fence_agent", host_fencing.agent) if "fence_agent" in entry else "",
        fence_parameters=_parameters(where, entry),
    )
    for field, text in unfitting(kind, frozenset(entry), found.login, found.uri):
        raise HostListError(f"{where}: {field} {text}")
    return found


def _parameters(where: str, entry: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    if "fence_parameters" not in entry:
        return ()
    given = entry["fence_parameters"]
    if not isinstance(given, Mapping):
        raise HostListError(f"{where}: fence_parameters must be a table")
    try:
        return tuple(host_fencing.parameters(given).items())
    except fields.FieldError as error:
        raise HostListError(f"{where}: fence_parameters: {error}") from None


def unfitting(kind: str, given: frozenset[str], login: str, uri: str) -> Iterator[tuple[str, str]]:
    """Fields of an entry that its kind needs or cannot have, and what is wrong. `given`: its names."""
    for field in ("ppar_id", "xscf_lan0", "xscf_lan1"):
        if kind == "ldm" and field not in given:
            yield field, "is missing"
        if kind != "ldm" and field in given:
            yield field, "is only for kind ldm"
    if kind != "libvirt" and "uri" in given:
        yield "uri", "is only for kind libvirt"
    if kind == "manual" and login:
        yield "login", "is not for kind manual: nobody asks this host"
    if kind == "libvirt" and not login and not fields.is_remote(uri):
        yield "login", f"is missing: {uri} is reached by ssh on the host"
    if kind == "libvirt" and login and fields.is_remote(uri):
        yield "login", f"is not needed: {uri} is reached from this node; put the user into the uri"
    yield from host_fencing.unfitting(kind, given)


def _field(
    where: str, table: Mapping[str, object], field: str, check: Callable[[T], T], default: T | None = None
) -> T:
    value = table.get(field, default)
    if value is None:
        raise HostListError(f"{where}: {field} is missing")
    wanted = int if check in (fields.ppar_id, fields.weight) else str
    if type(value) is not wanted:
        raise HostListError(f"{where}: {field} must be a {'whole number' if wanted is int else 'text'}")
    try:
        return check(value)  # type: ignore[arg-type]
    except fields.FieldError as error:
        raise HostListError(f"{where}: {field} {error}") from None
