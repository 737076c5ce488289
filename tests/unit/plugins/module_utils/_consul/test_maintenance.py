"""Whose maintenance it is, what it applies to, and that it is sent until the catalog shows it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import (
    DeploymentReason,
    Target,
    parse_reason,
    set_by_deployment_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from tests.unit.plugins.module_utils._consul.test_health import NODE_MAINTENANCE, check, entry
from tests.unit.plugins.module_utils._consul.test_health import maintenance as in_maintenance

pytestmark = pytest.mark.oldest

OURS = "deploy:20261123T142233Z-1.4.2-7f3a web"
INTERRUPTED = "deploy:20251123T142233Z-1.4.1-aaaa web"


def test_a_deployments_reason_tells_it_again() -> None:
    reason = DeploymentReason("20261123T142233Z-1.4.2-7f3a", "web")
    assert str(reason) == OURS
    assert parse_reason(OURS) == reason


@pytest.mark.parametrize(
    "reason",
    [None, "", "by hand", "deploy:", "deploy:x", "deploy: web", f"{OURS} and more", f" {OURS}", "redeploy:x web"],
)
def test_what_is_no_deployments_reason(reason: str | None) -> None:
    assert parse_reason(reason) is None
    assert not set_by_deployment_of("web")(reason or "")


def test_only_deployments_of_the_same_service_are_ours() -> None:
    ours = set_by_deployment_of("web")
    assert ours(OURS)
    assert ours(INTERRUPTED)
    assert not ours("deploy:20261123T142233Z-1.4.2-7f3a web2")


class Catalog(Client):
    """A catalog that shows what the agent took only after so many PUTs; ``intruder`` is quicker with its own."""

    def __init__(self, data: list[dict[str, Any]], shows_after: int = 1, intruder: str | None = None) -> None:
        super().__init__(Connection("http://127.0.0.1:1"))
        self.data = data
        self.shows_after = shows_after
        self.intruder = intruder
        self.puts: list[tuple[str, dict[str, Any]]] = []
        self.index = 1

    def get(self, path: str, params: Any = (), *, wait: float = 0, index: int = 0) -> Answer:
        return Answer(self.data, self.index, 200)

    def put(self, path: str, params: Any = (), body: str = "", *, repeatable: bool = True) -> Answer:
        query = dict(params)
        self.puts.append((path, query))
        if len(self.puts) >= self.shows_after:
            self.index += 1
            name = path.rpartition("/")[2]
            for one in self.data:
                if one["Service"]["ID"] == name:
                    one["Checks"] = [each for each in one["Checks"] if not each["CheckID"].startswith("_service")]
                    if query["enable"] == "true":
                        one["Checks"].append(in_maintenance(self.intruder or query["reason"], name))
        return Answer(None, 0, 200)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "RESEND_AFTER", 0.0)


def enable(catalog: Catalog, target: Target | None = None, **options: Any) -> maintenance.Change:
    ours = set_by_deployment_of("web")
    return maintenance.enable(catalog, catalog, target or Target("web1", "web"), OURS, ours, **options)


def disable(catalog: Catalog, target: Target | None = None, **options: Any) -> maintenance.Change:
    return maintenance.disable(
        catalog, catalog, target or Target("web1", "web"), set_by_deployment_of("web"), **options
    )


def test_each_instance_on_the_node_is_taken_out() -> None:
    catalog = Catalog([entry(service_id="web"), entry(check(service="web-2"), service_id="web-2")])
    change = enable(catalog)
    assert change.changed
    assert change.before == {"web": None, "web-2": None}
    assert change.after == {"web": OURS, "web-2": OURS}
    assert [path for path, _ in catalog.puts][:2] == [
        "/v1/agent/service/maintenance/web",
        "/v1/agent/service/maintenance/web-2",
    ]
    assert disable(catalog).after == {"web": None, "web-2": None}


def test_only_those_with_the_tags_or_the_id() -> None:
    data = [entry(service_id="web", tags=["prod"]), entry(check(service="web-2"), service_id="web-2", tags=["staging"])]
    assert enable(Catalog(data), Target("web1", "web", tags=("staging",))).after == {"web-2": OURS}
    assert enable(Catalog(data), Target("web1", "web", "web")).after == {"web": OURS}


def test_it_is_sent_again_until_the_catalog_shows_it() -> None:
    catalog = Catalog([entry()], shows_after=3)
    assert enable(catalog).after == {"web": OURS}
    assert len(catalog.puts) == 3


def test_what_the_catalog_never_shows_is_an_error() -> None:
    with pytest.raises(HitlessError, match="did not show web on web1 in maintenance within 0 s.*agent's log"):
        enable(Catalog([entry()], shows_after=99), within=0)


def test_an_agent_that_takes_longer_than_the_deadline_has_done_it_all_the_same() -> None:
    assert enable(Catalog([entry()]), within=0).after == {"web": OURS}


def test_once_there_nothing_is_sent_and_the_first_reason_stays() -> None:
    catalog = Catalog([entry(in_maintenance(INTERRUPTED))])
    change = enable(catalog)
    assert (change.changed, change.after, catalog.puts) == (False, {"web": INTERRUPTED}, [])
    gone = Catalog([entry()])
    assert (disable(gone).changed, gone.puts) == (False, [])


@pytest.mark.parametrize("reason", ["by hand", "", "deploy:20261123T142233Z-1.4.2-7f3a api"])
def test_anothers_maintenance_is_neither_taken_nor_cleared(reason: str) -> None:
    for change in (enable, disable):
        catalog = Catalog([entry(in_maintenance(reason)), entry(service_id="web-2")])
        with pytest.raises(HitlessError, match="web on web1 is in maintenance set by someone else") as error:
            change(catalog)
        assert error.value.details == {"other_owner": True, "reason": reason}
        assert catalog.puts == []


def test_a_node_in_anothers_maintenance_is_left_alone() -> None:
    catalog = Catalog([entry(check(), NODE_MAINTENANCE)])
    with pytest.raises(HitlessError, match="disk"):
        enable(catalog)
    assert catalog.puts == []


def test_another_who_was_quicker_is_seen_afterwards() -> None:
    """The agent keeps the first reason, and the catalog showed it only after it had been asked."""
    with pytest.raises(HitlessError, match="set by someone else .reason: operator") as error:
        enable(Catalog([entry()], intruder="operator"))
    assert error.value.details["other_owner"] is True


def test_check_mode_tells_and_sends_nothing() -> None:
    catalog = Catalog([entry()])
    assert enable(catalog, check_mode=True).after == {"web": OURS}
    assert disable(Catalog([entry(in_maintenance(OURS))]), check_mode=True).after == {"web": None}
    assert catalog.puts == []


def test_what_is_not_there() -> None:
    with pytest.raises(HitlessError, match="No instance of web is registered on the node web1"):
        enable(Catalog([]))
    with pytest.raises(HitlessError, match="No instance of web on web1 has the ID other"):
        enable(Catalog([entry()]), Target("web1", "web", "other"))
    with pytest.raises(HitlessError, match="Consul knows no node web1"):
        enable(Catalog([]), Target("web1"))
    with pytest.raises(HitlessError, match="node name"):
        Target("a b")


def test_an_agent_that_does_not_know_the_instance() -> None:
    class Unknown(Catalog):
        def put(self, *_args: Any, **_kwargs: Any) -> Answer:
            return Answer(None, 0, 404)

    with pytest.raises(ConsulError, match="does not know the service ID 'web'.*hitless_consul_agent_url"):
        enable(Unknown([entry()]))


def test_a_node_and_an_instance_by_its_id_alone() -> None:
    checks = [{**NODE_MAINTENANCE}, in_maintenance("x", "api")]
    assert Target("web1").reasons(checks) == {"": "disk"}
    assert Target("web1", service_id="api").reasons(checks) == {"api": "x"}
    assert Target("web1", service_id="web").reasons(checks) == {"web": None}
    assert Target("web1", service_id="web").node_reason(checks) == "disk"
    assert Target("web1").query() == ("/v1/health/node/web1", [])
