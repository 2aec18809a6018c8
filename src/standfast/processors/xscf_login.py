"""What a login to an XSCF needs, what can go wrong with it, and the shell that it gives.

Two ways lead into the same shell: `openssh`, the system's `ssh`, and `with_asyncssh`, which is heavy and only
there for what the system's `ssh` cannot do.
"""

from dataclasses import dataclass, field
from typing import Protocol

from standfast.core.names import KNOWN_HOSTS_FILE

CLIENTS = ("auto", "asyncssh")
"""`auto`: the system's ssh, and asyncssh where that is missing or does not know an algorithm."""

TERMINAL = "dumb"
COLUMNS, ROWS = 250, 50
"""A window in which no shell wraps a line."""

# Algorithms that ssh clients leave out by default and old service processors may need, with the option of
# ssh_config(5) that lists their kind. Each is only offered when it is named in the device's options.
LEGACY_ALGORITHMS = {
    "diffie-hellman-group1-sha1": "KexAlgorithms",
    "diffie-hellman-group-exchange-sha1": "KexAlgorithms",
    "ssh-rsa": "HostKeyAlgorithms",
    "ssh-dss": "HostKeyAlgorithms",
    "aes128-cbc": "Ciphers",
    "aes256-cbc": "Ciphers",
    "3des-cbc": "Ciphers",
    "hmac-sha1-96": "MACs",
    "hmac-md5": "MACs",
}


class XscfError(Exception):
    """The XSCF could not do what was asked. The text is one phrase for an operator.

    `order_given`: "no", or "maybe" where an order was confirmed and may be carried out.
    """

    def __init__(self, what: str, order_given: str = "no") -> None:
        self.order_given = order_given
        super().__init__(what)


class XscfUnreachable(XscfError):
    """No connection, or it was cut, or a time limit passed."""


class XscfLoginRefused(XscfError):
    """The XSCF answered and does not let us in."""


class XscfKeyUnknown(XscfError):
    """The XSCF's host key is not the one in known_hosts."""


class XscfSetting(XscfError):
    """Our own setting is wrong; the XSCF was not asked."""


@dataclass(frozen=True)
class XscfLogin:
    """How to reach one XSCF over one of its LANs. Limits in seconds."""

    address: str
    user: str
    password: str = field(repr=False)
    port: int = 22
    known_hosts_file: str = KNOWN_HOSTS_FILE
    login_limit_seconds: float = 10.0
    shell_limit_seconds: float = 10.0
    legacy_algorithms: tuple[str, ...] = ()
    client: str = "auto"

    def checked(self) -> None:
        """Raises XscfSetting for a client or an algorithm that there is not, or a known_hosts that cannot
        be read: without it every host key would look like an unknown one."""
        if self.client not in CLIENTS:
            raise XscfSetting(f"client must be one of {', '.join(CLIENTS)}, not {self.client!r}")
        for name in self.legacy_algorithms:
            if name not in LEGACY_ALGORITHMS:
                known = ", ".join(LEGACY_ALGORITHMS)
                raise XscfSetting(f"{name!r} is not a legacy algorithm that can be allowed ({known})")
        try:
            open(self.known_hosts_file, "rb").close()
        except OSError as error:
            raise XscfSetting(f"cannot read {self.known_hosts_file}: {error.strerror}") from None

    def legacy(self) -> dict[str, list[str]]:
        """The named algorithms by their ssh_config(5) option."""
        found: dict[str, list[str]] = {}
        for name in self.legacy_algorithms:
            found.setdefault(LEGACY_ALGORITHMS[name], []).append(name)
        return found


class RemoteShell(Protocol):
    """An interactive shell on a terminal of a logged-in session."""

    def write(self, text: str) -> None:
        """Type. Raises OSError where the session is known to be cut."""

    async def read(self) -> str:
        """What has arrived, at least one character; empty at the end. Raises OSError."""

    async def close(self, left: bool) -> None:
        """End the session and everything that belongs to it. `left`: the shell was told to log out, so it
        may take a moment to do so by itself."""


LEAVE_LIMIT_SECONDS = 0.2
"""Politeness: a dead session must not hold up a kill."""
