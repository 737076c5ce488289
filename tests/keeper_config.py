"""What starts a keeper of a lock, as its run would send it."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import keeper
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import http


def config(**settings: Any) -> keeper.Config:
    values: dict[str, Any] = {
        **dict.fromkeys(keeper.Config.__annotations__, ""),
        "http": http.__file__,
        "headers": {},
        "tls": {},
        "ttl": 0.3,
        "progress_deadline": 0,
        "controller": os.getpid(),
        "pipe": -1,
        "results": None,
        **settings,
    }
    return keeper.Config(**values)
