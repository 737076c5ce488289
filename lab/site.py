# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the machines of a lab share, and all that each of them knows of the rest."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .agents import Authority, Certificate, Http
from .binaries import find_tool
from .errors import LabError
from .network import CONTROLLER, HTTP_PORT, HTTPS_PORT, address
from .settings import Settings
from .units import Units


class Site:
    """Settings, folder, addresses, processes, tokens and certificates of one lab."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = Path(settings.directory)
        self.units = Units(self.directory)
        self.outage = self.directory / "outage"

    def address(self, host: int) -> str:
        """The address of one machine, by its number in the lab's range."""
        return address(self.settings.network, host)

    @property
    def servers(self) -> list[str]:
        """The addresses of the Consul servers."""
        return [self.address(number) for number in range(1, self.settings.servers + 1)]

    # -- Consul ----------------------------------------------------------------------------------------------------

    @property
    def management_token(self) -> str:
        """The token that may do everything; "" without ACLs."""
        return self.token("management")

    def token(self, name: str) -> str:
        """The token of that name: a node's, "dns", "management"; "" without ACLs."""
        return self.settings.tokens.get(name, "")

    def agent_url(self, address: str) -> str:
        """Where the agent of the machine with that address listens."""
        port, scheme = (HTTPS_PORT, "https") if self.settings.tls else (HTTP_PORT, "http")
        return f"{scheme}://{address}:{port}"

    def agent(self, address: str) -> Http:
        """Calls to that agent, with the management token where there are ACLs."""
        return Http(self.agent_url(address), self.management_token, self.certificate)

    @property
    def consul(self) -> Http:
        """Calls to the controller's agent, which sees what all see."""
        return self.agent(self.address(CONTROLLER))

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Ansible and the consul command find this lab: CONSUL_HTTP_ADDR and company.

        HITLESS_LAB, its directory, is for the lab.yml of the examples.
        """
        variables = {"CONSUL_HTTP_ADDR": self.agent_url(self.address(CONTROLLER)), "HITLESS_LAB": str(self.directory)}
        if self.settings.acl:
            variables["CONSUL_HTTP_TOKEN"] = self.management_token
        certificate = self.certificate
        if certificate is not None:
            variables |= {
                "CONSUL_HTTP_SSL": "true",
                "CONSUL_CACERT": str(certificate.ca),
                "CONSUL_CLIENT_CERT": str(certificate.certificate),
                "CONSUL_CLIENT_KEY": str(certificate.key),
            }
        return variables

    # -- TLS -------------------------------------------------------------------------------------------------------

    @property
    def certificate(self) -> Certificate | None:
        """The controller's client certificate, None without TLS."""
        return self.issue("controller", self.address(CONTROLLER))

    def issue(self, name: str, address: str, server: bool = False) -> Certificate | None:
        """The certificate of a node, made when first asked for; None without TLS."""
        if not self.settings.tls:
            return None
        folder = self.directory / "tls"
        certificate = Certificate(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        if not certificate.certificate.exists():
            Authority(find_tool("openssl", "openssl"), folder).issue(name, address, server)
        return certificate


def make_directory(wanted: str) -> str:
    """The folder of a new lab: the wanted one, which is empty or made, or where none is ("") one of its own."""
    if not wanted:
        return tempfile.mkdtemp(prefix="hitless-lab-", dir="/tmp")
    path = Path(wanted)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise LabError(f"{wanted} is not empty: a lab removes its directory at the end, so it must start with none")
    if len(wanted) > 80:
        raise LabError(f"{wanted} is too long a path for Unix sockets: take one below 80 characters")
    return wanted
