"""Programs onto a node and off it again, in a folder that plays the node's root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from standfast.commands import build_gate, install
from standfast.core.names import SECRETS_DIR


def call(*words: str) -> Result:
    return CliRunner().invoke(install.compat if words[0] == "compat" else _command(words[0]), words[1:])


def _command(name: str):  # type: ignore[no-untyped-def]
    return {"install": install.install, "uninstall": install.uninstall}[name]


def everything(root: Path) -> dict[str, str]:
    """Every path below `root` with its mode and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes().hex()
        found[str(path.relative_to(root))] = f"{stat.st_mode:o} {content}"
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/sbin", "etc/systemd/system", "etc/opt", "opt", "var/lib", "var/log"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/sbin/other").write_text("not ours")
    return tmp_path


def test_uninstalling_takes_away_exactly_what_was_installed(root: Path) -> None:
    before = everything(root)
    assert call("install", "--root", str(root)).exit_code == 0
    installed = everything(root)
    assert {f"usr/sbin/{name}" for name in (*install.WRAPPED, build_gate.PROGRAM)} <= set(installed)
    assert "etc/systemd/system/standfastd.service" in installed
    assert oct((root / SECRETS_DIR.lstrip("/")).stat().st_mode)[-3:] == "700"
    assert oct((root / "etc/standfast").stat().st_mode)[-3:] == "755"
    assert call("uninstall", "--root", str(root)).exit_code == 0
    assert everything(root) == before


def test_installing_twice_changes_nothing(root: Path) -> None:
    call("install", "--root", str(root))
    before = everything(root)
    again = call("install", "--root", str(root))
    assert "nothing was changed" in again.output
    assert everything(root) == before


def test_a_file_of_others_is_never_written_over_and_nothing_else_is_changed(root: Path) -> None:
    (root / "usr/sbin/sdtool").write_text("PRIMECLUSTER's own")
    before = everything(root)
    refused = call("install", "--root", str(root))
    assert refused.exit_code == 1
    assert "usr/sbin/sdtool" in refused.output
    assert "nothing was changed" in refused.output
    assert everything(root) == before


def test_with_a_prefix_the_names_of_others_stay_free(root: Path) -> None:
    (root / "usr/sbin/sdtool").write_text("PRIMECLUSTER's own")
    assert call("install", "--root", str(root), "--prefix-programs").exit_code == 0
    assert "bin/sdtool" in (root / "usr/sbin/standfast-sdtool").read_text()
    assert (root / "usr/sbin/fence_standfast").exists()
    assert not (root / "usr/sbin/clovmmigrate").exists()


def test_an_old_gate_and_old_wrappers_are_renewed_even_without_the_manifest(root: Path) -> None:
    call("install", "--root", str(root))
    before = everything(root)
    (root / "usr/sbin/sdtool").write_text(f"#!/bin/sh\n# {install.MARK}\nexec /old/place\n")
    (root / install.MANIFEST.lstrip("/")).unlink()
    assert call("install", "--root", str(root)).exit_code == 0
    assert everything(root)["usr/sbin/sdtool"] == before["usr/sbin/sdtool"]


def test_configuration_secrets_and_changed_files_stay(root: Path) -> None:
    call("install", "--root", str(root))
    (root / "etc/standfast/secrets/xscf-n2").write_text("secret")
    (root / "etc/systemd/system/standfastd.service").write_text("[Unit]\n# by hand\n")
    done = call("uninstall", "--root", str(root))
    assert "left /etc/systemd/system/standfastd.service" in done.output
    assert (root / "etc/standfast/secrets/xscf-n2").read_text() == "secret"
    assert (root / "etc/systemd/system/standfastd.service").exists()
    assert not (root / "usr/sbin/standfast").exists()


def test_uninstalling_where_nothing_is_says_so(root: Path) -> None:
    assert "Nothing of Standfast" in call("uninstall", "--root", str(root)).output


def test_a_damaged_manifest_is_named(root: Path) -> None:
    path = root / install.MANIFEST.lstrip("/")
    path.parent.mkdir()
    path.write_text("[")
    refused = call("uninstall", "--root", str(root))
    assert (refused.exit_code, str(path) in refused.output) == (1, True)


def test_the_wrapper_starts_the_program_of_this_environment(tmp_path: Path) -> None:
    install.programs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*install.WRAPPED, build_gate.PROGRAM}
    for path in tmp_path.iterdir():
        assert os.access(path, os.X_OK)
        assert install.is_ours(path)
    assert os.system(f"{tmp_path}/standfast --version >/dev/null") == 0


def test_the_manuals_paths_are_links_and_go_again(root: Path) -> None:
    before = everything(root)
    assert call("compat", "install", "--root", str(root)).exit_code == 0
    assert str((root / "opt/SMAW/bin/sdtool").readlink()) == "/usr/sbin/sdtool"
    conf = root / "etc/opt/FJSVcluster/etc/clovmmigrate.conf"
    assert str(conf.readlink()) == "/etc/standfast/clovmmigrate.conf"
    assert call("compat", "remove", "--root", str(root)).exit_code == 0
    assert everything(root) == before


def test_a_link_is_never_made_over_an_existing_file(root: Path) -> None:
    (root / "opt/SMAW/bin").mkdir(parents=True)
    (root / "opt/SMAW/bin/sdtool").write_text("PRIMECLUSTER's own")
    before = everything(root)
    refused = call("compat", "install", "--root", str(root))
    assert (refused.exit_code, "opt/SMAW/bin/sdtool" in refused.output) == (1, True)
    assert everything(root) == before


def test_a_gate_that_fencing_still_goes_through_is_not_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer, refused in (('echo "<primitive type=\\"fence_standfast\\"/>"', True), ("exit 105", False)):
        (tmp_path / "cibadmin").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "cibadmin").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        if refused:
            with pytest.raises(install.InstallError, match="would fail without it"):
                install.refuse_in_use()
        else:
            install.refuse_in_use()


def test_a_link_where_a_file_is_wanted_is_named_and_stays(root: Path) -> None:
    call("install", "--root", str(root))
    program, kept = root / "usr/sbin/sdtool", root / "opt/sdtool"
    program.rename(kept)
    program.symlink_to(kept)
    before = everything(root)
    refused = call("install", "--root", str(root))
    assert (refused.exit_code, "usr/sbin/sdtool" in refused.output) == (1, True)
    assert everything(root) == before
    done = call("uninstall", "--root", str(root))
    assert "left /usr/sbin/sdtool" in done.output
    assert program.readlink() == kept
    assert kept.exists()


def test_a_manifest_that_is_kept_elsewhere_stays_there(root: Path) -> None:
    manifest, kept = root / install.MANIFEST.lstrip("/"), root / "opt/manifest"
    manifest.parent.mkdir(parents=True)
    manifest.symlink_to(kept)
    assert call("install", "--root", str(root)).exit_code == 0
    assert manifest.is_symlink()
    assert "usr/sbin/sdtool" in kept.read_text()
    call("uninstall", "--root", str(root))
    assert manifest.is_symlink()
    assert not kept.exists()
    assert not (root / "usr/sbin/sdtool").exists()


def test_a_machine_without_ssh_is_told_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root / "usr/sbin"))
    assert "apt-get install openssh-client" in call("install", "--root", str(root)).output
    (root / "usr/sbin/ssh").touch(mode=0o755)
    assert "openssh-client" not in call("install", "--root", str(root)).output
