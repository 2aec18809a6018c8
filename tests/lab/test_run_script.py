"""`./run`: what it refuses, and that apt's service policy is as before, however the call ends.

The policy is tried in a mount namespace with a layer over /usr/sbin and a stand-in for apt-get: no package,
no file of this machine is touched.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "run"
POLICY = "/usr/sbin/policy-rc.d"
OWN_POLICY = "#!/bin/sh\n# the machine's own\nexit 0\n"
APT_GET = f"""#!/bin/sh
case "$*" in *install*) ;; *) exit 0 ;; esac
cp {POLICY} "$STAND_IN/during"; echo "$*" > "$STAND_IN/asked"; touch "$STAND_IN/installing"
sleep "$STAND_IN_SECONDS"; exit "${{STAND_IN_APT_EXIT:-0}}"
"""
DPKG_QUERY = """#!/bin/sh
case "$*" in *" corosync" | *" qemu-system-x86") exit 1 ;; esac
exec /usr/bin/dpkg-query "$@"
"""
# The layer, the policy before, ./run, and what is there afterwards. Ctrl-C is for ./run alone.
INSIDE = f"""
cd "$STAND_IN" || exit 99
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$PWD/upper,workdir=$PWD/work" /usr/sbin || exit 99
rm -f {POLICY}; [ ! -f "$STAND_IN/before" ] || cp -p "$STAND_IN/before" {POLICY}
trap : INT TERM
PATH="$STAND_IN/bin:$PATH" env --default-signal=INT,TERM {RUN} $STAND_IN_COMMAND
echo $? > "$STAND_IN/exit-code"
[ ! -f {POLICY} ] || cp -p {POLICY} "$STAND_IN/after"
ls {POLICY}* > "$STAND_IN/left"
"""


@pytest.mark.parametrize("before", [OWN_POLICY, None], ids=["with a policy", "without a policy"])
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["to its end", "interrupted", "terminated"],
)
def test_apt_starts_no_service_and_the_policy_is_as_before_afterwards(
    tmp_path: Path, before: str | None, number: signal.Signals | None, exit_code: int
) -> None:
    _stand_in(tmp_path, before)
    with _inside(tmp_path, "lab status", STAND_IN_SECONDS="0.1" if number is None else "20") as process:
        if number is not None:
            _wait_for(tmp_path / "installing")
            os.killpg(process.pid, number)
        process.wait(60)
    assert (tmp_path / "during").read_text().endswith("exit 101\n")
    assert int((tmp_path / "exit-code").read_text()) == exit_code
    left = (tmp_path / "left").read_text().split()
    assert left == ([POLICY] if before else [])
    if before:
        assert (tmp_path / "after").read_text() == before
        assert (tmp_path / "after").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("lab status", False),
        pytest.param("lab up --vm", True, marks=pytest.mark.full),
        ("test lab", False),
        ("test vm", True),
    ],
)
def test_what_real_guests_need_is_installed_for_them_alone(
    tmp_path: Path, command: str, wanted: bool
) -> None:
    """apt-get fails here, so nothing comes after it."""
    _stand_in(tmp_path, None)
    with _inside(tmp_path, command, STAND_IN_SECONDS="0", STAND_IN_APT_EXIT="100") as process:
        process.wait(60)
    assert int((tmp_path / "exit-code").read_text()) == 1
    asked = (tmp_path / "asked").read_text().split()
    assert ("corosync" in asked, "qemu-system-x86" in asked) == (True, wanted)


def test_run_refuses_on_a_machine_that_runs_corosync_itself(tmp_path: Path) -> None:
    """In a network of its own: for other labs of this machine its false corosync is not there."""
    shutil.copy("/bin/sleep", tmp_path / "corosync")
    script = f"{tmp_path}/corosync 60 & trap 'kill $!' EXIT; {RUN} demo"
    refused = subprocess.run(
        ["unshare", "--net", "bash", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "it is a cluster node, and nothing was done" in refused.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nonsense"], "unknown command nonsense"),
        (["test", "nonsense"], "unknown tier nonsense"),
        (["test", "--nonsense"], "unknown option --nonsense"),
        (["bench", "nonsense"], "which measurement?"),
    ],
)
def test_run_names_what_it_does_not_know(argv: list[str], words: str) -> None:
    refused = subprocess.run([RUN, *argv], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert words in refused.stderr


def test_run_needs_root() -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    refused = subprocess.run([*as_nobody, RUN, "demo"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr == "run: labs make namespaces and cgroups: run this as root\n"


def _inside(directory: Path, command: str, **settings: str) -> subprocess.Popen[bytes]:
    """`./run COMMAND` among the stand-ins of `directory`."""
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", INSIDE],
        env={**os.environ, "STAND_IN": str(directory), "STAND_IN_COMMAND": command, **settings},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _stand_in(directory: Path, before: str | None) -> None:
    for name in ("bin", "upper", "work"):
        (directory / name).mkdir()
    for name, text in (("apt-get", APT_GET), ("dpkg-query", DPKG_QUERY)):
        (directory / "bin" / name).write_text(text)
        (directory / "bin" / name).chmod(0o755)
    if before is not None:
        (directory / "before").write_text(before)
        (directory / "before").chmod(0o750)


def _wait_for(path: Path, limit_seconds: float = 30.0) -> None:
    deadline = time.monotonic() + limit_seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.01)
