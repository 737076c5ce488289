# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends a small program to the managed host's own Python (a private helper of this collection).

The program is the source of a file in ``programs/``; with the request it travels on standard input, so that nothing of
it, the token above all, stands in an argument, the environment, a file or a log of the host. Its answer is marked, so
that what a login shell prints does no harm.

Each file in ``programs/`` is sent as text: it needs only the standard library of Python 3.6 or newer, and defines
``main(request) -> answer``, both dictionaries of plain data. They travel as Python's own literals, in ASCII: to load
json there would take as long as to run a command. Of the collection it may import another file there, by a line ``from
.name import ...``: the text of that file is sent in its place. The deploy agent of a machine runs the same files.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    HitlessError,
    HostLost,
)

ON_HOST = "ansible_collections.hitless.consul.plugins.module_utils._remote.programs."
PROGRAMS = {
    name: importlib.import_module(ON_HOST + name) for name in ("command", "http", "lockfile", "probe", "terminal")
}
"""Loaded here, so that not each worker of Ansible does it anew."""
_SIBLING = re.compile(r"^from \.(?P<name>\w+) import .*$", re.MULTILINE)
_MARK, _END = "<<hitless-answer:", ">>"
_CANDIDATES = ("python3", "/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3", "python")

_ALONE = "-I -S"
"""The standard library alone: neither PYTHONPATH nor packages of that Python change what runs, and it starts sooner."""

Execute = Callable[[str, bytes], "tuple[int, bytes, bytes]"]
"""Runs a shell command line on the host with bytes on its standard input -> (exit code, stdout, stderr).

Raises :class:`HostLost` where the host cannot be reached."""


class Host:
    """The managed host, as far as this collection needs it.

    :param execute: how to reach it; None where it is this machine, so that functions are simply called.
    :param interpreter: its Python, or what finds it; the first of the usual places where there is none.
    :param name: for messages.
    :param as_user: how to reach it as the user a task asks for (become), and apart from this process even where the
        host is this machine.
    :param reset: gives up the connection, so that the next call makes a new one.
    """

    def __init__(
        self,
        execute: Execute | None,
        interpreter: str | Callable[[], str | None] | None = None,
        name: str = "the host",
        as_user: Execute | None = None,
        reset: Callable[[], object] = lambda: None,
    ) -> None:
        self._execute = execute
        self._find_interpreter = interpreter
        self._as_user = as_user
        self.reset = reset
        self.name = name

    @property
    def is_local(self) -> bool:
        return self._execute is None

    @functools.cached_property
    def interpreter(self) -> str | None:
        """Its Python, where one is set or was discovered."""
        found = self._find_interpreter
        return found() if callable(found) else found

    def call(
        self, program: str, request: dict[str, Any], *, as_user: bool = False, within: float = 0.0
    ) -> dict[str, Any]:
        """Run ``main(request)`` of ``programs/<program>.py`` there and return its answer.

        :param as_user: as the user that the task asks for, in a process that outlives this one.
        :param within: seconds after which a connection that hangs is given up; 0 for never.
        :raises HostLost: the connection failed.
        :raises HitlessError: no Python there, or the program's answer did not come.
        """
        execute = self._as_user if as_user else self._execute
        if execute is None and as_user:
            raise ValueError(f"nothing runs {program} apart from this process")
        if execute is None:
            return PROGRAMS[program].main(request)  # type: ignore[no-any-return]
        text = f"{program_text(program)}\nprint('\\n{_MARK}' + ascii(main({request!a})) + '{_END}')\n"
        with _limit(within, self.name):
            code, out, err = execute(self._command(), text.encode())
        answer = _answer_in(out)
        if answer is not None:
            return answer
        printed = (err or out).decode("utf-8", "replace").strip()[-400:]
        if code == 255:  # ssh's own failures, whatever a login shell had printed by then
            raise HostLost(f"{self.name} cannot be reached: {printed}")
        raise HitlessError(
            f"The Python on {self.name} gave no answer (exit code {code}): {printed or 'nothing was printed'}.",
            hint="Set ansible_python_interpreter to a Python 3.6 or newer there.",
        )

    def _command(self) -> str:
        if self.interpreter:
            return f"{shlex.quote(self.interpreter)} {_ALONE} -"
        tries = "; ".join(f"command -v {path} >/dev/null 2>&1 && exec {path} {_ALONE} -" for path in _CANDIDATES)
        return f"sh -c {shlex.quote(f'{tries}; echo no Python found >&2; exit 127')}"


def _answer_in(out: bytes) -> dict[str, Any] | None:
    """What the program answered, by what the host has printed; None where that holds no whole answer."""
    marked, rest = out.decode("utf-8", "replace").rpartition(_MARK)[1:]
    line = rest.partition("\n")[0].rstrip("\r")
    if not marked or not line.endswith(_END):
        return None
    try:
        answer = ast.literal_eval(line.removesuffix(_END))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


@contextmanager
def _limit(seconds: float, name: str) -> Iterator[None]:
    """Ends what hangs by a signal, as Ansible's own time limit of a task does; only the main thread can have one."""
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_number: int, _frame: object) -> None:
        raise HostLost(f"{name} has not answered for {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def program_text(program: str) -> str:
    """The source of a program with the files of ``programs/`` that it imports: one text, which needs no other file."""
    source = inspect.getsource(PROGRAMS[program])
    return _SIBLING.sub(lambda line: program_text(line["name"]), source)


class HostTransport:
    """Carries the client's requests through the host: the seam of ``client.Transport``.

    :param base: the agent's address as seen from the host.
    :param tls: see ``Connection.tls``; its paths are the host's.
    """

    def __init__(self, host: Host, base: str, tls: dict[str, Any], timeout: float) -> None:
        self._host = host
        self._base = base
        self._tls = tls
        self._timeout = timeout

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Any = None) -> Any:
        return self._send("GET", callback, path, params, headers, b"")

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return self._send("PUT", callback, path, params, headers, data)

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return self._send("POST", callback, path, params, headers, data)

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        return self._send("DELETE", callback, path, params, headers, data)

    def _send(
        self, method: str, callback: Callable[[Any], Any], path: str, params: Any, headers: Any, data: Any
    ) -> Any:
        url = self._base + quote(path, safe="/:") + (f"?{urlencode(params)}" if params else "")
        body = data.decode() if isinstance(data, bytes) else data
        answer = self._host.call(
            "http",
            {
                "method": method,
                "url": url,
                "headers": dict(headers or {}),
                "body": body,
                "timeout": self._timeout,
                **self._tls,
            },
        )
        if not answer["status"]:
            raise self._no_answer(f"{method} {path}", answer)
        return callback(HostResponse(answer))

    def _no_answer(self, asked: str, answer: dict[str, Any]) -> ConsulError:
        where, why = f"the Consul agent at {self._base} on {self._host.name}", answer["error"]
        if answer["tls"]:
            return ConsulError(
                f"TLS with {where} failed: {why}.",
                asked=asked,
                hint="Check hitless_consul_agent_url (http or https), hitless_consul_agent_tls_server_name, and "
                "hitless_consul_agent_ca_path, hitless_consul_agent_client_cert and hitless_consul_agent_client_key: "
                "paths on that host.",
            )
        return ConsulUnavailable(
            f"No answer from {where} to {asked}: {why}.",
            asked=asked,
            status=-1 if answer["refused"] else 0,
            hint="Set hitless_consul_agent_url to the agent's address as that host sees it.",
        )


class HostResponse:
    """An answer that came through the host, in the shape of the library's own."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.code: int = answer["status"]
        self.headers: dict[str, str] = answer["headers"]
        self.body: str = answer["body"]
