"""A custom credential in a job, as AWX injects it (its models/credential.py): files first, then the environment."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment


def inject(injectors: Mapping[str, Mapping[str, str]], inputs: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment that a job gets. Empty inputs count as not given; files go to ``folder``, given or not."""
    names = SimpleNamespace(filename=SimpleNamespace())
    namespace: dict[str, Any] = {"tower": names, **{name: value for name, value in inputs.items() if value}}

    def render(template: str) -> str:
        return ImmutableSandboxedEnvironment().from_string(template).render(**namespace)

    for label, template in injectors.get("file", {}).items():
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(render(template))
        setattr(names.filename, label.removeprefix("template."), file.name)
    return {name: render(template) for name, template in injectors.get("env", {}).items()}
