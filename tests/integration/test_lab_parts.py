"""Parts of the lab that need no lab: what a version's name means, where Consul comes from, what a report says."""

from __future__ import annotations

import io
import os
import shutil
import ssl
import urllib.request
from pathlib import Path

import pytest

from lab import Report, Row, binaries
from lab.agents import Http
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
        ("3.0.0-badafter3-badfor2", Behaviour(bad_after=3, bad_for=2)),
        ("3.0.0-latency250-warning", Behaviour(latency=0.25, warning=True)),
        ("3.0.0-brokenon-web3-reregister", Behaviour(broken=True, reregister=True)),
        ("3.0.0-crash", Behaviour(crash=True)),
        ("3.0.0-broken-only-web3", Behaviour(broken=True)),
        ("3.0.0-badafter3-only-zone2", Behaviour(bad_after=3)),
        ("3.0.0-broken-only-zone1", Behaviour()),
        ("3.0.0-broken-only", Behaviour()),
    ],
)
def test_a_versions_name_says_how_it_behaves(version: str, expected: Behaviour) -> None:
    assert Behaviour.of(version, "web3", "zone2") == expected


def test_a_call_without_tls_reads_no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes 20 ms, and tests make one each 50 ms where they wait."""
    read: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_arguments: read.append(_arguments))
    Http("http://127.0.35.1")
    assert not read


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


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")
def test_debian_is_taken_from_where_apt_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "sources.list").write_text(
        "deb http://mirror.example/debian bookworm main\n"
        "deb http://security.example/debian-security bookworm-security main\n",
        encoding="utf-8",
    )
    (tmp_path / "more" / "second.sources").write_text(
        "Types: deb\nURIs: https://second.example/deb/\nSuites: bookworm bookworm-updates\nComponents: main\n",
        encoding="utf-8",
    )
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "{tmp_path}/more/";\n'
        f'Dir::State::Lists "{tmp_path}/lists";\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    mirrors = binaries.debian_mirrors()
    assert set(mirrors[:-1]) == {"http://mirror.example/debian", "https://second.example/deb"}
    assert mirrors[-1] == binaries.DEBIAN_MIRROR


def fake_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_the_next_archive_is_asked_where_one_does_not_have_consul(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(mirror: str) -> Path:
        asked.append(mirror)
        if len(asked) < 3:
            raise binaries.BinaryError(f"E: {mirror} has no Debian 11")
        return nowhere

    for tool in ("apt-get", "dpkg-deb"):
        fake_program(nowhere / "bin" / tool, "")
    mirrors = ["http://one.example", "http://somebody:secret@two.example", "http://three.example"]
    monkeypatch.setattr(binaries, "debian_mirrors", lambda: mirrors)
    monkeypatch.setattr(binaries, "_from_mirror", ask)
    assert binaries.fetch_consul(binaries.DEBIAN) == nowhere
    assert asked == mirrors
    asked.clear()
    monkeypatch.setattr(binaries, "debian_mirrors", lambda: mirrors[:2])
    with pytest.raises(binaries.BinaryError, match=r"http://one\.example has no.*http://two\.example has no") as error:
        binaries.fetch_consul(binaries.DEBIAN)
    assert "secret" not in str(error.value)


# What `go install` does: it says what it was given, and leaves modules that nobody may change.
GO = """
PATH=/usr/bin:/bin
case $1 in
env) echo -trimpath ;;
install)
    env >"$SEEN"
    mkdir -p "$GOMODCACHE/module" "$GOCACHE"
    case " $GOFLAGS " in *" -modcacherw "*) ;; *) chmod 555 "$GOMODCACHE/module" ;; esac
    printf '#!/bin/sh\necho consul-template v0.41.1\n' >"$GOBIN/consul-template" ;;
esac
"""


def test_consul_template_is_compiled_where_no_release_can_be_had(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "CONSUL_TEMPLATE_BIN", "GOPATH", "GOFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SEEN", str(nowhere / "seen"))
    fake_program(nowhere / "bin" / "go", GO)
    found = binaries.fetch_consul_template()
    cache = nowhere / "cache" / "hitless"
    assert found == cache / "consul-template" / binaries.TEMPLATE_RELEASE / "consul-template"
    assert os.access(found, os.X_OK)
    assert [path.name for path in cache.iterdir()] == ["consul-template"]
    seen = dict(line.split("=", 1) for line in (nowhere / "seen").read_text(encoding="utf-8").splitlines())
    assert seen["GOFLAGS"] == "-trimpath -modcacherw"
    assert {Path(seen[name]).is_relative_to(cache) for name in ("GOPATH", "GOMODCACHE", "GOCACHE")} == {True}


def test_a_consul_template_with_another_checksum_is_not_used(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_arguments, **_options: io.BytesIO(b"not what was pinned"))
    fake_program(nowhere / "bin" / "go", "echo no network >&2; exit 1")
    with pytest.raises(binaries.BinaryError, match="consul-template .*not the pinned .*not used.*no network"):
        binaries.fetch_consul_template()
    assert list((nowhere / "cache" / "hitless").iterdir()) == []


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
