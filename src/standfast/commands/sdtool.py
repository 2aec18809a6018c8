"""sdtool: the state of the shutdown facility, and its switch, on this node.

Options and table as in the PRIMECLUSTER manuals (Cluster Foundation guide, 7.5.2; Installation and
Administration Guide 4.3, 14.3.3). Everything is asked of this node's standfastd; nothing is decided here.
Starts in well under a tenth of a second: only the standard library is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from standfast.commands.daemon_client import DaemonError, ask
from standfast.core.names import SOCKET_FILE

DONE, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130

STATUS_LIMIT_SECONDS = 10.0
FACILITY_LIMIT_SECONDS = 60.0
KILL_LIMIT_SECONDS = 900.0
"""Four agents one after the other, each with its own time limit, and the gate's waits."""

HEADER = (
    "Cluster Host Agent             SA State Shut State Test State Init State",
    "------------ -----             -------- ---------- ---------- ----------",
)
_COLUMNS = (
    ("host", 12),
    ("agent", 17),
    ("sa_state", 8),
    ("shut_state", 10),
    ("test_state", 10),
    ("init_state", 10),
)


def table(agents: Sequence[Mapping[str, object]]) -> list[str]:
    """The lines of `sdtool -s`: header, rule, a row for each agent of each node. Long names push the row."""
    rows = [" ".join(f"{agent.get(key, '')!s:<{width}}" for key, width in _COLUMNS) for agent in agents]
    return [*HEADER, *(row.rstrip() for row in rows)]


def remarks(status: Mapping[str, object]) -> Iterator[str]:
    """What a reader of the table must know besides: nothing as long as all is normal."""
    if status.get("facility") == "stopped":
        node = status.get("node", "this node")
        yield f"The shutdown facility is stopped on {node}: no tests, no kills. Start it: sdtool -b"
    if status.get("engine") is False:
        yield "Corosync or Pacemaker does not answer on this node: what stands above is from before."
    window = status.get("window")
    if isinstance(window, Mapping) and window.get("phase") not in (None, "idle"):
        yield (
            f"A migration window is {window['phase']}: {_held(window)} "
            "Close it: clovmmigrate -u source-ldom target-host"
        )
    moved = status.get("unannounced")
    for row in moved if isinstance(moved, list) else ():
        yield f"ALARM: {row['text']} Type: {row['next_command']}"
    yield from clocks(status.get("clocks"))
    if not status.get("agents"):
        yield "No shutdown agent is registered. Register each node: clsnmpsetup -a, or standfast node add"


def clocks(found: object) -> Iterator[str]:
    """Which clocks do not agree with this node's; nothing where all do. Not measured yet is said too."""
    if not isinstance(found, Mapping):
        return
    if found.get("error"):
        yield f"The clocks of the other nodes are not measured: {found['error']}"
    rows = found.get("hosts")
    for row in rows if isinstance(rows, list) else ():
        if row.get("clock") == "out":
            by = row["offset_seconds"]
            yield f"The clock of {row['host']} differs from that of this node by {by:+.1f} s."
        elif row.get("clock") != "agrees" and not found.get("error"):
            yield f"The clock of {row['host']} is not measured at the moment."


def _held(window: Mapping[str, object]) -> str:
    if window.get("left"):
        return f"{window['left']}."
    if window.get("mode") == "guarded":
        return f"{window.get('mover')} is held while hosts show it alive; the others are killed as always."
    return "no node is killed until it is closed."


def main(argv: Sequence[str] | None = None, socket_path: str = SOCKET_FILE) -> int:
    """The command. Exit code 0 done, 1 refused, 2 usage."""
    options = _parser().parse_args(argv)
    try:
        code = _run(options, socket_path)
        sys.stdout.flush()
        return code
    except DaemonError as error:
        if options.json:
            print(json.dumps({"ok": False, "error": str(error), "hint": error.hint}))
        else:
            next_line = f"\n  next: {error.hint}" if error.hint else ""
            print(f"sdtool: {error}{next_line}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nsdtool: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _run(options: argparse.Namespace, path: str) -> int:
    if options.kill is not None:
        return _kill(options, path)
    if options.status:
        return _show(ask({"op": "status"}, STATUS_LIMIT_SECONDS, path), options.json)
    requests: dict[str, tuple[dict[str, object], str]] = {
        "begin": ({"op": "facility", "want": "start"}, "The shutdown facility is started on this node."),
        "end": ({"op": "facility", "want": "stop"}, "The shutdown facility is stopped on this node."),
        "reread": ({"op": "retest"}, "The configuration is read anew; all agents are tested."),
        "clean": ({"op": "reopen-logs"}, "The log files are opened anew."),
    }
    request, done = next(requests[name] for name in requests if getattr(options, name))
    answer = ask(request, FACILITY_LIMIT_SECONDS, path)
    print(json.dumps(answer) if options.json else answer.get("note") or done)
    return DONE


def _show(status: dict[str, object], as_json: bool, only: str | None = None) -> int:
    if as_json:
        print(json.dumps(status, indent=2))
        return DONE
    agents = status.get("agents")
    rows = [row for row in agents if isinstance(row, dict)] if isinstance(agents, list) else []
    print("\n".join(table([row for row in rows if only in (None, row.get("host"))])))
    for line in remarks(status) if only is None else ():
        print(line)
    return DONE


def _kill(options: argparse.Namespace, path: str) -> int:
    node = options.kill
    if not options.yes and not _confirmed(node):
        return USAGE if not sys.stdin.isatty() else REFUSED
    answer = ask({"op": "kill", "node": node}, KILL_LIMIT_SECONDS, path)
    if options.json:
        print(json.dumps(answer))
        return DONE
    print(answer.get("note") or f"{node} has been killed.")
    return _show(ask({"op": "status"}, STATUS_LIMIT_SECONDS, path), False, only=node)


def _confirmed(node: str) -> bool:
    if not sys.stdin.isatty():
        print(f"sdtool: -k {node} asks first, and there is no terminal; use --yes", file=sys.stderr)
        return False
    print(f"Kill node {node} now? What runs on it stops at once. [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("sdtool: nothing was done", file=sys.stderr)
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdtool",
        description="Shows and switches the shutdown facility on this node.",
        epilog="Exit status: 0 done, 1 refused or standfastd not running, 2 usage.",
        allow_abbrev=False,
    )
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("-s", dest="status", action="store_true", help="show the state of all shutdown agents")
    one.add_argument("-b", dest="begin", action="store_true", help="start the shutdown facility on this node")
    one.add_argument("-e", dest="end", action="store_true", help="stop the shutdown facility on this node")
    one.add_argument(
        "-r", dest="reread", action="store_true", help="read the configuration anew and test all agents"
    )
    one.add_argument("-k", dest="kill", metavar="NODE", help="kill a node (asks first)")
    one.add_argument("-C", dest="clean", action="store_true", help="close and open the log files anew")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--yes", action="store_true", help="do not ask (-k)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
