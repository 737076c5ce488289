"""A lab that tests share, put back to how it began before each of them."""

from __future__ import annotations

import contextlib
import os
import signal
from importlib.metadata import version
from pathlib import Path

from lab import VM, ConsulError, Lab, LabError

# The column that the tests run in: 2.16 is the oldest supported ansible-core, 1.8.7 the oldest Consul.
OLDEST = version("ansible-core").startswith("2.16.")
CONSUL = "1.8.7" if OLDEST else None

LIFETIME = 1800.0


class Shared:
    """The lab that the files of one worker have one after the other, started when the first of them asks."""

    def __init__(self, vms: int = 5) -> None:
        self._vms = vms
        self._lab: Lab | None = None

    def get(self) -> Lab:
        """The lab as it began, a new one where the last file left it in a state that has no way back."""
        if self._lab is not None:
            try:
                self._put_back(self._lab)
            except (LabError, ConsulError, OSError, RuntimeError):
                self.close()
        if self._lab is None:
            lab = Lab(vms=self._vms, consul=CONSUL)
            lab.start()
            self._lab = lab
        return self._lab

    def _put_back(self, lab: Lab) -> None:
        """What only a file can have changed, beside what each of its tests puts back."""
        lab.set_lifetime(LIFETIME)
        if [vm.number for vm in lab.vms] != list(range(1, self._vms + 1)):
            raise LabError("it has other machines now")
        reset(lab)
        lab.write_inventory({})

    def close(self) -> None:
        """End it, if there is one."""
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.stop()


def reset(lab: Lab) -> None:
    """Every machine up, every VM on the lab's first version and in rotation, no lock, no key."""
    lab.set_outage(False)
    for server in lab.servers:
        if not lab.unit_runs(f"{server.name}.consul"):
            server.start()
    for node in (lab.load_balancer, lab.controller):
        if not lab.unit_runs(f"{node.name}.consul"):
            node.start_agent()
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
    """A deployment that a test left running would change the version under the next test; nor is it told of any."""
    for run in vm.deploys():
        command = Path(f"/proc/{run.pid}/cmdline")
        with contextlib.suppress(OSError):
            if run.end is None and str(vm.directory).encode() in command.read_bytes():
                os.kill(run.pid, signal.SIGKILL)
    vm.deploys_log.unlink(missing_ok=True)
    # Emptied and not removed: the application that runs goes on writing there.
    os.truncate(vm.app_log, 0)


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
