"""Trouble on demand. A fault belongs to a host and an endpoint (`lan0`, `lan1`, `ldm`) of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENDPOINTS = ("lan0", "lan1", "ldm")
GROUPS: Mapping[str, tuple[str, ...]] = {"xscf": ("lan0", "lan1"), "*": ENDPOINTS}

KINDS: Mapping[str, Mapping[str, object]] = {
    # sessions
    "login_refused": {},
    "path_dead": {"mode": "silent"},  # silent: accepted, never answered; refused: nobody listens
    "cut": {"match": "", "at": "before"},  # before | question | after, seen from the command's effect
    "hang": {"match": ""},  # the command never comes back
    "latency": {"seconds": 1.0},  # before every piece of output
    "slow_prompt": {"seconds": 1.0},
    "noise": {"text": "NOTICE: something else\n"},  # printed before the prompt
    "newline": {"text": "\n"},
    "echo": {"on": False},
    "autologout": {"seconds": 1.0},
    # XSCF
    "question": {"text": "Really do it? [yes|no] :", "accept": "yes"},
    "standby": {},
    "reset_ignored": {},  # the text says it worked, nothing happens
    "status_frozen": {"texts": None},  # texts: by domain; what is now, if not given
    "status_text": {"name": "", "text": "-"},
    "name_map": {"asked": "", "hit": ""},
    # ldm
    "ldmd_down": {},
    "migration_refused": {"text": "injected", "dry": True},  # dry False: the dry run passes all the same
}


class FaultError(ValueError):
    """A fault that does not exist; the text names those that do."""


@dataclass
class Fault:
    number: int
    kind: str
    host: str
    endpoint: str
    params: dict[str, object] = field(default_factory=dict)
    times: int | None = None

    def hits(self, host: str, endpoint: str) -> bool:
        here = GROUPS.get(self.endpoint, (self.endpoint,))
        return self.host in ("*", host) and endpoint in here

    def seconds(self) -> float:
        return float(str(self.params["seconds"]))

    def string(self, name: str) -> str:
        return str(self.params[name])

    def as_json(self) -> dict[str, object]:
        return {
            "number": self.number,
            "kind": self.kind,
            "host": self.host,
            "endpoint": self.endpoint,
            "params": self.params,
            "times": self.times,
        }


class FaultBook:
    """All faults that are on; the newest wins."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._last = 0

    def inject(
        self,
        kind: str,
        host: str,
        endpoint: str = "*",
        times: int | None = None,
        params: Mapping[str, object] | None = None,
    ) -> Fault:
        """Raises FaultError for a kind, endpoint or parameter that does not exist."""
        if kind not in KINDS:
            raise FaultError(f"no fault {kind!r}; there are {', '.join(KINDS)}")
        if endpoint not in ENDPOINTS and endpoint not in GROUPS:
            raise FaultError(f"no endpoint {endpoint!r}; there are {', '.join([*ENDPOINTS, *GROUPS])}")
        given = dict(params or {})
        if unknown := set(given) - set(KINDS[kind]):
            raise FaultError(f"fault {kind!r} has no parameter {', '.join(sorted(unknown))}")
        self._last += 1
        fault = Fault(self._last, kind, host, endpoint, {**KINDS[kind], **given}, times)
        self._faults.insert(0, fault)
        return fault

    def clear(
        self,
        kind: str | None = None,
        host: str | None = None,
        endpoint: str | None = None,
        number: int | None = None,
    ) -> int:
        """Takes faults away, all that match what is given; answers how many."""
        kept = [
            fault
            for fault in self._faults
            if (kind is not None and fault.kind != kind)
            or (host is not None and fault.host != host)
            or (endpoint is not None and fault.endpoint != endpoint)
            or (number is not None and fault.number != number)
        ]
        gone = len(self._faults) - len(kept)
        self._faults = kept
        return gone

    def find(self, kind: str, host: str, endpoint: str, match: str | None = None) -> Fault | None:
        """The fault that is on here; counts one use of a fault that has a number of times.

        Args:
            match: a command line; only faults whose own `match` is part of it count.
        """
        for fault in self._faults:
            if fault.kind != kind or not fault.hits(host, endpoint):
                continue
            if match is not None and str(fault.params.get("match", "")) not in match:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
            return fault
        return None

    def all(self) -> list[Fault]:
        return list(self._faults)
