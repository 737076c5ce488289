"""A deployment told whole."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._views.story import story
from tests.unit.plugins.module_utils._views.test_report import FINISHED, STARTED, deployment


def test_the_story_of_a_deployment_tells_error_and_output_whole() -> None:
    one, told = deployment(web1="ok", web2="failed")
    error = "because " * 30
    told["web2"] = replace(told["web2"], error=error, output="first\nlast", started=STARTED, finished=FINISHED)
    steps = {"web2": [{"state": "draining", "at": STARTED}, {"state": "failed", "at": FINISHED}]}
    log = {"web1": "    indented\x1b[31m\u202e \u00fc\n"}
    text = story("failed", replace(one, message="hotfix", options={"batch_size": 1}, resumes="d1"), told, steps, log)
    assert "web2  draining 14:22:33, failed +1 m 12 s" in text
    assert "log of web1\n  |     indented?[31m? \u00fc" in text
    assert f"web2: {error.strip()}\n  | first\n  | last" in text
    assert "  resumes   d1\n  message   hotfix\n  options   batch_size=1\n  batch 1   web1 web2" in text
    assert "web2  1.4.1  1.4.2  failed   12.3     14:22:33  14:23:45" in text
