"""The adapters of all control domains of clovmmigrate.conf: the one place that chooses them."""

from __future__ import annotations

from collections.abc import Mapping

from standfast.core.hostlist import ControlDomain, HostList
from standfast.hosts.base import Host
from standfast.hosts.ldm import ControlDomainLogin, LdmHost
from standfast.hosts.libvirt import LibvirtAccess, LibvirtHost
from standfast.hosts.manual import ManualHost
from standfast.hosts.shell import SshLogin
from standfast.hosts.xscf_view import XscfAccess, XscfHost

NOT_REGISTERED = "no login there, and no XSCF user is registered yet (clsnmpsetup -a)"


def adapters(listed: HostList, xscf: Mapping[str, str] | None) -> dict[str, Host]:
    """One adapter for each host, by its kind; for ldm by ssh where the file has a login, else by the XSCF.

    `xscf`: parameters of one registered device (`core.devices.account`); user, password and connection are
    the same at all XSCFs. None: nothing is registered, and hosts without login stay silent.
    """
    return {entry.name: _adapter(entry, listed, xscf) for entry in listed.hosts}


def _adapter(entry: ControlDomain, listed: HostList, xscf: Mapping[str, str] | None) -> Host:
    if entry.kind == "manual":
        return ManualHost(entry.name)
    if entry.kind == "libvirt":
        return LibvirtHost(LibvirtAccess(entry.name, entry.uri, _ssh(entry, listed)))
    if entry.login:
        login = ControlDomainLogin(
            name=entry.name,
            address=entry.address,
            user=entry.login,
            key_file=listed.identity_file,
            known_hosts_file=listed.known_hosts,
        )
        return LdmHost(login)
    return XscfHost(access_of(entry, listed, xscf))


def _ssh(entry: ControlDomain, listed: HostList) -> SshLogin | None:
    """The login on the host; None where its libvirt is reached from this machine."""
    if not entry.login:
        return None
    return SshLogin(entry.name, entry.address, entry.login, listed.identity_file, listed.known_hosts)


def access_of(entry: ControlDomain, listed: HostList, xscf: Mapping[str, str] | None) -> XscfAccess:
    """The ways to the XSCF of a control domain, with the registered user."""
    found = xscf or {}
    why_not = NOT_REGISTERED if xscf is None else ""
    if (connection := found.get("connection", "ssh")) != "ssh":
        why_not = f"no login there, and its XSCF cannot be asked by {connection} yet"
    return XscfAccess(
        name=entry.name,
        ppar_id=entry.ppar_id,
        lan0=entry.xscf_lan0,
        lan1=entry.xscf_lan1,
        user=found.get("username", ""),
        password_file=found.get("password_file", ""),
        known_hosts_file=listed.known_hosts,
        legacy_algorithms=tuple(found.get("legacy_algorithms", "").replace(",", " ").split()),
        client=found.get("client", "auto"),
        why_not=why_not,
    )
