"""Where a secret could show: in output, arguments, environments, files, keys."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable
from pathlib import Path


def forms(secret: str) -> list[bytes]:
    """The secret as it is, and as it looks inside a longer text that is Base64, wherever in that it begins."""
    plain = secret.encode()
    encoded = [base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)]
    return [plain, *encoded]


def shows(secret: str, text: str | bytes) -> bool:
    """Whether the secret can be read in the text."""
    data = text.encode() if isinstance(text, str) else text
    return any(form in data for form in forms(secret))


def files_with(secret: str, *folders: Path, but: Iterable[Path] = ()) -> list[str]:
    """The files below the folders in which the secret can be read; those below ``but`` are not looked at."""
    left_out = tuple(but)
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not any(path.is_relative_to(other) for other in left_out):
                try:
                    if shows(secret, path.read_bytes()):
                        found.append(str(path))
                except OSError:  # a socket, or gone meanwhile
                    continue
    return found


class ProcessWatch:
    """Looks at all processes of this machine, which is controller and hosts in one, again and again.

    ``arguments`` and ``environments`` are the command lines of those that show the secret there; ``seen`` of all.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seen: set[str] = set()
        self.arguments: set[str] = set()
        self.environments: set[str] = set()

    def _watch(self) -> None:
        while not self._end.wait(0.03):
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    command = (entry / "cmdline").read_bytes()
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                name = command.replace(b"\0", b" ").decode(errors="replace")
                self.seen.add(name)
                if shows(self._secret, command):
                    self.arguments.add(name)
                if shows(self._secret, environment):
                    self.environments.add(name)

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()
