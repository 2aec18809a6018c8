"""The command line of `clsnmpsetup`."""

from __future__ import annotations

import argparse

MAX_REASON_CHARS = 500

FIELDS = {
    "domain": "domain",
    "ppar_id": "ppar-id",
    "lan0": "lan0",
    "lan1": "lan1",
    "user": "user",
    "connection": "connection",
    "weight": "weight",
}
"""Field of XscfNode -> option on the command line."""


def check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a usage message (exit code 2) where options do not go together."""
    given = [option for name, option in FIELDS.items() if getattr(options, name) is not None]
    if options.add is not None:
        missing = [f"--{o}" for n, o in FIELDS.items() if n != "weight" and getattr(options, n) is None]
        if missing:
            parser.error(f"-a needs {', '.join(missing)}")
    elif options.modify is not None:
        if not given and not options.password and options.password_file is None:
            parser.error("-m needs at least one field to change, or --password or --password-file")
    elif given or options.password or options.password_file is not None:
        parser.error("fields and passwords go with -a and -m only")
    if bool(options.reason) != (options.forget is not None):
        parser.error("--forget needs --reason TEXT, which goes with nothing else")
    if len(options.reason) > MAX_REASON_CHARS:
        parser.error(f"--reason takes at most {MAX_REASON_CHARS} characters")
    if options.json and not options.list:
        parser.error("--json goes with -l only")


def parser() -> argparse.ArgumentParser:
    """All options; which of them go together is `check_usage`."""
    made = argparse.ArgumentParser(
        prog="clsnmpsetup",
        description="Registers the XSCF data of the cluster nodes. Run -a with all data on one node, then "
        "the same command on each other node: there it stores the password.",
        epilog="Exit status: 0 done, 1 refused (nothing changed) or a check failed, 2 usage.",
        allow_abbrev=False,
    )
    one = made.add_mutually_exclusive_group(required=True)
    one.add_argument("-l", dest="list", action="store_true", help="list what is registered")
    one.add_argument("-a", dest="add", metavar="NODE", help="register a node")
    one.add_argument("-m", dest="modify", metavar="NODE", help="change what is registered for a node")
    one.add_argument("-d", dest="delete", metavar="NODE", help="delete a node's data (asks first)")
    one.add_argument(
        "--forget", metavar="NODE", help="forget the heartbeat values owed to a node that was away (--reason)"
    )
    one.add_argument(
        "--check", nargs="?", const="", metavar="NODE", help="log in to both XSCF-LANs of a node, or of all"
    )
    data = made.add_argument_group("data of a node (-a, -m)")
    data.add_argument("--domain", metavar="D", help="its logical domain")
    data.add_argument("--ppar-id", type=int, metavar="P", help="physical partition, 0 to 15")
    data.add_argument("--lan0", metavar="A", help="address of XSCF-LAN#0")
    data.add_argument("--lan1", metavar="A", help="address of XSCF-LAN#1")
    data.add_argument("--user", metavar="U", help="user on the XSCF")
    data.add_argument("--connection", metavar="C", help="ssh or telnet")
    data.add_argument("--weight", type=int, metavar="W", help="1 (default) to 100")
    data.add_argument("--password", action="store_true", help="ask for the password (-a always asks)")
    data.add_argument("--password-file", metavar="F", help="read the password from the first line of a file")
    made.add_argument("--json", action="store_true", help="print as JSON (-l)")
    made.add_argument("--reason", default="", metavar="TEXT", help="why (--forget); recorded")
    made.add_argument("--yes", action="store_true", help="do not ask (-d)")
    made.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would be changed; change nothing"
    )
    return made
