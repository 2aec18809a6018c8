"""The heartbeat timeout as corosync's keys: what to write, what to expect, how to go back.

Operators see one number, the heartbeat timeout: token + consensus, 1 : 1.2. Corosync derives four further
timers from the token, and a raised token alone makes the cluster unable to write for minutes after a
blackout, so all of them are always written together. All values are milliseconds unless a name says
otherwise. Keys of a file are strings as in corosync.conf; runtime values are integers as in cmap.
"""

from __future__ import annotations

from collections.abc import Mapping

TOKEN = "token"
TOKEN_COEFFICIENT = "token_coefficient"
TOKEN_RETRANSMIT = "token_retransmit"
HOLD = "hold"
CONSENSUS = "consensus"
PING_INTERVAL = "interface.0.knet_ping_interval"
PING_TIMEOUT = "interface.0.knet_ping_timeout"
PONG_COUNT = "interface.0.knet_pong_count"

KEYS = (
    TOKEN,
    TOKEN_COEFFICIENT,
    TOKEN_RETRANSMIT,
    HOLD,
    CONSENSUS,
    PING_INTERVAL,
    PING_TIMEOUT,
    PONG_COUNT,
)
"""The keys of the totem section that a window may change, in the order in which they are written."""

KNET_KEYS = (PING_INTERVAL, PING_TIMEOUT, PONG_COUNT)
"""Those of them that are a link's own, and no part of the heartbeat timeout."""

TIMERS = ("token", "token_retransmit", "hold", "consensus")
"""The runtime values of the heartbeat timeout and what goes with it: a running corosync takes them over one
by one through its map, on its own node alone, and keeps them until the next reload."""

RUNTIME_NAMES = {
    TOKEN: "token",
    TOKEN_RETRANSMIT: "token_retransmit",
    HOLD: "hold",
    CONSENSUS: "consensus",
    PING_INTERVAL: "knet_ping_interval",
    PING_TIMEOUT: "knet_ping_timeout",
}
"""File key -> name of the runtime value. token_coefficient has none, it is part of the token; corosync 3.1.7
shows no runtime value of knet_pong_count (it is a divisor of the two ping values)."""

# exec/totemconfig.c of corosync 3.1.7
_DEFAULT_TOKEN = 3000
_DEFAULT_COEFFICIENT = 650
RETRANSMITS_BEFORE_LOSS = 4
_TICK = 10
_DEFAULT_PONG_COUNT = 2


def split(timeout_ms: int) -> tuple[int, int]:
    """token and consensus whose sum is `timeout_ms`, 1 : 1.2 (600000 -> 272727 + 327273)."""
    token = timeout_ms * 10 // 22
    return token, timeout_ms - token


def raised(budget_seconds: float) -> dict[str, str]:
    """The keys for a heartbeat timeout of `budget_seconds`.

    token_retransmit 500 and hold 400 keep one lost token from costing a quarter of the token after a
    blackout; a ping timeout above the budget keeps the link from being declared down in it (with both the
    first write after a 20 s blackout took 0.03 to 0.07 s, with neither more than 60 s).
    """
    budget_ms = round(budget_seconds * 1000)
    token, consensus = split(budget_ms)
    return {
        TOKEN: str(token),
        TOKEN_COEFFICIENT: "0",
        TOKEN_RETRANSMIT: "500",
        HOLD: "400",
        CONSENSUS: str(consensus),
        PING_INTERVAL: "1000",
        PING_TIMEOUT: str(max(60_000, budget_ms)),
        PONG_COUNT: "1",
    }


def is_raised(keys: Mapping[str, str]) -> bool:
    """Whether these are exactly the keys that a window writes, with whatever budget."""
    try:
        budget_ms = int(keys[TOKEN]) + int(keys[CONSENSUS])
    except (KeyError, ValueError):
        return False
    return dict(keys) == raised(budget_ms / 1000)


def expected_runtime(
    file_keys: Mapping[str, str | None],
    node_count: int,
    retransmits_before_loss: int = RETRANSMITS_BEFORE_LOSS,
) -> dict[str, int]:
    """The runtime values of a corosync 3.1.7 that has just been STARTED with these keys.

    Source: exec/totemconfig.c of corosync 3.1.7, compared with the cmap of real daemons (tests/lab):

    * token = token (3000) + (nodes - 2) x token_coefficient (650) with three and more nodes;
    * token_retransmit = token / (token_retransmits_before_loss_const (4) + 0.2), cut; that key is not one of
      KEYS, its value is an argument;
    * hold = token_retransmit x 0.8 - 10, cut; consensus = 1.2 x token, cut;
    * knet_ping_timeout = token / pong_count (2); knet_ping_interval = token / (2 x pong_count).

    A zero counts as absent. After a RELOAD that removes knet keys the two ping values are derived from
    the token in force before it (one reload behind), so a second reload is needed to get these values.
    """

    def number(key: str) -> int:
        return int(file_keys.get(key) or 0)

    token = number(TOKEN) or _DEFAULT_TOKEN
    if node_count > 2:
        coefficient = file_keys.get(TOKEN_COEFFICIENT)
        token += (node_count - 2) * (_DEFAULT_COEFFICIENT if coefficient is None else int(coefficient))
    retransmit = number(TOKEN_RETRANSMIT) or int(token / (retransmits_before_loss + 0.2))
    pongs = number(PONG_COUNT) or _DEFAULT_PONG_COUNT
    return {
        "token": token,
        "token_retransmit": retransmit,
        "hold": number(HOLD) or int(retransmit * 0.8 - _TICK),
        "consensus": number(CONSENSUS) or int(1.2 * token),
        "knet_ping_interval": number(PING_INTERVAL) or token // (pongs * 2),
        "knet_ping_timeout": number(PING_TIMEOUT) or token // pongs,
    }


def explicit(runtime: Mapping[str, int]) -> dict[str, str]:
    """Keys that give exactly these runtime values, whatever was in force before (PONG_COUNT is not named).

    Written on the way down first: with the old keys merely deleted, corosync would derive the ping values
    from the raised token and ping every 68 s until the next reload.
    """
    keys = {key: str(runtime[name]) for key, name in RUNTIME_NAMES.items() if name in runtime}
    keys[TOKEN_COEFFICIENT] = "0"
    return {key: keys[key] for key in KEYS if key in keys}


def timeout_ms(runtime: Mapping[str, int]) -> int:
    """The heartbeat timeout that these runtime values mean: token + consensus."""
    return runtime["token"] + runtime["consensus"]
