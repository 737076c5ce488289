"""What a request may say, by its text alone. tests/integration/test_rollout_request.py has what becomes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import BY_NAME
from ansible_collections.hitless.consul.plugins.module_utils._rollout.trigger import (
    ALLOWABLE,
    LIMIT,
    RolloutRequest,
    check_allowed,
    parse_request,
)

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1.4.2", RolloutRequest("1.4.2")),
        ("  1.4.2\n", RolloutRequest("1.4.2")),
        ('{"version": "1.4.2"}', RolloutRequest("1.4.2")),
        ('{"version": "1.4.2", "state": "requested"}', RolloutRequest("1.4.2")),
        (
            '{"version": "2", "batch_size": "25%", "message": "hotfix"}',
            RolloutRequest("2", {"batch_size": "25%", "message": "hotfix"}),
        ),
        # A survey of AWX sends empty text for what was left out.
        ('{"version": "2", "batch_size": "", "message": null}', RolloutRequest("2")),
    ],
)
def test_a_request_is_a_version_and_perhaps_options(text: str, wanted: RolloutRequest) -> None:
    assert parse_request(text) == wanted


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The version"),
        ("1.4.2 --force", "The version"),
        ("{{ lookup('pipe', 'id') }}", "begins like JSON and is none"),
        ('{"version": "1.4.2"', "begins like JSON and is none"),
        ("{" * 4000, "begins like JSON and is none"),
        ("x" * (LIMIT + 1), f"longer than {LIMIT} bytes"),
        ('{"batch_size": 1}', "names no version"),
        ('{"version": 2}', "version"),
        ('{"version": "2", "deploy_command": "rm -rf /"}', "may not set 'deploy_command'"),
        ('{"version": "2", "drain_time": 1}', "may not set 'drain_time'; .* it may set: batch_size, message"),
        ('{"version": "2", "batch_size": 0}', "batch_size must be"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(HitlessError, match=sentence):
        parse_request(text)


@given(st.text() | st.dictionaries(st.text(max_size=9), st.none() | st.integers() | st.text()).map(json.dumps))
def test_whatever_stands_there_gives_a_request_or_a_sentence(text: str) -> None:
    try:
        wanted = parse_request(text)
    except HitlessError as error:
        assert str(error)  # noqa: PT017 - it may refuse, and says so
        return
    assert wanted.version.strip() == wanted.version != ""


def test_what_names_a_command_a_file_or_a_host_is_never_allowed() -> None:
    check_allowed(ALLOWABLE)
    for name in BY_NAME.keys() - set(ALLOWABLE):
        with pytest.raises(HitlessError, match=f"{name} cannot be allowed to a request"):
            check_allowed([name])
