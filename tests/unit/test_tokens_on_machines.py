"""A token on its way to Consul from the machines themselves: stripped, and never shown where it cannot be sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import http
from tests.http_server import HttpServer, Reply
from tests.unit.plugins.module_utils._consul.test_options import vaulted  # noqa: F401 - a fixture
from tests.unit.roles.consul_load_balancer.test_balancer import script  # noqa: F401 - a fixture

pytestmark = pytest.mark.oldest

ROLES = Path(__file__).resolve().parents[2] / "roles"
BAD = ["not-for\nanybody", "not-for\ranybody", "not-for€anybody"]


@pytest.mark.parametrize("token", BAD)
def test_the_program_for_hosts_does_not_show_a_header_that_cannot_be_sent(token: str) -> None:
    with HttpServer() as server:
        answer = http.main(
            {"method": "GET", "url": server.url, "headers": {"X-Consul-Token": token}, "body": "", "timeout": 5}
        )
    assert "anybody" not in str(answer)
    assert (answer["status"], answer["tls"]) == (0, False)
    assert server.asked == []


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROLES / "deploy_agent" / "files"), *sys.path])
    from hitless_deploy import consul  # type: ignore[import-not-found]

    return consul


def test_the_deploy_agent_reads_a_token_alone(agent: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with HttpServer(Reply(404)) as server:
        consul = agent.Consul({"url": server.url, "token_file": str(file)}, retry_for=0)
        file.write_text("  a-token\r\n\n")
        consul.once("GET", "/v1/kv/k")
        for token in BAD:
            file.write_text(token)
            with pytest.raises(agent.Unavailable, match="holds more than a token") as error:
                consul.once("GET", "/v1/kv/k")
            assert "anybody" not in str(error.value)
    assert [one.headers["X-Consul-Token"] for one in server.asked] == ["a-token"]


@pytest.mark.parametrize("token", BAD)
def test_the_balancers_program_does_not_show_one_that_cannot_be_sent(script: ModuleType, token: str) -> None:  # noqa: F811
    settings = {"consul": {"url": "http://127.0.0.1:1", "token": token, "datacenter": ""}, "warning": False}
    with pytest.raises(script.Refused, match="consul_load_balancer_token") as error:
        script.instances(settings, {"name": "web"})
    assert "anybody" not in str(error.value)


TEMPLATES = {
    "consul_load_balancer/templates/consul.hcl.j2": "consul_load_balancer_token",
    "consul_load_balancer/templates/balancer.json.j2": "consul_load_balancer_token",
    "consul_service/templates/service.json.j2": "consul_service_token",
    "deploy_agent/templates/watch.json.j2": "deploy_agent_token",
}


@pytest.mark.parametrize("file", TEMPLATES)
def test_what_the_roles_write_holds_the_token_alone(file: str, vaulted: Callable[[str], Any]) -> None:  # noqa: F811
    """Also where it is vaulted, which up to ansible-core 2.18 is written as what it looks like encrypted."""
    role = ROLES / file.partition("/")[0]
    variables: dict[str, Any] = {}
    for path in (role / "defaults" / "main.yml", role / "vars" / "main.yml"):
        variables.update(yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {})
    variables |= {
        TEMPLATES[file]: vaulted("a-token\n"),
        "_consul_service_one": {"definition": {"name": "web"}},
        "_consul_load_balancer_settings": {
            "token": variables.get("_consul_load_balancer_settings", {}).get("consul", {}).get("token")
        },
        "deploy_agent_node": "n",
        "item": {"service": "web"},
    }
    assert '"a-token"' in rendered((ROLES / file).read_text(encoding="utf-8"), variables)


def rendered(text: str, variables: dict[str, Any]) -> str:
    """From ansible-core 2.19 on only what is marked as a template is one; before, JSON would be read back."""
    try:
        from ansible.template import trust_as_template
    except ImportError:
        return str(Templar(loader=DataLoader(), variables=variables).template(text, convert_data=False))

    def trusted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: trusted(one) for key, one in value.items()}
        return trust_as_template(value) if isinstance(value, str) else value

    return str(Templar(loader=DataLoader(), variables=trusted(variables)).template(trust_as_template(text)))
