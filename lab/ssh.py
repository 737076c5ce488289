# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SSH in a lab: one key for all VMs, and an sshd on each; nothing of the user's own SSH is read or written."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .binaries import find_tool
from .network import SSH_PORT
from .nodes import Node
from .waiting import wait_until


def user() -> str:
    """Who runs the lab, and logs in on its VMs."""
    return pwd.getpwuid(os.getuid()).pw_name


def prepare(folder: Path) -> None:
    """The client's side in `folder`: key, authorized_keys, config."""
    folder.mkdir(mode=0o700)
    _generate_key(folder / "key", "lab")
    shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        # Privilege separation of an sshd that root starts; Debian's unit makes it, a container has none.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (folder / "config").write_text(
        f"Host *\n    User {user()}\n    Port {SSH_PORT}\n    IdentityFile {folder}/key\n    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {folder}/known_hosts\n    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n",
        encoding="utf-8",
    )


def write_known_hosts(folder: Path, nodes: Iterable[Node]) -> None:
    """The host keys of the nodes, whose sshds are configured."""
    lines = []
    for node in nodes:
        kind, key = (node.directory / "ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()[:2]
        lines.append(f"[{node.address}]:{SSH_PORT} {kind} {key}\n")
    (folder / "known_hosts").write_text("".join(lines), encoding="utf-8")


class Sshd:
    """The sshd of one node: its own port, host key and one authorized key; works without root."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._config = node.directory / "sshd_config"
        self._log = node.directory / "sshd.log"
        self._unit = f"{node.name}.sshd"

    def configure(self) -> None:
        """Write its configuration and its key."""
        folder = self._node.directory
        key = folder / "ssh_host_ed25519_key"
        # A home of its own: no login shell reads what the tester's ~/.bashrc starts, and nothing is left in there.
        home = folder / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        if not key.exists():
            _generate_key(key, self._node.name)
        self._config.write_text(
            "# Only for this VM of the lab: its own port, host key and one authorized key; works without root.\n"
            f"ListenAddress {self._node.address}:{SSH_PORT}\nHostKey {key}\n"
            f"AuthorizedKeysFile {self._node.site.directory}/ssh/authorized_keys\nStrictModes no\nPidFile none\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\nMaxStartups 200\nMaxSessions 100\n"
            f"Subsystem sftp internal-sftp\nSetEnv HOME={home}\n",
            encoding="utf-8",
        )

    def start(self, wait: bool = True) -> None:
        """Start it; with `wait` return when it accepts."""
        sshd = str(find_tool("sshd", "openssh-server"))
        self._node.site.units.start(self._unit, [sshd, "-D", "-e", "-f", str(self._config)], self._log)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when it accepts connections."""
        address = self._node.address
        wait_until(f"the sshd of {self._node.name} accepts", lambda: _accepts(address, SSH_PORT), 10, self._log)

    def stop(self) -> None:
        """Kill it and its open sessions; commands that they have started live on."""
        self._node.site.units.stop(self._unit, signal.SIGKILL, also="sshd")


def _generate_key(path: Path, comment: str) -> None:
    """A new key pair without a passphrase."""
    keygen = str(find_tool("ssh-keygen", "openssh-client"))
    command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)


def _accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False
