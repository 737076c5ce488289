# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The "real deployment" of a lab's VM: stops the running application, starts the given version, returns at once.

Copied into every VM's directory as `deploy`. The version comes as DEPLOY_VERSION (or the first argument), with
DEPLOY_ID and DEPLOY_REASON for the log. It starts and stops the application at the lab's supervisor, as `systemctl
restart` would at systemd, so the application outlives the connection it was deployed by. Each run writes one line to
deploys.log when it starts and one when it ends. docs/lab.md lists the versions that make it fail, hang or wait.

Copied as `restart` it restarts the version that runs; as `reboot` it ends all of the VM's processes, and starts them
again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from typing import Any

REBOOT_TAKES = 3.0
"""Seconds from the death of a machine's processes to their start, where LAB_REBOOT_TAKES does not say so."""
VERSION = re.compile(r"^[A-Za-z0-9._+~:@-]{1,128}$")


def ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the lab's supervisor; RuntimeError with its words when it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise RuntimeError("the lab ended")
            data += part
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def hold(path: str, seconds: float | None) -> None:
    """Wait `seconds` (None: for ever), but never longer than the lab lives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.settimeout(seconds)
        try:
            connection.recv(1)
        except TimeoutError:
            return
    raise RuntimeError("the lab ended")


def restart(settings: dict[str, Any], version: str) -> None:
    """Stop the application gracefully, then start `version`."""
    stop(settings)
    ask(
        settings["supervisor"],
        {
            "op": "start",
            "unit": settings["unit"],
            "argv": [*settings["app"], version],
            "cwd": settings["directory"],
            "env": {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
            "log": settings["app_log"],
        },
    )


def stop(settings: dict[str, Any]) -> bool:
    """Stop the application gracefully (10 s, then by force); False when none ran."""
    return bool(ask(settings["supervisor"], {"op": "stop", "unit": settings["unit"], "timeout": 10})["stopped"])


def running_version(settings: dict[str, Any]) -> str | None:
    """The version that was started and still runs, None when none does."""
    unit = ask(settings["supervisor"], {"op": "list"})["units"].get(settings["unit"])
    return None if unit is None or unit["exit_code"] is not None else unit["argv"][-1]


def log(settings: dict[str, Any], **entry: Any) -> None:
    """Append one JSON line; a single write in append mode, so that lines of two runs never mix."""
    with open(settings["deploys_log"], "ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")


def deploy(settings: dict[str, Any], version: str, reason: str) -> int:
    """The steps of a deployment with the misbehaviour that `version` asks for; returns the exit code."""
    suffixes = version.split("-")[1:]
    print(f"{settings['name']}: deploying {version} (running: {running_version(settings) or 'nothing'})", flush=True)
    for suffix in suffixes:
        if suffix.startswith("deployslow"):
            print(f"fetching app-{version}.tar.gz ...", flush=True)
            hold(settings["supervisor"], float(suffix[len("deployslow") :]))
    if "deployhang" in suffixes:
        print(f"fetching app-{version}.tar.gz ...", flush=True)
        hold(settings["supervisor"], None)
    if "deployfail" in suffixes or ("rollbackfail" in suffixes and reason == "rollback"):
        print(f"E: Unable to locate package app={version}", file=sys.stderr)
        print("E: nothing was changed", file=sys.stderr)
        return 3
    restart(settings, version)
    print(f"{settings['name']}: {version} started", flush=True)
    return 0


def main() -> int:
    folder, name = os.path.split(os.path.abspath(__file__))
    with open(os.path.join(folder, "vm.json"), encoding="utf-8") as file:
        settings = json.load(file)
    if name == "restart":
        restart(settings, running_version(settings) or settings["version"])
        return 0
    if name == "reboot":
        takes = float(os.environ.get("LAB_REBOOT_TAKES", REBOOT_TAKES))
        machine = {"units": settings["name"] + ".", "boot_id": settings["boot_id"]}
        ask(settings["supervisor"], {"op": "reboot", **machine, "seconds": takes})
        return 0
    version = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("DEPLOY_VERSION", "")
    if not VERSION.match(version):
        print(f"deploy: no usable version in DEPLOY_VERSION ({version!r})", file=sys.stderr)
        return 2
    reason = os.environ.get("DEPLOY_REASON", "")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    run = {"pid": os.getpid(), "start": time.time()}
    log(settings, **run, version=version, reason=reason, deployment=os.environ.get("DEPLOY_ID", ""))
    code = 1
    try:
        code = deploy(settings, version, reason)
    except RuntimeError as error:
        print(f"deploy: {error}", file=sys.stderr)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        log(settings, **run, end=time.time(), code=code)
    return code


if __name__ == "__main__":
    sys.exit(main())
