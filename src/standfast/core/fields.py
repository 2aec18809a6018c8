"""What single values of set-up may look like: addresses, names, numbers.

Each function returns the value in the form in which it is kept, or raises FieldError whose text says what is
allowed. The configuration file, `clsnmpsetup` and the gate all use these, so they cannot disagree.
"""

from __future__ import annotations

import ipaddress
import re

MAX_PPAR_ID = 15
"""SPARC M12/M10 number their physical partitions 0 to 15 (XSCF MIB C120-0006, domain identifier)."""
MIN_WEIGHT = 1
MAX_WEIGHT = 100
BUDGET_SECONDS = range(11, 3601)
LEASE_MINUTES = range(1, 10081)
"""From a minute to a week: a lease is there to end."""
CLOCK_SECONDS = range(1, 301)
CLOCK_PERIOD_SECONDS = range(10, 3601)
CLOCK_STEPS = ("off", "chrony", "rtc")
"""How a node may set its own clock while a window waits for it (`core.clock_step`)."""
CONNECTIONS = ("ssh", "telnet")
KINDS = ("ldm", "libvirt", "manual")
"""How guests are managed on a host."""
REPAIRS = ("ask", "auto")
"""Who aims fencing anew at a guest that somebody moved without a window: a person, or the nodes."""
MAX_NAME_CHARS = 64

_LABELS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_URI = re.compile(
    r"qemu(\+(?P<transport>tls|tcp|ssh))?://(?P<host>([A-Za-z0-9_][A-Za-z0-9_.-]*@)?"
    r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?)?/system"
)
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class FieldError(ValueError):
    """A value that is not allowed; the text says what is."""


def name(text: str) -> str:
    """A host or node name: letters, digits, ``.``, ``-`` and ``_``. It becomes part of ids in the CIB."""
    return _matching(text, _LABELS, "a host name (letters, digits, '.', '-', '_')")


def domain(text: str) -> str:
    """The name of a logical domain, as `ldm list-domain` shows it."""
    return _matching(text, _DOMAIN, "a logical domain name (letters, digits, '.', '-', '_')")


def user(text: str) -> str:
    """A login name on a service processor or control domain."""
    return _matching(text, _USER, "a user name (a letter, then letters, digits, '.', '-', '_')")


def login(text: str) -> str:
    """A user for ssh on a control domain; empty: nobody logs in there."""
    return user(text) if text else text


def address(text: str) -> str:
    """A literal IPv4 or IPv6 address of one machine, in its short form. No names, no zones, no networks."""
    wanted = "a literal IPv4 or IPv6 address of one machine, such as 10.20.30.71"
    if "%" in text:
        raise FieldError(f"must be {wanted}; link-local addresses with a zone are not allowed")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise FieldError(f"must be {wanted}") from None
    if found.is_unspecified or found.is_multicast or found.is_loopback or found.is_link_local:
        raise FieldError(f"must be {wanted}; not unspecified, loopback, link-local or multicast")
    if text == "255.255.255.255":
        raise FieldError(f"must be {wanted}; not the broadcast address")
    return str(found)


def uri(text: str) -> str:
    """A libvirt connection. No options in it: some switch the check of the host's certificate off.

    And ``/system`` only: a ``/session`` has guests of its own, and knows nothing of the host's.
    """
    found = _URI.fullmatch(text)
    if found is None or (found["transport"] is None) != (found["host"] is None):
        raise FieldError(
            "must be a libvirt URI without options: qemu:///system, qemu+tls://HOST/system, "
            "qemu+ssh://USER@HOST/system, or in a lab qemu+tcp://HOST/system"
        )
    return text


def is_remote(uri: str) -> bool:
    """Whether a libvirt URI names a host, so that a client on this machine reaches it by itself."""
    found = _URI.fullmatch(uri)
    return found is not None and found["host"] is not None


def ppar_id(value: int) -> int:
    """Number of a physical partition."""
    return _between(value, range(MAX_PPAR_ID + 1), "")


def weight(value: int) -> int:
    """A node's weight when the cluster has split: the heavier side kills first."""
    return _between(value, range(MIN_WEIGHT, MAX_WEIGHT + 1), "")


def budget_seconds(value: int) -> int:
    """Heartbeat timeout while the window is open."""
    return _between(value, BUDGET_SECONDS, " seconds")


def lease_minutes(value: int) -> int:
    """After this the window alarms."""
    return _between(value, LEASE_MINUTES, " minutes")


def clock_threshold_seconds(value: int) -> int:
    """By how much two nodes' clocks may differ."""
    return _between(value, CLOCK_SECONDS, " seconds")


def clock_period_seconds(value: int) -> int:
    """Between two messages about a clock that is out of sync."""
    return _between(value, CLOCK_PERIOD_SECONDS, " seconds")


def one_of(text: str, allowed: tuple[str, ...]) -> str:
    """A word out of a short list."""
    if text not in allowed:
        raise FieldError("must be " + " or ".join(allowed))
    return text


def absolute_path(text: str) -> str:
    """The path of a file, from the root."""
    if not text.startswith("/") or "\n" in text or "\0" in text:
        raise FieldError("must be an absolute path, such as /etc/standfast/known_hosts")
    return text


def _between(value: int, allowed: range, unit: str) -> int:
    if value not in allowed:
        raise FieldError(f"must be a whole number from {allowed.start} to {allowed.stop - 1}{unit}")
    return value


def _matching(text: str, pattern: re.Pattern[str], wanted: str) -> str:
    if len(text) > MAX_NAME_CHARS or not pattern.fullmatch(text):
        raise FieldError(f"must be {wanted}, at most {MAX_NAME_CHARS} characters")
    return text
