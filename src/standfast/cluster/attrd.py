"""What each node reports to the others: the private attribute `standfast-report`.

A private attribute is seen on the other nodes within 50 ms, starts no scheduler run and is never written to
the CIB. A node that the ring has dropped, or that was restarted, has none. While the ring is stalled
`publish` succeeds at once and nothing is delivered: only what `reports` shows counts, so a report carries
what it answers to (the epoch).
"""

from __future__ import annotations

import base64
import re

from standfast.cluster.run import EngineError, run

ATTRIBUTE = "standfast-report"
MAX_VALUE_BYTES = 64 * 1024
_ENCODED = "b64:"
_NO_SUCH_ATTRIBUTE = "attribute does not exist"
_LINE = re.compile(r'name="' + ATTRIBUTE + r'" host="([^"]+)" value="(.*)"')


def publish(value: str, limit_seconds: float = 5.0) -> None:
    """Make `value` this node's report. Success does not mean that anybody has seen it.

    Raises EngineError, ValueError where it is longer than MAX_VALUE_BYTES.
    """
    encoded = encode(value)
    if len(encoded) > MAX_VALUE_BYTES:
        raise ValueError(f"a report has at most {MAX_VALUE_BYTES} bytes, not {len(encoded)}")
    argv = ["attrd_updater", f"--name={ATTRIBUTE}", f"--update={encoded}", "--private"]
    result = run(argv, limit_seconds=limit_seconds)
    if not result.ok:
        raise EngineError(f"this node's report could not be published: {result.complaint()}")


def reports(limit_seconds: float = 5.0) -> dict[str, str]:
    """The reports of all nodes that have one, as this node sees them now. Raises EngineError."""
    result = run(["attrd_updater", "--query", "--all", f"--name={ATTRIBUTE}"], limit_seconds=limit_seconds)
    if _NO_SUCH_ATTRIBUTE in result.stderr:
        return {}
    if not result.ok:
        raise EngineError.of("the nodes' reports cannot be read", result)
    return parse(result.stdout)


def parse(text: str) -> dict[str, str]:
    """The answer of `attrd_updater --query --all`: it quotes but does not escape, one node a line."""
    matches = [_LINE.fullmatch(line) for line in text.splitlines()]
    found = {match[1]: decode(match[2]) for match in matches if match}
    return {node: value for node, value in found.items() if value}


def encode(value: str) -> str:
    """The value as attrd keeps it unchanged.

    attrd_updater 2.1.5 refuses what is not ASCII in the C locale, prints a newline as two characters and
    counts up a value that ends in `++` or `+=N`. JSON made with ensure_ascii passes as it is.
    """
    if re.fullmatch(r"\{[ -~]*\}", value) or not value:
        return value
    # The alphabet without "+", which could stand twice at the end.
    return _ENCODED + base64.urlsafe_b64encode(value.encode()).decode()


def decode(value: str) -> str:
    """The reverse of `encode`; a damaged value is empty, as if there were none."""
    if not value.startswith(_ENCODED):
        return value
    try:
        return base64.b64decode(value.removeprefix(_ENCODED), altchars=b"-_", validate=True).decode()
    except ValueError:
        return ""
