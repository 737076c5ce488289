"""The role's documentation of its options says what the one table of options says."""

from __future__ import annotations

from pathlib import Path

import yaml

from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import OPTIONS

ROLE = Path(__file__).resolve().parents[2] / "roles" / "rollout"


def test_argument_specs_name_every_option_of_the_table() -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    documented = spec["argument_specs"]["main"]["options"]
    assert list(documented) == [option.variable for option in OPTIONS if option.name != "direction"]
    for option in OPTIONS:
        if option.name != "direction":
            assert option.help.replace("`", "").lower() + "." == documented[option.variable]["description"][0].lower()
