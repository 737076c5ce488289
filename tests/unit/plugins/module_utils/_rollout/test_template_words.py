"""What a template names."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import (
    expressions_of,
    has_template,
    inputs_of,
    pieces_of,
    words_of,
)

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ a }}", True),
        ("{% if a %}", True),
        ({"x": ["y", "{{ a }}"]}, True),
        (object(), True),
        ("{a}", False),
        ({"x": [1, None, True, "y"]}, False),
    ],
)
def test_has_template(value: Any, *, expected: bool) -> None:
    assert has_template(value) == expected


def test_inputs_are_followed() -> None:
    variables = {"a": "{{ b.c }}", "b": {"c": "{{ d }}"}, "d": "x", "e": 1}
    assert inputs_of("{{ a }}", variables) == {name: variables[name] for name in "abd"}
    assert inputs_of("{{ lookup('x') }}", variables) is None


def test_words_and_pieces() -> None:
    assert expressions_of("vars/{{ a }}-{% if b %}x") == "{{ a }} {% if b %}"
    assert words_of("{{ a }}", "{{ b.c }}") == {"a", "b", "c"}
    assert pieces_of("x/{{ a }}-{{ b }}.yml") == [("x/", "{{ a }}"), ("-", "{{ b }}"), (".yml", "")]
