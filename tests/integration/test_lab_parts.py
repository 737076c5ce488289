"""Parts of the lab that need no lab: what a version's name means, where Consul comes from, what a report says."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path

import pytest

from lab import Report, Row, binaries
from lab.app import Behaviour
from lab.inventory import to_yaml


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0", Behaviour()),
        ("1.0.0-rc1", Behaviour()),
        ("3.0.0-broken", Behaviour(broken=True)),
        ("3.0.0-brokenon-web3", Behaviour(broken=True)),
        ("3.0.0-brokenon-web2", Behaviour()),
        ("3.0.0-brokenon", Behaviour()),
        ("3.0.0-slow5-badafter3", Behaviour(slow=5, bad_after=3)),
        ("3.0.0-latency250-warning", Behaviour(latency=0.25, warning=True)),
        ("3.0.0-brokenon-web3-reregister", Behaviour(broken=True, reregister=True)),
        ("3.0.0-crash", Behaviour(crash=True)),
    ],
)
def test_a_versions_name_says_how_it_behaves(version: str, expected: Behaviour) -> None:
    assert Behaviour.of(version, "web3") == expected


def fake_consul(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho Consul v{version}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Consul anywhere, and no way to get one."""
    monkeypatch.delenv("CONSUL_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def unreachable(*_arguments: object, **_options: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path


def test_consul_is_looked_for_in_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(binaries.BinaryError, match=r"set CONSUL_BIN.*unreachable.*no apt-get"):
        binaries.find_consul()
    older = fake_consul(nowhere / "cache" / "hitless" / "consul" / "1.8.7" / "consul", "1.8.7")
    newer = fake_consul(nowhere / "cache" / "hitless" / "consul" / "1.20.1" / "consul", "1.20.1")
    assert binaries.find_consul() == newer
    assert binaries.find_consul("1.8.7") == older
    on_path = fake_consul(nowhere / "bin" / "consul", "1.19.0")
    assert binaries.find_consul() == on_path
    assert binaries.find_consul("1.8.7") == older
    chosen = fake_consul(nowhere / "mine", "1.18.0")
    monkeypatch.setenv("CONSUL_BIN", str(chosen))
    assert binaries.find_consul() == chosen
    assert binaries.find_consul(str(older)) == older
    with pytest.raises(binaries.BinaryError, match=r"Consul 1\.16\.0 is not here"):
        binaries.find_consul("1.16.0")


def test_a_release_with_another_checksum_is_not_used(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_arguments, **_options: io.BytesIO(b"not what was pinned"))
    with pytest.raises(binaries.BinaryError, match="not the pinned"):
        binaries.fetch_consul(binaries.RELEASE)
    assert not (nowhere / "cache").exists()


def test_a_missing_program_is_named_with_its_package(nowhere: Path) -> None:
    with pytest.raises(binaries.BinaryError, match=r"apt-get install nothing-at-all"):
        binaries.find_tool("no-such-program", "nothing-at-all")


def row(sent: float, outcome: str = "ok", instance: str | None = "web1", version: str | None = "1.0.0") -> Row:
    status = {"ok": 200, "status": 503}.get(outcome, 0)
    return Row(sent, 0.01, outcome, status, instance, version, 7, "new", "")


def test_a_report_counts_every_request() -> None:
    rows = (row(1.0), row(2.0, instance="web2", version="2.0.0"), row(3.0, "reset", None, None), row(4.0, "status"))
    report = Report(rows)
    assert report.total == 4
    assert [lost.sent for lost in report.lost] == [3.0, 4.0]
    assert report.by_instance == {"web1": 2, "web2": 1}
    assert report.by_version == {"1.0.0": 2, "2.0.0": 1}
    assert report.by_outcome == {"ok": 2, "reset": 1, "status": 1}
    assert report.between(2.0, 3.0).rows == rows[1:3]
    assert report.of("web2").total == 1
    assert str(report).startswith("4 requests, 2 lost")


def test_inventories_are_yaml_that_a_person_can_read() -> None:
    data = {"all": {"hosts": {"web1": {"a": "x: {{ y }}", "b c": 1, "empty": {}}}}}
    assert to_yaml(data) == ('all:\n  hosts:\n    web1:\n      a: "x: {{ y }}"\n      "b c": 1\n      empty: {}\n')
