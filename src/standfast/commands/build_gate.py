"""Builds the program /usr/sbin/fence_standfast: one zip file for the system's own Python.

A zip with source alone would be compiled anew on every call (35 ms, measured), so it holds byte code, and
the source of each module beside it: Python takes the source where the byte code is of another version, after
an upgrade of the system say. Then the gate is slower, never absent.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

PROGRAM = "fence_standfast"
SYSTEM_PYTHON = "/usr/bin/python3"
SHEBANG = b"#!/usr/bin/python3 -IS\n"
COMPILE_LIMIT_SECONDS = 30.0
MARK = b"standfast gate"
"""The zip's comment: by this we know a file that is ours."""

MODULES = (
    "standfast/__init__.py",
    "standfast/sightings.py",
    "standfast/commands/__init__.py",
    "standfast/commands/fence_standfast.py",
    "standfast/commands/gate_children.py",
    "standfast/commands/gate_hosts.py",
    "standfast/commands/gate_log.py",
    "standfast/commands/gate_options.py",
    "standfast/commands/gate_run.py",
    "standfast/commands/gate_sight.py",
    "standfast/commands/gate_tools.py",
    "standfast/core/__init__.py",
    "standfast/core/evidence.py",
    "standfast/core/fields.py",
    "standfast/core/gate.py",
    "standfast/core/gate_trust.py",
    "standfast/core/gate_view.py",
    "standfast/core/host_fencing.py",
    "standfast/core/hostlist.py",
    "standfast/core/jobs.py",
    "standfast/core/ldm.py",
    "standfast/core/names.py",
    "standfast/core/record.py",
    "standfast/core/topology.py",
)
"""All that an ordinary gate imports of ours; a test compares this with what it really imports."""

KILL_MODULES = (
    "standfast/commands/gate_kill.py",
    "standfast/core/confirmed.py",
    "standfast/core/heartbeat.py",
    "standfast/core/killing.py",
)
"""What the killing gate imports besides."""

LIBVIRT_MODULES = (
    "standfast/commands/gate_libvirt.py",
    "standfast/core/libvirt.py",
)
"""What both import besides where clovmmigrate.conf has hosts with libvirt."""

MAIN = '''\
"""fence_standfast. Whatever happens, the exit code is 1 unless the gate has said otherwise."""
import os
import sys
code = 1
# With 0, 1 or 2 closed, the next file that is opened would be taken for a standard stream.
while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(number)
try:
    from standfast.commands.fence_standfast import main
    code = main()
    if sys.stdout is not None:
        sys.stdout.flush()
except BaseException as error:
    code = 1
    os.write(2, f"fence_standfast: held: the gate failed ({type(error).__name__}: {error})\\n".encode())
finally:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        os._exit(code if type(code) is int else 1)
'''

# Runs under the Python that will run the gate: names and source in, marshalled code out.
_COMPILER = """
import importlib._bootstrap_external as external, importlib.util, json, sys, base64
sources = json.load(sys.stdin)
codes = {}
for name, source in sources.items():
    code = compile(source, "fence_standfast/" + name, "exec", dont_inherit=True, optimize=0)
    digest = importlib.util.source_hash(source.encode())
    codes[name] = base64.b64encode(external._code_to_hash_pyc(code, digest, False)).decode()
json.dump(codes, sys.stdout)
"""


class BuildError(Exception):
    """The gate cannot be built; the destination is as it was."""


def build(destination: Path, python: str = SYSTEM_PYTHON) -> None:
    """Write the program to `destination`, in one step, mode 0755. Raises BuildError or OSError."""
    program = content(python)
    new = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        with open(new, "wb") as file:
            file.write(program)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(0o755)
        new.replace(destination)
    finally:
        new.unlink(missing_ok=True)


def content(python: str = SYSTEM_PYTHON) -> bytes:
    """The program's bytes: the same for the same sources and the same Python. Raises BuildError, OSError."""
    package = Path(__file__).resolve().parents[1]
    names = (*MODULES, *KILL_MODULES, *LIBVIRT_MODULES)
    sources = {name: (package.parent / name).read_text("utf-8") for name in names}
    sources["__main__.py"] = MAIN
    return _zip(sources, compiled(sources, python))


def is_ours(path: Path) -> bool:
    """Whether this file is a gate that `build` made."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == MARK
    except (OSError, zipfile.BadZipFile):
        return False


def compiled(sources: dict[str, str], python: str = SYSTEM_PYTHON) -> dict[str, bytes]:
    """Byte code of each source, made by `python`, never checked against a source. Raises BuildError."""
    import base64
    import json

    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", _COMPILER],
            input=json.dumps(sources),
            capture_output=True,
            text=True,
            timeout=COMPILE_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{python} cannot compile the gate: {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BuildError(f"{python} cannot compile the gate (it needs 3.11 or later): {said}")
    return {name: base64.b64decode(code) for name, code in json.loads(done.stdout).items()}


def _zip(sources: dict[str, str], codes: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    out.write(SHEBANG)
    # Stored, not packed: nothing to unpack on each call. Fixed times: same input, same file.
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        archive.comment = MARK
        for name, source in sorted(sources.items()):
            archive.writestr(_entry(name + "c"), codes[name])
            archive.writestr(_entry(name), source)
    return out.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


def main(argv: list[str] | None = None) -> int:
    """``python -m standfast.commands.build_gate DESTINATION``."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m standfast.commands.build_gate DESTINATION", file=sys.stderr)
        return 2
    try:
        build(Path(arguments[0]))
    except (BuildError, OSError) as error:
        print(f"build_gate: {error}; {arguments[0]} is unchanged", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
