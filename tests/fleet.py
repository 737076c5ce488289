"""A lab that the tests of one file share, put back to how it began before each of them."""

from __future__ import annotations

import contextlib
import os
import signal
from importlib.metadata import version
from pathlib import Path

from lab import VM, ConsulError, Lab

# The column that the tests run in: 2.16 is the oldest supported ansible-core, 1.8.7 the oldest Consul.
OLDEST = version("ansible-core").startswith("2.16.")
CONSUL = "1.8.7" if OLDEST else None


def reset(lab: Lab) -> None:
    """Every machine up, every VM on the lab's first version and in rotation, no lock, no key."""
    for server in lab.servers:
        if not lab.unit_runs(f"{server.name}.consul"):
            server.start()
    for vm in lab.vms:
        _end_deployments(vm)
        if not lab.unit_runs(f"{vm.name}.consul"):
            vm.start_agent()
        if lab.settings.ssh and not lab.unit_runs(f"{vm.name}.sshd"):
            vm.start_sshd()
        if vm.running_version() != lab.settings.version:
            vm.start_app(lab.settings.version)
        vm.agent.call("PUT", "agent/maintenance?enable=false")
        # Brings back a service that the application took away.
        vm.reload_agent()
        vm.operator_maintenance("", enable=False)
    _clear_keys(lab)
    lab.wait_passing()


def _end_deployments(vm: VM) -> None:
    """A deployment that a test left running would change the version under the next test."""
    for run in vm.deploys():
        command = Path(f"/proc/{run.pid}/cmdline")
        with contextlib.suppress(OSError):
            if run.end is None and str(vm.directory).encode() in command.read_bytes():
                os.kill(run.pid, signal.SIGKILL)
    vm.deploys_log.unlink(missing_ok=True)


def _clear_keys(lab: Lab) -> None:
    """Release before destroying: Consul keeps a lock from being taken for 15 s after its session was destroyed."""
    try:
        entries = lab.consul_get("kv/?recurse&consistent")
    except ConsulError as error:
        if error.status != 404:
            raise
        entries = []
    for entry in entries:
        if entry.get("Session"):
            lab.consul_put(f"kv/{entry['Key']}?release={entry['Session']}", b"")
    for session in lab.consul_get("session/list"):
        lab.consul_put(f"session/destroy/{session['ID']}")
    lab.consul.call("DELETE", "kv/?recurse")
