"""Names and places that several parts share. One word for one thing, everywhere."""

from __future__ import annotations

import re

CONFIG_DIR = "/etc/standfast"
CONFIG_FILE = "/etc/standfast/clovmmigrate.conf"
SECRETS_DIR = "/etc/standfast/secrets"
KNOWN_HOSTS_FILE = "/etc/standfast/known_hosts"
CONTROL_DOMAIN_KEY_FILE = "/etc/standfast/secrets/control-domain.key"
LEASE_HOOK = "/etc/standfast/lease-hook"
"""A program of the site, called with PERCENT SECONDS-LEFT MOVER when a window reminds of its lease."""
RESCUE_FILE = "/etc/standfast/rescue.xml"

STATE_DIR = "/var/lib/standfast"
JOURNAL_FILE = "/var/lib/standfast/journal.db"
STOPPED_MARKER_FILE = "/run/standfast/facility-stopped"
"""Made by ``sdtool -e``. In /run: so a reboot, which starts the facility, is told from a new daemon."""
LOG_DIR = "/var/log/standfast"
GATE_LOG_FILE = LOG_DIR + "/gate.log"
SWITCHLOG_FILE = LOG_DIR + "/switchlog"
"""Messages in the format of the RMS switchlog."""
ORDERED = "ordered: "
"""In gate.log, before what a host was told to do: such an answer is more than a hold."""

RUN_DIR = "/run/standfast"
SOCKET_FILE = "/run/standfast/standfastd.sock"
DAEMON_LOCK_FILE = "/run/standfast/standfastd.lock"
COMMAND_LOCK_FILE = "/run/standfast/window.lock"
SIGHTINGS_FILE = "/run/standfast/sightings.json"

COROSYNC_CONF = "/etc/corosync/corosync.conf"
CIB_DIR = "/var/lib/pacemaker/cib"
CIB_FILE = "cib.xml"
"""In CIB_DIR: the configuration, written anew and moved into place after each change of it."""

RECORD_SET_ID = "standfast-window"
"""Id of the cluster property set that holds the record (docs/design.md, section 3)."""
REPORT_ATTRIBUTE = "standfast-report"
"""Private node attribute in which each node's daemon reports."""

GATE_AGENT = "fence_standfast"
XSCF_AGENT = "fence_xscf"

SETTLE_SECONDS = 15
"""A released hold killed a healthy, returned node in 7 of 7 runs; refusing 15 s longer cured 8 of 8."""

RELEASE_SECONDS = 60
"""A guest that runs again was a member again after 0.1 to 5.9 s in most runs, after 30.8 and 33.0 s in the
slowest (measured, two nodes): so long a hold by the hosts' word goes on after its reason has ended."""

HOLD_POLL_SECONDS = 5.0
"""A gate that refuses at once is called 25 times a second for as long as the hold lasts."""

_DOMAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")


def is_domain_name(name: str) -> bool:
    """Whether `name` can be a logical domain's: safe as a word of a command, never an option."""
    return _DOMAIN_NAME.fullmatch(name) is not None


def secret_file(node: str) -> str:
    """Where this node keeps the service-processor password for `node`."""
    return f"{SECRETS_DIR}/xscf-{node}"
