"""Which variables a template cannot do without."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.plugin_utils import _templates
from ansible_collections.hitless.consul.plugins.plugin_utils._inventory import TRUST_IS_EXPLICIT

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{{ a }} and {{ b.c[d] }}", {"a", "b", "d"}),
        ("{{ a | some.own.filter(b) }}", {"a", "b"}),
        ("{{ lookup('env', a) }}", {"a"}),
        ("{{ a if b else c }}", {"b"}),
        ("{{ a or b }}{{ c and d }}", {"a", "c"}),
        ("{{ a | default(b) }}{{ (c | d('x')).e }}", set()),
        ("{{ a is defined }}{{ b is none }}", set()),
        ("{% if a %}{{ b }}{% endif %}{{ c }}", {"a", "c"}),
        ("{% for a in b %}{{ a }}{{ c }}{% endfor %}{{ d }}", {"d"}),
        ("{% set a = 1 %}{{ a }}{{ b }}", {"b"}),
        ("{% import 'x' as a %}{{ a }}{{ b }}", set()),
        ("{{ range(1) }}{{ now() }}{{ omit }}", set()),
        ("{{ a", set()),
        ("a", set()),
    ],
)
def test_needed_names(template: str, names: set[str]) -> None:
    assert _templates.needed_names(trusted(template)) == names


def test_what_is_marked_as_no_template_needs_nothing() -> None:
    if TRUST_IS_EXPLICIT:
        assert _templates.needed_names("{{ a }}") == set()
    else:
        from ansible.utils.unsafe_proxy import wrap_var

        assert _templates.needed_names(wrap_var("{{ a }}")) == set()


def trusted(text: str) -> str:
    if not TRUST_IS_EXPLICIT:
        return text
    from ansible.template import trust_as_template

    return str.__str__(text) if "{" not in text else trust_as_template(text)
