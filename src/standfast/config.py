"""clovmmigrate.conf: the control domains of this cluster's guests, and what a window may take.

The file is TOML, the same on all nodes, and read strictly: an unknown field, a wrong type or a value out of
range is an error that names file, entry, field and what is allowed. Single values are checked by
`standfast.core.fields`, which the gate uses too (`standfast.core.hostlist`).

Importing this module imports pydantic (a tenth of a second): import it only where the file is needed.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from standfast.core import fields, host_fencing, hostlist, names
from standfast.core.clocks import PERIOD_SECONDS, THRESHOLD_SECONDS, Limits

ETC_HOSTS = "/etc/hosts"
MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (``file`` or an entry), which field, and what is allowed."""

    entry: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.field}: {self.text}" if self.field else f"{self.entry}: {self.text}"


class ConfigError(Exception):
    """The file is missing or wrong. `str()` is what the operator reads: one line a problem."""

    def __init__(self, path: str, problems: tuple[Problem, ...]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def _checked(check: Callable[[Any], Any]) -> AfterValidator:
    def run(value: Any) -> Any:
        try:
            return check(value)
        except fields.FieldError as error:
            raise PydanticCustomError("standfast_field", "{text}", {"text": str(error)}) from None

    return AfterValidator(run)


Name = Annotated[str, _checked(fields.name)]
Address = Annotated[str, _checked(fields.address)]
AbsolutePath = Annotated[str, _checked(fields.absolute_path)]
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class ControlDomain(BaseModel):
    """One ``[[control_domain]]`` entry."""

    model_config = _STRICT

    name: Name
    address: Address
    kind: Annotated[str, _checked(lambda text: fields.one_of(text, fields.KINDS))] = "ldm"
    ppar_id: Annotated[int, _checked(fields.ppar_id)] = hostlist.NO_PPAR
    xscf_lan0: Address = ""
    xscf_lan1: Address = ""
    weight: Annotated[int, _checked(fields.weight)] = 1
    login: Annotated[str, _checked(fields.login)] = ""
    uri: Annotated[str, _checked(fields.uri)] = ""
    fence_agent: Annotated[str, _checked(host_fencing.agent)] = ""
    fence_parameters: Annotated[dict[str, object], _checked(host_fencing.parameters)] = {}

    @model_validator(mode="after")
    def _three_addresses(self) -> ControlDomain:
        given = [address for address in (self.address, self.xscf_lan0, self.xscf_lan1) if address]
        if len(set(given)) < len(given):
            raise PydanticCustomError("standfast_entry", "address, xscf_lan0 and xscf_lan1 must all differ")
        return self

    @property
    def connection(self) -> str:
        """The libvirt URI, also where the file leaves it out."""
        return self.uri or ("qemu:///system" if self.kind == "libvirt" else "")

    def whole(self) -> dict[str, Any]:
        """All fields, with what the file leaves out."""
        fencing = tuple(self.fence_parameters.items())
        return {**self.model_dump(), "uri": self.connection, "fence_parameters": fencing}


class Config(BaseModel):
    """The whole file. Times are in the unit of their name."""

    model_config = _STRICT

    format: int
    budget_seconds: Annotated[int, _checked(fields.budget_seconds)] = 600
    lease_minutes: Annotated[int, _checked(fields.lease_minutes)] = 240
    maintenance_mode: bool = False
    clock_threshold_seconds: Annotated[int, _checked(fields.clock_threshold_seconds)] = THRESHOLD_SECONDS
    clock_period_seconds: Annotated[int, _checked(fields.clock_period_seconds)] = PERIOD_SECONDS
    repair: Annotated[str, _checked(lambda text: fields.one_of(text, fields.REPAIRS))] = "ask"
    auto_window: bool = False
    clock_step: Annotated[str, _checked(lambda text: fields.one_of(text, fields.CLOCK_STEPS))] = "off"
    identity_file: AbsolutePath = names.CONTROL_DOMAIN_KEY_FILE
    known_hosts: AbsolutePath = names.KNOWN_HOSTS_FILE
    control_domain: Annotated[list[ControlDomain], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_kind(self) -> Config:
        kinds = {entry.kind for entry in self.control_domain}
        if "ldm" in kinds and len(kinds) > 1:
            text = "ldm and other kinds are in one file: no guest moves between them"
            raise PydanticCustomError("standfast_kinds", "{text}", {"text": text})
        return self

    @property
    def clock_limits(self) -> Limits:
        """How far clocks may differ, and how often that is said."""
        return Limits(self.clock_threshold_seconds, self.clock_period_seconds)

    @property
    def hosts(self) -> hostlist.HostList:
        """The control domains as the pure core knows them."""
        domains = tuple(hostlist.ControlDomain(**entry.whole()) for entry in self.control_domain)
        return hostlist.HostList(self.identity_file, self.known_hosts, domains)

    def find_host(self, name_or_address: str, etc_hosts: str = ETC_HOSTS) -> hostlist.ControlDomain:
        """The control domain that an IP address or a registered host name means.

        Looks in the file, then in /etc/hosts; never asks the network. Raises hostlist.HostLookupError.
        """
        try:
            registered = hostlist.parse_hosts(Path(etc_hosts).read_text(errors="replace"))
        except OSError:
            registered = {}
        return self.hosts.find(name_or_address, registered)


@dataclass(frozen=True)
class Loaded:
    """A file that was read: what it says, and the fingerprint by which nodes compare it."""

    path: str
    config: Config
    fingerprint: str
    """SHA-256 of the file's bytes, in hexadecimal."""


def load(path: str = names.CONFIG_FILE) -> Loaded:
    """Read and check the file. Raises ConfigError."""
    data = _read(path)
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, (Problem("file", "", f"not TOML: {error}"),)) from None
    found = document.get("format")
    if found != hostlist.FORMAT or type(found) is not int:
        text = "is missing" if found is None else f"is {found!r}"
        raise ConfigError(path, (Problem("file", "format", f"{text}; must be {hostlist.FORMAT}"),))
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems = tuple(_problem(document, detail) for detail in error.errors())
        raise ConfigError(path, problems) from None
    wrong = (*_unfitting(config), *_used_twice(config), *_fencing(config))
    if wrong:
        raise ConfigError(path, wrong)
    return Loaded(path, config, hashlib.sha256(data).hexdigest())


def fingerprint(path: str = names.CONFIG_FILE) -> str:
    """SHA-256 of the file's bytes, without checking what it says. Raises ConfigError."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
        raise ConfigError(path, (Problem("file", "", text),)) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(path, (Problem("file", "", f"is larger than {MAX_CONFIG_BYTES} bytes"),))
    return data


def _unfitting(config: Config) -> Iterator[Problem]:
    """Fields that an entry's kind needs or cannot have."""
    for number, entry in enumerate(config.control_domain, 1):
        given = frozenset(entry.model_fields_set)
        for field, text in hostlist.unfitting(entry.kind, given, entry.login, entry.connection):
            yield Problem(f"control_domain {number} ({entry.name})", field, text)


def _used_twice(config: Config) -> Iterator[Problem]:
    """What must be unique. An XSCF may serve several partitions, but a partition has one control domain."""
    keys: dict[str, Callable[[ControlDomain], str]] = {
        "name": lambda entry: entry.name.lower(),
        "address": lambda entry: entry.address,
        "xscf_lan0": lambda entry: f"{entry.xscf_lan0} with ppar_id {entry.ppar_id}",
        "xscf_lan1": lambda entry: f"{entry.xscf_lan1} with ppar_id {entry.ppar_id}",
    }
    for field, key in keys.items():
        # What an entry does not have is not used twice.
        entries = [entry for entry in config.control_domain if getattr(entry, field)]
        for value, times in Counter(map(key, entries)).items():
            if times > 1:
                users = ", ".join(entry.name for entry in entries if key(entry) == value)
                yield Problem("control_domain", field, f"{value} is used by {users}; must be used once")


def _fencing(config: Config) -> Iterator[Problem]:
    """What is wrong between the entries about the agent that kills through the hosts."""
    entries = config.hosts.hosts
    listed = [(entry.name, entry.fence_agent, dict(entry.fence_parameters)) for entry in entries]
    for field, text in host_fencing.disagreeing(listed):
        yield Problem("control_domain", field, text)


_WHAT = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "int_type": "must be a whole number",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be [[control_domain]] tables",
    "dict_type": "must be a table",
    "model_type": "must be a [[control_domain]] table",
    "too_short": "at least one [[control_domain]] is needed",
}


def _problem(document: dict[str, Any], detail: ErrorDetails) -> Problem:
    """A validation error in the words of the file."""
    where = list(detail["loc"])
    text = _WHAT.get(detail["type"], detail["msg"])
    if detail["type"] == "extra_forbidden":
        model = ControlDomain if len(where) > 1 else Config
        text += f"; known are {', '.join(model.model_fields)}"
    if len(where) > 1 and where[0] == "control_domain" and isinstance(where[1], int):
        entry = document["control_domain"][where[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        label = f"control_domain {where[1] + 1}" + (f" ({name})" if isinstance(name, str) else "")
        return Problem(label, ".".join(map(str, where[2:])), text)
    return Problem("file", ".".join(map(str, where)), text)
