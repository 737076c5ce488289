# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of a lab as Consul sees it: a node with an agent. A VM is more, see vm.py."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Sequence
from dataclasses import replace

from .agents import AgentSettings, Certificate, Http, configuration
from .errors import ConsulError, LabError
from .network import CONTROLLER, LOAD_BALANCER
from .site import Site
from .waiting import wait_until


class Node:
    """What servers, VMs, the controller and the load balancer's machine have in common."""

    def __init__(self, site: Site, name: str, address: str) -> None:
        self.site = site
        self.name = name
        self.address = address
        self.directory = site.directory / name
        self.agent_log = self.directory / "consul.log"
        self.agent_url = site.agent_url(address)
        self._agent_unit = f"{name}.consul"

    @property
    def token(self) -> str:
        """The agent's own token, "" without ACLs."""
        return self.site.token(self.name)

    @property
    def agent(self) -> Http:
        """Calls to this node's agent, with the management token where there are ACLs."""
        return self.site.agent(self.address)

    @property
    def certificate(self) -> Certificate | None:
        """The node's own, made when first asked for; None without TLS."""
        return self.site.issue(self.name, self.address)

    def _settings(self) -> AgentSettings:
        settings = self.site.settings
        return AgentSettings(
            name=self.name,
            address=self.address,
            directory=self.directory,
            join=self.site.servers,
            version=tuple(int(part) for part in settings.consul_version.split(".")),
            certificate=self.certificate,
            acl=settings.acl,
            agent_token=self.token,
        )

    def configure(self) -> None:
        """Write the agent's configuration (consul.d/agent.json)."""
        folder = self.directory / "consul.d"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(configuration(self._settings()), indent=2)
        (folder / "agent.json").write_text(text, encoding="utf-8")

    def start_agent(self, wait: bool = True) -> None:
        """Start the agent; with `wait` return when its HTTP API answers."""
        argv = [self.site.settings.consul, "agent", "-config-dir", str(self.directory / "consul.d")]
        self.site.units.start(self._agent_unit, argv, self.agent_log)
        if wait:
            self.wait_agent()

    def wait_agent(self) -> None:
        """Return when the agent's HTTP API answers."""

        def answers() -> bool:
            if not self.agent_runs():
                end = self.agent_log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
                raise LabError(f"the Consul agent of {self.name} ended:\n" + "\n".join(end))
            try:
                self.agent.call("GET", "status/leader")
            except ConsulError as error:
                return error.status != 0
            return True

        wait_until(f"the Consul agent of {self.name} answers", answers, log=self.agent_log)

    def agent_runs(self) -> bool:
        """Whether the agent's process is there."""
        return self.site.units.runs(self._agent_unit)

    def kill_agent(self) -> None:
        """kill -9, as a crash of the machine would; the catalog notices by gossip some seconds later."""
        self.site.units.stop(self._agent_unit, signal.SIGKILL)

    def reload_agent(self) -> None:
        """consul reload."""
        self.agent.call("PUT", "agent/reload")


class Server(Node):
    """One of the Consul servers."""

    def __init__(self, site: Site, number: int) -> None:
        super().__init__(site, f"server{number}", site.address(number))

    @property
    def certificate(self) -> Certificate | None:
        return self.site.issue(self.name, self.address, server=True)

    def _settings(self) -> AgentSettings:
        return replace(super()._settings(), servers=self.site.settings.servers)

    def kill(self) -> None:
        """kill -9."""
        self.kill_agent()

    def start(self) -> None:
        """Start it (again)."""
        self.start_agent()


def leader(servers: Sequence[Server]) -> Server | None:
    """The server that leads now, as one of the running servers says; None while there is none."""
    for server in servers:
        with contextlib.suppress(ConsulError):
            address = str(server.agent.call("GET", "status/leader")).rpartition(":")[0]
            found = next((one for one in servers if one.address == address), None)
            # A server that has not noticed yet may still name one that was killed.
            if found is not None and found.agent_runs():
                return found
    return None


class Controller(Node):
    """Where Ansible runs; it has an agent and nothing else."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, "controller", site.address(CONTROLLER))


class LoadBalancerNode(Node):
    """The machine of the load balancer: its agent answers DNS questions about services."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, "lb", site.address(LOAD_BALANCER))

    def _settings(self) -> AgentSettings:
        return replace(super()._settings(), default_token=self.site.token("dns"))
