"""What fence_xscf does: one function an action. Each call imports this, so it imports nothing heavy."""

import asyncio
import logging
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from standfast.commands.fence_xscf import EXIT_DONE, EXIT_FAILED, EXIT_OFF, UsageError, required
from standfast.core import xscf
from standfast.core.names import XSCF_AGENT, is_domain_name
from standfast.core.xscf import Proof, Verdict
from standfast.processors import dialect as dialects
from standfast.processors.xscf import XscfSession, kill, session
from standfast.processors.xscf_login import CLIENTS, XscfError, XscfLogin


class Device:
    """The checked options of one call."""

    def __init__(self, options: Mapping[str, str], domain_needed: bool) -> None:
        needed = ("ip", "username", "ppar_id", *(("domain",) if domain_needed else ()))
        required(options, *needed)
        if options["connection"] == "telnet":
            raise UsageError("connection=telnet is not supported yet; use connection=ssh; nothing was done")
        self.connection = _one_of(options, "connection", ("ssh",))
        self.how = _one_of(options, "kill", ("panic", "sir"))
        self.ppar_id = int(_number(options, "ppar_id", 0, 15))
        self.domain = options.get("domain", "")
        if self.domain and not is_domain_name(self.domain):
            raise UsageError(f"{self.domain!r} cannot be a logical domain's name; nothing was done")
        self.power_limit_seconds = _number(options, "power_timeout", 1, 3600)
        self.conf = options["conf"]
        self.login = XscfLogin(
            address=options["ip"],
            user=options["username"],
            password=_password(options, _number(options, "login_timeout", 1, 3600)),
            port=int(_number(options, "ipport", 1, 65535)),
            known_hosts_file=options["known_hosts"],
            login_limit_seconds=_number(options, "login_timeout", 1, 3600),
            shell_limit_seconds=_number(options, "shell_timeout", 1, 3600),
            legacy_algorithms=tuple(options.get("legacy_algorithms", "").replace(",", " ").split()),
            client=_one_of(options, "client", CLIENTS),
        )
        try:
            self.dialect = dialects.load(options["dialect"])
        except dialects.DialectError as error:
            raise UsageError(f"{error}; nothing was done") from None

    @property
    def where(self) -> str:
        """The XSCF and the domain, for messages."""
        domain = f", domain {self.domain}" if self.domain else ""
        return f"XSCF {self.login.address}{domain} (PPAR {self.ppar_id})"


def run(action: str, options: Mapping[str, str]) -> int:
    """Do one action; the exit code of the contract. Errors are one line on standard error."""
    verbose = options.get("verbose", "0") not in ("", "0", "off", "false", "no")
    _quiet()
    device = Device(options, domain_needed=action in ("off", "reboot", "status", "validate-all"))
    try:
        return asyncio.run(_ACTIONS[action](device))
    except XscfError as error:
        return _fail(f"{device.where}: {error}; {_DONE_SO_FAR[error.order_given]}")
    except Exception as error:
        if verbose:
            raise
        return _fail(
            f"{device.where}: mistake in {XSCF_AGENT} itself ({type(error).__name__}: {error}); the domain "
            "may have been ordered to stop; nothing is proven; call again with verbose=1 for the place"
        )


_DONE_SO_FAR = {
    "no": "no order was given",
    "maybe": "the order was confirmed and may be carried out, but nothing is proven",
}


def _quiet() -> None:
    # cryptography warns of every key exchange that old service processors have; ours is pinned.
    warnings.filterwarnings("ignore")
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


def _fail(text: str) -> int:
    sys.stderr.write(f"{XSCF_AGENT}: {' '.join(text.split())}\n")
    return EXIT_FAILED


async def _monitor(device: Device) -> int:
    async with session(device.login, device.dialect) as shell:
        await shell.domains(device.ppar_id)
    return EXIT_DONE


async def _on(device: Device) -> int:
    """Turns nothing on: a domain that was reset boots by itself. The session is checked."""
    async with session(device.login, device.dialect):
        sys.stdout.write("Success: session checked, nothing to turn on\n")
    return EXIT_DONE


async def _validate(device: Device) -> int:
    return EXIT_DONE  # making the device checked every option, without a connection


async def _list(device: Device) -> int:
    async with session(device.login, device.dialect) as shell:
        rows = await shell.domains(device.ppar_id)
    sys.stdout.write("".join(f"{row.domain},\n" for row in rows))
    return EXIT_DONE


async def _list_status(device: Device) -> int:
    """Never says OFF: the XSCF's word alone does not prove it."""
    async with session(device.login, device.dialect) as shell:
        rows = await shell.domains(device.ppar_id)
    sys.stdout.write(
        "".join(f"{row.domain},,{'ON' if xscf.is_live(row.status) else 'UNKNOWN'}\n" for row in rows)
    )
    return EXIT_DONE


async def _status(device: Device) -> int:
    async with session(device.login, device.dialect) as shell:
        status = await _status_or_not_listed(shell, device)
    if xscf.is_live(status):
        sys.stdout.write("Status: ON\n")
        return EXIT_DONE
    gone, why = await _not_active_anywhere(device)
    if gone:
        sys.stdout.write("Status: OFF\n")
        return EXIT_OFF
    return _fail(f"{device.where}: shown as {status!r}, which proves neither on nor off ({why})")


async def _status_or_not_listed(shell: XscfSession, device: Device) -> str:
    rows = {row.domain: row.status for row in await shell.domains(device.ppar_id)}
    return rows.get(device.domain, "not listed")


async def _off(device: Device) -> int:
    return await _killed(device, "Success: Powered OFF")


async def _reboot(device: Device) -> int:
    return await _killed(device, "Success: Rebooted")


async def _killed(device: Device, success: str) -> int:
    async with session(device.login, device.dialect) as shell:
        limit_seconds = device.power_limit_seconds
        proof = await kill(shell, device.how, device.ppar_id, device.domain, limit_seconds)
    if proof.verdict is Verdict.PROVEN:
        sys.stdout.write(f"{success}\n{device.where}: {device.how}, seen: {proof.story}\n")
        return EXIT_DONE
    gone, why = await _settled_by_hosts(device, proof)
    if gone:
        sys.stdout.write(f"{success}\n{device.where}: {why}\n")
        return EXIT_DONE
    if proof.verdict is Verdict.DOUBT:
        return _fail(
            f"{device.where}: shown as {proof.story!r}, which may hide that it runs elsewhere ({why}); "
            "no order was given"
        )
    return _fail(
        f"{device.where}: {device.how} was ordered, but no death was seen within {limit_seconds:g} s "
        f"(seen: {proof.story}); nothing is proven"
    )


async def _settled_by_hosts(device: Device, proof: Proof) -> tuple[bool, str]:
    if xscf.is_live(proof.statuses[-1]):
        return False, "it is shown alive"
    return await _not_active_anywhere(device)


async def _not_active_anywhere(device: Device) -> tuple[bool, str]:
    from standfast.commands import fence_xscf_doubt  # asyncssh and more, for the rare case

    return await fence_xscf_doubt.not_active_anywhere(device.domain, device.conf, device.power_limit_seconds)


def _password(options: Mapping[str, str], limit_seconds: float) -> str:
    if options.get("password"):
        return options["password"]
    if options.get("password_file"):
        return _from_file(options["password_file"])
    if options.get("passwd_script"):
        return _from_script(options["passwd_script"], limit_seconds)
    raise UsageError("one of password, password_file, passwd_script is needed; nothing was done")


def _from_file(name: str) -> str:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not readable as text"
        raise UsageError(f"password_file {name}: {reason}; nothing was done") from None
    if mode & 0o077:
        raise UsageError(
            f"password_file {name} can be read by others; nothing was done; type: chmod 600 {name}"
        )
    return _first_line(text, f"password_file {name}")


def _from_script(name: str, limit_seconds: float) -> str:
    try:
        done = subprocess.run(
            [name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_seconds,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"passwd_script {name}: no result within {limit_seconds:g} s") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"passwd_script {name}: {getattr(error, 'strerror', None) or 'bad text'}") from None
    if done.returncode != 0:
        raise UsageError(f"passwd_script {name}: exit {done.returncode}; nothing was done")
    return _first_line(done.stdout, f"passwd_script {name}")


def _first_line(text: str, where: str) -> str:
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise UsageError(f"{where}: its first line is empty; nothing was done")
    return lines[0]


def _number(options: Mapping[str, str], name: str, least: float, most: float) -> float:
    text = options.get(name, "")
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UsageError(f"{name} must be a whole number from {least:g} to {most:g}; nothing was done")
    return float(text)


def _one_of(options: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    if options[name] not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}; nothing was done")
    return options[name]


_ACTIONS = {
    "on": _on,
    "off": _off,
    "reboot": _reboot,
    "status": _status,
    "monitor": _monitor,
    "list": _list,
    "list-status": _list_status,
    "validate-all": _validate,
}
