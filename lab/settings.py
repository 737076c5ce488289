# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a lab was asked to be, and what it became."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import LabError

FILE = "lab.json"


@dataclass
class Settings:
    """Kept in the lab's directory, so that another process can use the lab."""

    directory: str
    network: int
    service: str
    version: str
    servers: int
    ssh: bool
    acl: bool
    tls: bool
    haproxy_retries: bool
    balancer: str
    check_interval: str
    check_timeout: str
    deregister_after: str | None
    version_meta: bool
    tags: list[str]
    agent: str
    zones: int
    consul: str
    consul_version: str
    inventory_variables: dict[str, Any] = field(default_factory=dict)
    vms: list[int] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # per node name; "management", "dns"

    @classmethod
    def load(cls, directory: str | Path) -> Settings:
        """Those of the lab in `directory`; LabError when there is none."""
        try:
            return cls(**json.loads((Path(directory) / FILE).read_text(encoding="utf-8")))
        except OSError as error:
            raise LabError(f"no lab runs in {directory}") from error

    def save(self) -> None:
        """Write them into the lab's directory, whole at any moment."""
        file = Path(self.directory) / FILE
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        temporary.rename(file)
