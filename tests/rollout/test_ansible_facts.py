"""What Ansible itself does: each test is a fact that the shape of a rollout rests on, in a playbook as small as can be.

docs/architecture.md says what follows from them. Where a new ansible-core changes one, its test fails here first, and
not as a rollout that goes wrong. No Consul and nothing of the collection takes part.
"""

from __future__ import annotations

import re
import signal
import textwrap
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Ansible, Result

# They change with Ansible, not with the collection.
pytestmark = pytest.mark.slow

CORE = tuple(int(part) for part in version("ansible-core").split(".")[:2])
TAGS_DATA = CORE >= (2, 19)
"""From 2.19 on a text is a template only where somebody trusted has written it, and conditions have to be boolean."""

INVENTORY = """
a ansible_connection=local
b ansible_connection=local
c ansible_connection=local
d ansible_connection=local
# Nobody listens there.
lost ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1

[web]
a
b
c
d
"""


class Site:
    """A folder with a playbook, what belongs to it, and an inventory elsewhere; runs it there."""

    def __init__(self, ansible: Ansible, folder: Path) -> None:
        self.ansible, self.folder = ansible, folder
        self.write({"../inventory/hosts": INVENTORY})

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def arguments(self, *more: str) -> list[str | Path]:
        return ["-i", self.folder.parent / "inventory" / "hosts", self.folder / "site.yml", *more]

    def __call__(self, site: str, *more: str, **env: str) -> Result:
        """Run the playbook that is given as text."""
        self.write({"site.yml": site})
        return self.ansible.playbook(*self.arguments(*more), cwd=self.folder, env=env)

    @property
    def log(self) -> Path:
        """Where tasks write what they do, a line each; in the order in which they did it."""
        return self.folder / "log"

    def logged(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


@pytest.fixture
def site(ansible: Ansible, tmp_path: Path) -> Site:
    return Site(ansible, tmp_path / "project")


def said(result: Result) -> Counter[str]:
    """What tasks have said ("say: ..."), and how often."""
    return Counter(in_order(result))


def in_order(result: Result) -> list[str]:
    """What tasks have said. The order of hosts within one task is up to chance."""
    return re.findall(r'"msg": "say: ([^"]*)"', result.stdout)


SAY = "ansible.builtin.debug: {msg: 'say: %s {{ inventory_hostname }}'}"
LATER_PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: 'say: later play'}
"""


def block_of(head: str, fails: str, rescue: bool = True, always: bool = True, again: bool = False) -> str:
    """A play with this head, whose block has a task that fails where ``fails`` holds, and one after it."""
    text = f"""
- gather_facts: false
  {head}
  tasks:
    - block:
        - ansible.builtin.fail: {{msg: on purpose}}
          when: {fails}
        - {SAY % "after"}
"""
    if rescue:
        text += f"      rescue:\n        - {SAY % 'rescue'}\n"
    if again:
        text += "        - ansible.builtin.fail: {msg: again}\n"
    if always:
        text += f"      always:\n        - {SAY % 'always'}\n"
    return text


def hosts_that(told: Counter[str], what: str) -> str:
    """The hosts on which that was said, as one word."""
    return "".join(sorted(text.removeprefix(f"{what} ") for text in told if text.startswith(f"{what} ")))


# --- failures -----------------------------------------------------------------------------------------------------


def test_a_rescued_host_is_a_success(site: Site) -> None:
    """So a rollout counts its failures itself, and a last play makes hosts red."""
    result = site(block_of("hosts: web\n  serial: 2", "true"))
    assert result.rc == 0, result.output
    assert hosts_that(said(result), "rescue") == "abcd"
    assert not result.red


@pytest.mark.parametrize(("always", "goes_on"), [(False, False), (True, True)])
def test_max_fail_percentage_is_ignored_beside_always(site: Site, always: bool, goes_on: bool) -> None:
    head = "hosts: web\n  serial: 2\n  max_fail_percentage: 0"
    result = site(block_of(head, "inventory_hostname == 'a'", always=always, again=True))
    assert result.rc == 2, result.output
    assert hosts_that(said(result), "rescue") == "a"
    assert ("after c" in said(result)) is goes_on


def test_max_fail_percentage_is_of_one_batch_and_to_be_exceeded(site: Site) -> None:
    """Half of each batch fails, half of all in the end: 50 is never exceeded."""
    head = "hosts: web\n  serial: 2\n  max_fail_percentage: 50"
    result = site(block_of(head, "inventory_hostname in 'ac'", rescue=False, always=False))
    assert hosts_that(said(result), "after") == "bd", result.output


def test_any_errors_fatal_beside_rescue(site: Site) -> None:
    """It stops nothing on 2.16; later it pulls the healthy hosts of the batch into rescue, and stops nothing either."""
    result = site(block_of("hosts: web\n  serial: 2\n  any_errors_fatal: true", "inventory_hostname == 'a'"))
    assert hosts_that(said(result), "rescue") == ("a" if CORE < (2, 17) else "ab"), result.output
    assert {"after c", "after d"} <= said(result).keys()


def test_any_errors_fatal_beside_rescue_and_a_percentage(site: Site) -> None:
    """From 2.17 on `always` is not run at all."""
    head = "hosts: web\n  serial: 2\n  any_errors_fatal: true\n  max_fail_percentage: 0"
    result = site(block_of(head, "inventory_hostname == 'a'"))
    assert hosts_that(said(result), "always") == ("abcd" if CORE < (2, 17) else ""), result.output


@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_other_strategies_know_no_limit_between_batches(site: Site, strategy: str) -> None:
    head = f"hosts: web\n  serial: 2\n  max_fail_percentage: 0\n  strategy: {strategy}"
    result = site(block_of(head, "inventory_hostname == 'a'", rescue=False, always=False))
    assert result.rc == 2
    assert ("after c" in said(result)) is (strategy != "linear"), result.output


BATCHES = f"""
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.add_host: {{name: "{{{{ item }}}}", ansible_connection: local}}
      loop: [leads-2, leads-1]
    - ansible.builtin.set_fact:
        order: [leads-1, lost, leads-2, b, a]
        sizes: [2, 3]
- hosts: "{{{{ hostvars['localhost'].order | default([]) }}}}"
  serial: "{{{{ hostvars['localhost'].sizes | default([1]) }}}}"
  gather_facts: false
  tasks:
    - {SAY % "leads"}
      run_once: true
    - ansible.builtin.raw: 'true'
    - {SAY % "reached"}
"""


@pytest.mark.parametrize("how", ["lost", "failed"])
def test_a_batch_gone_as_a_whole_ends_the_playbook(site: Site, how: str) -> None:
    task = "ansible.builtin.raw: 'true'" if how == "lost" else "ansible.builtin.fail: {msg: on purpose}"
    first = "lost" if how == "lost" else "a"
    play = (
        f"- hosts: [{first}, b]\n  serial: 1\n  gather_facts: false\n  tasks:\n    - {task}\n    - {SAY % 'reached'}\n"
    )
    result = site(play + LATER_PLAY)
    assert result.rc != 0
    assert said(result) == {}, result.output


def test_a_host_that_cannot_fail_keeps_its_batch_from_that(site: Site) -> None:
    """So each batch has one, added before the play; the play's hosts and sizes are lists, and keep their order."""
    result = site(BATCHES + LATER_PLAY)
    assert result.rc == 4, result.output
    told = in_order(result)
    assert [one for one in told if one.startswith("leads")] == ["leads leads-1", "leads leads-2"]
    assert said(result).keys() >= {"reached a", "reached b", "later play"}
    assert result.red == {"lost"}


def test_templated_batches_need_a_default_for_the_syntax_check(site: Site) -> None:
    assert site(BATCHES, "--syntax-check").rc == 0
    without = site(BATCHES.replace(".sizes | default([1])", ".sizes"), "--syntax-check")
    assert without.rc != 0
    assert "hostvars" in without.output


def test_rescue_waits_for_the_rest_of_the_batch(site: Site) -> None:
    result = site(block_of("hosts: [a, b]", "inventory_hostname == 'a'", always=False))
    assert in_order(result) == ["after b", "rescue a"], result.output


def test_a_failure_in_always_hides_the_rest_of_it(site: Site) -> None:
    result = site(f"""
        - hosts: a
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.fail: {{msg: first}}
              always:
                - ansible.builtin.fail: {{msg: second}}
                - {SAY % "rest"}
        """)
    assert result.rc == 2
    assert said(result) == {}, result.output


# --- unreachable --------------------------------------------------------------------------------------------------


def test_a_lost_host_reaches_neither_rescue_nor_always(site: Site) -> None:
    """So the collection's actions make a failure of it, and the record tells whom a user's own task has lost."""
    result = site(f"""
        - hosts: [lost, a]
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.raw: 'true'
              rescue:
                - {SAY % "rescue"}
              always:
                - {SAY % "always"}
        """)
    assert result.rc == 4
    assert said(result) == {"always a": 1}, result.output


def test_ignore_unreachable_of_a_play_goes_on_without_the_task(site: Site) -> None:
    result = site(f"""
        - hosts: lost
          gather_facts: false
          ignore_unreachable: true
          tasks:
            - ansible.builtin.raw: 'true'
            - {SAY % "goes on"}
        """)
    assert result.rc == 0, result.output
    assert said(result) == {"goes on lost": 1}


def test_ignore_unreachable_of_a_task_can_be_made_a_failure(site: Site) -> None:
    result = site(f"""
        - hosts: lost
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.raw: 'true'
                  ignore_unreachable: true
                  register: contact
                - ansible.builtin.fail: {{msg: lost}}
                  when: contact.unreachable | default(false)
              rescue:
                - {SAY % "rescue"}
        """)
    assert said(result) == {"rescue lost": 1}, result.output


def test_delegating_to_a_lost_host_loses_the_one_that_delegates(site: Site) -> None:
    result = site("""
        - hosts: a
          gather_facts: false
          tasks:
            - ansible.builtin.raw: 'true'
              delegate_to: lost
        """)
    assert result.recap["a"]["unreachable"] == 1, result.output


def test_who_was_lost_in_an_earlier_batch_is_known(site: Site) -> None:
    result = site("""
        - hosts: [lost, a, b]
          serial: [2, 1]
          gather_facts: false
          tasks:
            - ansible.builtin.raw: 'true'
            - ansible.builtin.debug:
                msg: "say: {{ ansible_play_hosts_all | difference(ansible_play_hosts) | join(',') }} gone"
              when: inventory_hostname == 'b'
        """)
    assert said(result) == {"lost gone": 1}, result.output


RAISES = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        raise AnsibleConnectionFailure("cut off")
"""


def test_a_connection_lost_inside_an_action_is_unreachable(site: Site) -> None:
    """Unless the action catches it."""
    site.write({"action_plugins/cut_off.py": RAISES})
    result = site(f"""
        - hosts: a
          gather_facts: false
          tasks:
            - block:
                - cut_off:
              rescue:
                - {SAY % "rescue"}
        """)
    assert result.recap["a"]["unreachable"] == 1, result.output
    assert said(result) == {}


# --- the user's hook ----------------------------------------------------------------------------------------------

HOOK = f"""
- hosts: [a, b]
  serial: 1
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.include_tasks: hook.yml
      rescue:
        - {SAY % "rescue"}
      always:
        - {SAY % "always"}
"""
ABORTS = {
    "YAML error": "- name: [x\n",
    "unknown module": "- no.such.module:\n",
    "unknown keyword": "- ansible.builtin.debug: {msg: x}\n  untill: true\n",
}


@pytest.mark.parametrize(
    "name",
    list(ABORTS),
)
def test_a_hook_that_cannot_be_read_aborts_the_run(site: Site, name: str) -> None:
    """Without rescue or always: so it has to be met while nothing has been touched."""
    site.write({"hook.yml": ABORTS[name]})
    result = site(HOOK + LATER_PLAY)
    assert result.rc == 4, result.output
    assert said(result) == {}


def test_an_undefined_variable_in_a_hook_reaches_rescue(site: Site) -> None:
    site.write({"hook.yml": "- ansible.builtin.debug: {msg: '{{ missing }}'}\n"})
    result = site(HOOK)
    assert result.rc == 0, result.output
    assert said(result) == {f"{what} {host}": 1 for what in ("rescue", "always") for host in "ab"}


def test_a_missing_hook_reaches_rescue_and_ends_the_playbook(site: Site) -> None:
    """With success: its host counts as failed all the same, so that its batch is gone as a whole."""
    result = site(HOOK + LATER_PLAY)
    assert result.rc == 0, result.output
    assert said(result) == {"rescue a": 1, "always a": 1}


PARSE = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks:
        file: hook.yml
        apply:
          when: false
"""


def test_a_hook_is_parsed_while_nothing_of_it_runs(site: Site) -> None:
    """By a condition that is applied to it, whatever conditions, loops, blocks and includes it has."""
    site.write(
        {
            "hook.yml": f"""
                - {SAY % "task"}
                  when: true
                - {SAY % "loop"}
                  loop: "{{{{ missing }}}}"
                - block:
                    - {SAY % "block"}
                      delegate_to: lost
                  always:
                    - {SAY % "always"}
                - ansible.builtin.include_tasks: more.yml
                - ansible.builtin.import_tasks: more.yml
                """,
            "more.yml": f"- {SAY % 'included'}\n  when: inventory_hostname != 'x'\n",
        }
    )
    fine = site(PARSE + LATER_PLAY)
    assert fine.rc == 0, fine.output
    assert said(fine) == {"later play": 1}

    site.write({"hook.yml": ABORTS["unknown module"]})
    broken = site(PARSE + LATER_PLAY)
    assert broken.rc == 4, broken.output
    assert said(broken) == {}


HANDLERS = """
- hosts: a
  gather_facts: false
  handlers:
    - name: Restart
      ansible.builtin.debug: {msg: 'say: handler'}
    - name: Break
      ansible.builtin.fail: {msg: on purpose}
  tasks:
    - block:
        - ansible.builtin.raw: 'true'
          notify: %s
        - ansible.builtin.meta: %s
        - ansible.builtin.debug: {msg: 'say: traffic'}
      rescue:
        - ansible.builtin.debug: {msg: 'say: rescue'}
"""


@pytest.mark.parametrize(
    ("notified", "meta", "order"),
    [
        ("Restart", "noop", ["traffic", "handler"]),
        ("Restart", "flush_handlers", ["handler", "traffic"]),
        ("Break", "flush_handlers", ["rescue"]),
    ],
    ids=["not flushed", "flushed", "failing"],
)
def test_handlers_run_at_the_end_of_the_batch_unless_flushed(
    site: Site, notified: str, meta: str, order: list[str]
) -> None:
    result = site(HANDLERS % (notified, meta))
    assert result.rc == 0
    assert in_order(result) == order, result.output


def test_handlers_of_a_role_see_the_variables_of_its_include(site: Site) -> None:
    """Each time those it was notified with: the version to deploy, and then the one to go back to."""
    site.write(
        {
            "roles/install/tasks/main.yml": "- ansible.builtin.raw: 'true'\n  notify: Restart\n",
            "roles/install/handlers/main.yml": """
                - name: Restart
                  ansible.builtin.debug: {msg: "say: {{ deploy_version }}"}
                """,
            "step.yml": """
                - ansible.builtin.include_role: {name: install}
                - ansible.builtin.meta: flush_handlers
                """,
        }
    )
    result = site("""
        - hosts: a
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.include_tasks: step.yml
                  vars: {deploy_version: new}
                - ansible.builtin.fail: {msg: on purpose}
              rescue:
                - ansible.builtin.include_tasks: step.yml
                  vars: {deploy_version: old}
        """)
    assert in_order(result) == ["new", "old"], result.output


@pytest.mark.parametrize("meta", ["end_host", "end_batch", "end_play"])
def test_an_end_inside_a_block_skips_always(site: Site, meta: str) -> None:
    result = site(f"""
        - hosts: a
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.meta: {meta}
              always:
                - {SAY % "always"}
        """)
    assert result.rc == 0
    assert said(result) == {}, result.output


def test_end_batch_at_its_head_ends_only_that_batch(site: Site) -> None:
    result = site(f"""
        - hosts: web
          serial: 2
          gather_facts: false
          tasks:
            - ansible.builtin.meta: end_batch
              when: ansible_play_batch[0] == 'a'
            - {SAY % "on"}
        """)
    assert said(result) == {"on c": 1, "on d": 1}, result.output


def test_a_timeout_reaches_rescue(site: Site) -> None:
    result = site(f"""
        - hosts: a
          gather_facts: false
          tasks:
            - block:
                - ansible.builtin.raw: sleep 60
                  timeout: 1
              rescue:
                - {SAY % "rescue"}
        """)
    assert result.rc == 0
    assert said(result) == {"rescue a": 1}, result.output


@pytest.mark.parametrize(
    ("bound", "ends"), [("timeout: 1", False), ("apply: {timeout: 1}", True)], ids=["of the include", "applied"]
)
def test_no_timeout_bounds_a_role_as_a_whole(site: Site, bound: str, ends: bool) -> None:
    """One that is applied holds for each of its tasks."""
    site.write({"roles/slow/tasks/main.yml": f"- ansible.builtin.raw: sleep 3\n- {SAY % 'done'}\n"})
    include = f"ansible.builtin.include_role:\n        name: slow\n      {bound}\n"
    if ends:
        include = include.replace("      apply", "        apply")
    result = site(f"- hosts: a\n  gather_facts: false\n  tasks:\n    - {include}")
    assert said(result) == ({} if ends else {"done a": 1}), result.output
    assert (result.rc != 0) is ends


# --- once, none, killed -------------------------------------------------------------------------------------------


def test_run_once_is_once_for_each_batch(site: Site) -> None:
    result = site(f"""
        - hosts: [a, b]
          serial: 1
          gather_facts: false
          tasks:
            - {SAY % "once"}
              run_once: true
        - hosts: [a, b]
          gather_facts: false
          tasks:
            - {SAY % "never, since the first host decides for all"}
              run_once: true
              when: inventory_hostname == 'b'
        """)
    assert said(result) == {"once a": 1, "once b": 1}, result.output


def test_run_once_and_a_host_that_leads_the_batch(site: Site) -> None:
    """In an include that is only for the others it runs on the first of them. The leader is in groups['all']."""
    site.write({"guarded.yml": f"- {SAY % 'once'}\n  run_once: true\n"})
    result = site(f"""
        - hosts: localhost
          gather_facts: false
          tasks:
            - ansible.builtin.add_host: {{name: leads, ansible_connection: local}}
        - hosts: [leads, a, b]
          gather_facts: false
          tasks:
            - {SAY % "never"}
              run_once: true
              when: inventory_hostname != 'leads'
            - ansible.builtin.include_tasks: guarded.yml
              when: inventory_hostname != 'leads'
            - ansible.builtin.debug: {{msg: "say: {{{{ 'leads' in groups['all'] }}}}"}}
              run_once: true
        """)
    assert said(result) == {"once a": 1, "True": 1}, result.output


def test_no_hosts_is_a_success(site: Site) -> None:
    result = site(f"- hosts: nobody\n  tasks:\n    - {SAY % 'never'}\n")
    assert result.rc == 0, result.output


@pytest.mark.parametrize("stops", [False, True])
def test_an_inventory_that_cannot_be_read_is_none(site: Site, stops: bool) -> None:
    """Unless any_unparsed_is_failed is set."""
    site.write(
        {"site.yml": f"- hosts: all\n  tasks:\n    - {SAY % 'never'}\n", "broken.yml": "plugin: no.such.plugin\n"}
    )
    env = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": str(stops)}
    result = site.ansible.playbook("-i", site.folder / "broken.yml", site.folder / "site.yml", env=env)
    assert (result.rc != 0) is stops, result.output
    assert said(result) == {}


STATS = """
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "traces"

    def v2_playbook_on_stats(self, stats):
        self._display.display("say stats")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_without_rescue_always_or_stats(site: Site, number: signal.Signals) -> None:
    site.write(
        {
            "callback_plugins/traces.py": STATS,
            "site.yml": f"""
                - hosts: a
                  gather_facts: false
                  tasks:
                    - block:
                        - ansible.builtin.raw: echo begun >{site.log}; sleep 4; echo ended >>{site.log}
                      rescue:
                        - {SAY % "rescue"}
                      always:
                        - {SAY % "always"}
                """,
        }
    )
    with site.ansible.start(*site.arguments(), cwd=site.folder) as run:
        wait_until("the task runs", lambda: site.logged() == ["begun"], 60)
        run.send(number, group=number == signal.SIGINT)
        result = run.wait(60)
    assert result.rc != 0
    assert said(result) == {}, result.output
    assert "say stats" not in result.stdout
    assert not result.recap


def test_stats_come_after_a_batch_gone_as_a_whole(site: Site) -> None:
    site.write({"callback_plugins/traces.py": STATS})
    result = site("- hosts: lost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.raw: 'true'\n" + LATER_PLAY)
    assert result.rc == 4
    assert "say stats" in result.stdout
    assert said(result) == {}


LIMITED = f"""
- hosts: %s
  gather_facts: false
  tasks:
    - ansible.builtin.add_host: {{name: added, ansible_connection: local}}
    - ansible.builtin.debug: {{msg: 'say: localhost'}}
- hosts: added
  gather_facts: false
  tasks:
    - {SAY % "on"}
"""


def test_limit_drops_localhost_and_added_hosts(site: Site) -> None:
    """Everything is skipped, and that is a success: so the first play's hosts refuse it."""
    whole = site(LIMITED % "localhost")
    assert said(whole) == {"localhost": 1, "on added": 1}, whole.output
    limited = site(LIMITED % "localhost", "--limit", "a")
    assert limited.rc == 0
    assert said(limited) == {}, limited.output
    refused = site(
        LIMITED % "\"{{ 'localhost' if ansible_limit is not defined else undef(hint='not so') }}\"", "-l", "a"
    )
    assert refused.rc != 0
    assert "not so" in refused.output


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_tags_skip_what_has_none(site: Site, option: str) -> None:
    """But for what is tagged always, which can see them."""
    result = site(
        f"""
        - hosts: a
          gather_facts: false
          tasks:
            - {SAY % "task"}
              tags: [mine]
            - ansible.builtin.debug: {{msg: "say: {{{{ (ansible_run_tags + ansible_skip_tags) | join(' ') }}}}"}}
              tags: [always]
        """,
        option,
        "other" if option == "--tags" else "mine",
    )
    assert result.rc == 0
    assert said(result) == {"other" if option == "--tags" else "all mine": 1}, result.output


def test_a_batch_larger_than_forks_takes_turns(site: Site) -> None:
    """Also while it only waits: so a warning tells of it."""
    task = f"ansible.builtin.raw: echo begin >>{site.log}; sleep 0.3; echo end >>{site.log}"
    result = site(f"- hosts: web\n  gather_facts: false\n  tasks:\n    - {task}\n", "--forks", "1")
    assert result.rc == 0, result.output
    assert site.logged() == ["begin", "end"] * 4


def test_a_batch_waits_for_its_slowest_host_at_each_task(site: Site) -> None:
    wait = f"ansible.builtin.raw: sleep {{{{ 1 if inventory_hostname == 'b' else 0 }}}}; echo first >>{site.log}"
    tasks = f"    - {wait}\n    - ansible.builtin.raw: echo second >>{site.log}\n"
    result = site(f"- hosts: [a, b]\n  gather_facts: false\n  tasks:\n{tasks}")
    assert result.rc == 0, result.output
    assert site.logged() == ["first", "first", "second", "second"]


@pytest.mark.parametrize("own", [False, True])
def test_an_added_host_inherits_what_all_hosts_have(site: Site, own: bool) -> None:
    site.write(
        {"../inventory/group_vars/all.yml": "ansible_connection: ssh\nansible_port: 1\nansible_host: 127.0.0.1\n"}
    )
    result = site(f"""
        - hosts: localhost
          connection: local
          gather_facts: false
          vars: {{ansible_connection: local}}
          tasks:
            - ansible.builtin.add_host: {{name: added{", ansible_connection: local" if own else ""}}}
        - hosts: added
          gather_facts: false
          tasks:
            - ansible.builtin.raw: 'true'
        """)
    assert (result.rc == 0) is own, result.output


# --- options ------------------------------------------------------------------------------------------------------

ARGUMENTS = """
from ansible import context
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [context.CLIARGS["args"][0]]
"""


def test_an_imported_playbook_looks_beside_itself(site: Site) -> None:
    """And not beside the one on the command line, which only Ansible's own arguments tell: so we look there."""
    site.write(
        {
            "elsewhere/inner.yml": """
                - hosts: a
                  gather_facts: false
                  tasks:
                    - ansible.builtin.debug: {msg: "say: {{ playbook_dir | basename }}"}
                    - ansible.builtin.debug: {msg: "say: {{ lookup('arguments') | basename }}"}
                    - ansible.builtin.debug: {msg: "say: {{ colour | default('no colour') }}"}
                    - ansible.builtin.include_tasks: "{{ file }}"
                """,
            "group_vars/web.yml": "colour: green\n",
            "hook.yml": f"- {SAY % 'hook'}\n",
            "plugins/arguments.py": ARGUMENTS,
        }
    )
    plugins = {"ANSIBLE_LOOKUP_PLUGINS": str(site.folder / "plugins")}
    relative = site("- ansible.builtin.import_playbook: elsewhere/inner.yml\n", "-e", "file=hook.yml", **plugins)
    assert relative.rc != 0
    assert in_order(relative) == ["elsewhere", "site.yml", "no colour"], relative.output
    absolute = site(
        "- ansible.builtin.import_playbook: elsewhere/inner.yml\n", "-e", f"file={site.folder}/hook.yml", **plugins
    )
    assert "hook a" in said(absolute), absolute.output


def test_variables_of_a_group_are_not_localhosts(site: Site) -> None:
    site.write({"../inventory/group_vars/web.yml": "colour: green\n"})
    task = """ansible.builtin.debug: {msg: "say: {{ colour | default('none') }} {{ inventory_hostname }}"}"""
    result = site(f"- hosts: [a, localhost]\n  gather_facts: false\n  tasks:\n    - {task}\n")
    assert said(result) == {"green a": 1, "none localhost": 1}, result.output


def test_argument_specs_neither_convert_nor_know_names(site: Site) -> None:
    site.write(
        {
            "roles/some/meta/argument_specs.yml": """
                argument_specs:
                  main:
                    options:
                      some_version: {type: str}
                      some_flag: {type: bool}
                """,
            "roles/some/tasks/main.yml": """
                - ansible.builtin.debug: {msg: "say: {{ some_version }} {{ some_flag is string }}"}
                """,
        }
    )
    play = "- hosts: a\n  gather_facts: false\n  roles: [some]\n"
    given = '{"some_version": 1.10, "some_flagg": true}'
    result = site(play, "-e", given, "-e", "some_flag=false")
    assert said(result) == {"1.1 True": 1}, result.output


def test_a_condition_that_is_text(site: Site) -> None:
    """The text "false" is true on 2.16, and an error from 2.19 on."""
    result = site(
        f"- hosts: a\n  gather_facts: false\n  tasks:\n    - {SAY % 'true'}\n      when: flag\n",
        "-e",
        "flag='\"false\"'",
    )
    assert said(result) == ({} if TAGS_DATA else {"true a": 1}), result.output
    assert (result.rc != 0) is TAGS_DATA


def test_an_extra_variable_beats_those_of_an_include(site: Site) -> None:
    """A `deploy_version` of the user would beat ours in the rollback: so it is refused."""
    site.write({"hook.yml": "- ansible.builtin.debug: {msg: 'say: {{ deploy_version }}'}\n"})
    result = site(
        """
        - hosts: a
          gather_facts: false
          tasks:
            - ansible.builtin.include_tasks: hook.yml
              vars: {deploy_version: good}
        """,
        "-e",
        "deploy_version=bad",
    )
    assert said(result) == {"bad": 1}, result.output


# --- plugins ------------------------------------------------------------------------------------------------------


def test_a_library_that_an_action_misses_is_called_a_bug(site: Site) -> None:
    """So its import is guarded."""
    site.write({"action_plugins/needy.py": "import no_such_library\n"})
    result = site("- hosts: a\n  gather_facts: false\n  tasks:\n    - needy:\n")
    assert result.rc != 0
    assert "probably a bug" in result.output or "Unexpected" in result.output, result.output


PIDS = """
import os

from ansible.plugins.action import ActionBase

LOADED_BY = os.getpid()


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        here = "worker" if os.getpid() != LOADED_BY else "main"
        return {"changed": False, "msg": "say: %s of %s" % (here, os.getppid() == LOADED_BY)}
"""


def test_an_action_is_loaded_once_by_the_main_process(site: Site) -> None:
    """Workers inherit what it has imported, and the pipe that it has opened."""
    site.write({"action_plugins/pids.py": PIDS})
    result = site("- hosts: web\n  gather_facts: false\n  tasks:\n    - pids:\n    - pids:\n", "-v")
    assert said(result) == {"worker of True": 8}, result.output


HOSTILE = """
DOCUMENTATION = "name: hostile\\nshort_description: x\\ndescription: [x]\\noptions: {plugin: {}}"
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.unsafe_proxy import wrap_var


class InventoryModule(BaseInventoryPlugin):
    NAME = "hostile"

    def verify_file(self, path):
        return True

    def parse(self, inventory, loader, path, cache=True):
        text = "{{ lookup('pipe', 'echo executed') }}"
        inventory.add_host("x")
        inventory.set_variable("x", "ansible_connection", "local")
        inventory.set_variable("x", "plain", text)
        inventory.set_variable("x", "wrapped", wrap_var(text))
"""


def test_a_template_from_an_inventory_plugin_runs_where_it_is_not_wrapped(site: Site) -> None:
    """Before 2.19."""
    site.write(
        {
            "inventory_plugins/hostile.py": HOSTILE,
            "hostile.yml": "plugin: hostile\n",
            "site.yml": "- hosts: x\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {var: plain}\n"
            "    - ansible.builtin.debug: {var: wrapped}\n",
        }
    )
    env = {"ANSIBLE_INVENTORY_PLUGINS": str(site.folder / "inventory_plugins"), "ANSIBLE_INVENTORY_ENABLED": "hostile"}
    result = site.ansible.playbook("-i", site.folder / "hostile.yml", site.folder / "site.yml", env=env)
    assert result.rc == 0, result.output
    assert ('"plain": "executed"' in result.stdout) is not TAGS_DATA
    assert '"wrapped": "executed"' not in result.stdout


ARGS = """
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "tells"

    def v2_runner_on_ok(self, result):
        self._display.display("say args %s" % dict(result._task.args))
        self._display.display("say result %s" % dict(result._result))
"""


def test_a_callback_gets_arguments_that_are_not_to_be_logged(site: Site) -> None:
    """Only the result is censored: so ours sends no arguments."""
    site.write({"callback_plugins/tells.py": ARGS})
    result = site(
        "- hosts: a\n  gather_facts: false\n  tasks:\n    - ansible.builtin.set_fact: {x: s3cret}\n      no_log: true\n"
    )
    assert "say args {'x': 's3cret'}" in result.stdout, result.output
    assert "s3cret" not in result.stdout.partition("say result")[2].partition("\n")[0]


def test_the_lines_around_a_failing_task_are_shown(site: Site) -> None:
    """From 2.19 on whatever it failed of: a token that is written into a playbook would be as well."""
    result = site("- hosts: a\n  gather_facts: false\n  tasks:\n    - ansible.builtin.fail: {msg: x} # s3cret\n")
    assert result.rc == 2
    assert ("s3cret" in result.output) is TAGS_DATA, result.output
