"""The helpers themselves: a wrong reading of a recap, or of a text with a secret, would let other tests pass."""

from __future__ import annotations

import base64
import signal
from pathlib import Path

import pytest

from lab.testkit.ansible_run import Ansible, flat
from tests.rollout.secrets import ProcessWatch, files_with, shows

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.assert:
        that: inventory_hostname != 'b'
    - ansible.builtin.debug:
        msg: "{{ lookup('env', 'CONSUL_HTTP_TOKEN') }}-{{ lookup('env', 'GIVEN') }}"
    - ansible.builtin.wait_for:
        timeout: "{{ seconds | default(0) }}"
      when: seconds is defined
      delegate_to: localhost
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yml"
    path.write_text(PLAY)
    return path


@pytest.mark.parametrize(
    "printed", ["pip install\npy-consul - or", "pip install py-\nconsul -\nor", "pip\n  install py-consul - or"]
)
def test_a_phrase_is_found_wherever_ansible_broke_the_line(printed: str) -> None:
    assert flat(printed) == "pip install py-consul - or"


@pytest.mark.oldest
def test_recap_and_environment(ansible: Ansible, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from outside")
    result = ansible.playbook("-i", "a,b,", "-c", "local", site, env={"GIVEN": "given"})
    assert result.rc == 2, result.output
    assert result.red == {"b"}
    assert result.recap["a"]["ok"] == 2
    assert '"msg": "-given"' in result.stdout


def test_a_signal_ends_it(ansible: Ansible, site: Path) -> None:
    with ansible.start("-i", "a,", "-c", "local", "-e", "seconds=100", site) as run:
        run.wait_for("TASK [ansible.builtin.wait_for]")
        run.send(signal.SIGKILL)
        assert run.wait().rc == -signal.SIGKILL


@pytest.mark.oldest
def test_only_the_installed_collection_is_seen(ansible: Ansible, collection: Path) -> None:
    result = ansible.command("ansible-galaxy", "collection", "list", "hitless.consul")
    assert result.rc == 0, result.output
    assert f"# {collection}/ansible_collections" in result.stdout
    assert result.stdout.count("hitless.consul") == 1


SECRET = "1a2b3c4d-0000-1111-2222-333344445555"


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_a_secret_is_found_plain_and_in_base64(before: str, tmp_path: Path) -> None:
    text = f"{before}{SECRET} and more"
    encoded = base64.b64encode(text.encode()).decode()
    assert shows(SECRET, text)
    assert shows(SECRET, f"request: {encoded}")
    assert not shows(SECRET, encoded.swapcase())
    (tmp_path / "log").write_text(encoded)
    assert files_with(SECRET, tmp_path) == [str(tmp_path / "log")]
    assert files_with(SECRET, tmp_path, but=[tmp_path]) == []


@pytest.mark.slow
def test_a_secret_of_a_process_is_found(ansible: Ansible) -> None:
    said = ["a,", "-i", "a,", "-c", "local", "-m", "ansible.builtin.raw", "-a"]
    with ProcessWatch(SECRET) as watch:
        assert ansible.command("ansible", *said, f"sleep 0.5; : {SECRET}").rc == 0
    assert watch.arguments
    with ProcessWatch(SECRET) as watch:
        assert ansible.command("ansible", *said, "sleep 0.5", env={"SECRET": SECRET}).rc == 0
    assert watch.environments
    assert not watch.arguments
