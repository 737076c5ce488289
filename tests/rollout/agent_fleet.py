"""A lab whose machines deploy by their own agents: no sshd anywhere, and connections that are refused."""

from __future__ import annotations

from collections.abc import Iterator

from lab import Lab
from tests.fleet import CONSUL
from tests.rollout.drive import VARIABLES


def running(**settings: object) -> Iterator[Lab]:
    """For a fixture."""
    options: dict[str, object] = {"vms": 4, "consul": CONSUL, "ssh": False, "agent": "watch", **settings}
    with Lab(inventory_variables=VARIABLES, **options) as lab:  # type: ignore[arg-type]
        yield lab
