"""Passwords on this node: asked for without echo, kept in root's files, never anywhere else.

One file a cluster node, one line, mode 0600 in a folder of mode 0700. A file is replaced as a whole (written
beside it, synced, renamed), so that an agent which reads it meanwhile sees the old or the new one.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import tempfile
from pathlib import Path

from standfast.core.messages import Message, Refused
from standfast.core.names import SECRETS_DIR

MAX_PASSWORD_CHARS = 256
PROMPTS = ("Enter User's Password:", "Re-enter User's Password:")
"""The texts of PRIMECLUSTER's sibling tools."""


class SecretStore:
    """The folder with the passwords. Raises Refused (nothing changed) where a file cannot be used."""

    def __init__(self, folder: str = SECRETS_DIR) -> None:
        self.folder = Path(folder)

    def path(self, node: str) -> Path:
        """Where the password for `node` is kept."""
        return self.folder / f"xscf-{node}"

    def has(self, node: str) -> bool:
        """Whether there is one."""
        return self.path(node).exists()

    def read(self, node: str) -> str | None:
        """The password for `node`; None where there is none."""
        try:
            return self.path(node).read_text().removesuffix("\n")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise _refused("setup.secret-unreadable", f"{self.path(node)} cannot be read: {error}") from None

    def write(self, node: str, password: str) -> None:
        """Keep the password for `node`; on disk when this returns."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            target = self._target(node)
            descriptor, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
            try:
                with os.fdopen(descriptor, "w") as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(password + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
            _sync(target.parent)
        except OSError as error:
            text = f"the password cannot be stored in {self.path(node)}: {error.strerror}"
            raise _refused("setup.secret-unwritable", text) from None

    def remove(self, node: str) -> bool:
        """Delete the password for `node`; False where there was none."""
        try:
            target = self._target(node)
            target.unlink()
            _sync(target.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            text = f"{self.path(node)} cannot be deleted: {error.strerror}"
            raise _refused("setup.secret-unwritable", text) from None
        return True

    def _target(self, node: str) -> Path:
        """The file itself: where somebody keeps it elsewhere by a link, it is replaced or deleted there."""
        return Path(os.path.realpath(self.path(node)))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def from_file(path: str) -> str:
    """The password in a file of one line. Raises Refused."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_PASSWORD_CHARS * 8)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _refused("setup.password-file", f"password file {path} cannot be read: {why}") from None
    return _checked(text.removesuffix("\n"), f"password file {path}")


def from_terminal() -> str:
    """Ask twice, without echo. Raises Refused where they differ or there is no terminal."""
    if not sys.stdin.isatty():
        text = "there is no terminal to ask for the password; nothing was changed"
        raise _refused("setup.no-terminal", text, "use --password-file FILE")
    try:
        first, second = (getpass.getpass(prompt) for prompt in PROMPTS)
    except EOFError:
        raise _refused("setup.no-password", "no password was given; nothing was changed") from None
    if first != second:
        raise _refused("setup.password-differs", "the two passwords differ; nothing was changed")
    return _checked(first, "the password")


def _checked(password: str, what: str) -> str:
    if not password:
        raise _refused("setup.password-empty", f"{what} is empty; nothing was changed")
    if len(password) > MAX_PASSWORD_CHARS or not password.isprintable():
        wanted = f"one line of at most {MAX_PASSWORD_CHARS} printable characters"
        raise _refused("setup.password-form", f"{what} must be {wanted}; nothing was changed")
    return password


def _refused(code: str, text: str, next_command: str = "") -> Refused:
    return Refused(Message(code, text, next_command=next_command))
