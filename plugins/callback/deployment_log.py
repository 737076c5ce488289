# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forwards what happens in a rollout to Consul and to a file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: deployment_log
type: notification
short_description: Forwards what happens in a rollout to Consul and to a file
version_added: 0.1.0
description:
  - Time, host, task and outcome of each task of a rollout, and what the deployment step printed, in the deployment's
    log keys in Consul (the playbook C(hitless.consul.status) shows them) and as JSON lines in a file. The rollout's own
    housekeeping is left out where it goes well.
  - Never the arguments of a task. Of a task under C(no_log) only where it stands, and its outcome.
  - Consul is written by a thread in the background, with bounded memory. When it is slow or away entries are dropped
    and counted, and the run goes on as if nothing was.
requirements:
  - C(callbacks_enabled = hitless.consul.deployment_log) in ansible.cfg.
author:
  - Hitless contributors (@hitless)
options:
  path:
    description:
      - A file that JSON lines are appended to. Its folder has to exist. A new file is readable by its owner alone.
        None where not set.
    type: path
    env:
      - name: HITLESS_LOG_PATH
    ini:
      - section: hitless_deployment_log
        key: path
  consul:
    description:
      - Whether to write to Consul. Address and token are those of the rollout, by the variables
        C(hitless_consul_url) and so on as localhost has them, else by the environment (C(CONSUL_HTTP_ADDR) and so on).
    type: bool
    default: true
    env:
      - name: HITLESS_LOG_CONSUL
    ini:
      - section: hitless_deployment_log
        key: consul
  close_within:
    description: Seconds that the end of a run may wait for what has not been sent yet.
    type: float
    default: 5
    env:
      - name: HITLESS_LOG_CLOSE_WITHIN
    ini:
      - section: hitless_deployment_log
        key: close_within
"""

EXAMPLES = r"""
# ansible.cfg
# [defaults]
# callbacks_enabled = hitless.consul.deployment_log
# [hitless_deployment_log]
# path = /var/log/ansible/deployments.jsonl
"""

import json
import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import of_inventory
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    OPTIONS,
    VARIABLE_PREFIX,
    cluster_connection,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs.terminal import plain_text
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, checked_prefix
from ansible_collections.hitless.consul.plugins.module_utils._views.log import ENTRY_LIMIT, LogWriter
from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import (
    data_of,
    host_of,
    host_variables,
    play_variables_of,
    task_of,
    uuid_of,
)

STEP = "hitless.consul.rollout_step"
OURS = "hitless.consul."
_OWN = tuple(
    os.path.join(os.path.realpath(__file__).rpartition(os.sep + "plugins" + os.sep)[0], folder, "")
    for folder in ("roles", "playbooks")
)
"""Where the tasks of the collection stand."""
_TELLING = (
    *("leave", "drain", "wait_until_drained", "deploy", "verify", "verify_and_return", "begin_restore", "return"),
    *("deploy_by_agent", "on_failure", "after_undrain", "recover_host", "recover_verify", "recover_return"),
    *("settle", "finish", "recovered"),
)
"""Steps that say something of a host, or of all, where they go well."""
_SECRETS = tuple(VARIABLE_PREFIX + option for option in ("token", "agent_token"))
_DRAINED = ("drain", "wait_until_drained")
_ENDS_DEPLOYMENT = (*_DRAINED, "leave", "verify", "verify_and_return", "on_failure")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Told of everything by the main process; what it does with it must cost next to nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "hitless.consul.deployment_log"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None) -> None:
        super().__init__(display=display)
        self._play: Any = None
        self._id = ""
        self._service = ""
        self._keys: Keys | None = None
        self._options: dict[str, Any] = {}
        self._writer: LogWriter | None = None
        self._ended: list[LogWriter] = []
        self._file: Any = None
        self._file_failed = False
        self._deploying: set[str] = set()
        self._began: dict[tuple[str, str], float] = {}
        self._secrets: set[str] = set()
        self._asked: set[str] = set()
        self._own: dict[str, bool] = {}

    # -- what Ansible tells -------------------------------------------------------------------------------------

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[host.get_name(), uuid_of(task)] = time.monotonic()
        if task.action == STEP and task.args.get("step") in _ENDS_DEPLOYMENT:
            self._deploying.discard(host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        data = data_of(result)
        self._told(result, "changed" if data.get("changed") else "ok")
        step = data.get("step") if task_of(result).action == STEP else None
        if step == "prepare":
            self._begin(data)
        if step in ("prepare", "plan") and data.get("recorded"):
            self._open()
        if step in _DRAINED:
            self._deploying.add(host_of(result).get_name())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._told(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._told(result, "unreachable")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._began.pop((host_of(result).get_name(), uuid_of(task_of(result))), None)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - Ansible's interface
        until = time.monotonic() + float(self.get_option("close_within"))
        for writer in (*self._ended, *([self._writer] if self._writer else [])):
            writer.close(max(0.0, until - time.monotonic()))
        if self._file:
            self._file.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _begin(self, data: Mapping[str, Any]) -> None:
        """From here on it is known which deployment this is, and where its Consul; it may be the run's second one."""
        if self._writer:
            self._writer.end()
            self._ended.append(self._writer)
        self._writer = self._keys = None
        self._deploying.clear()
        self._asked.clear()
        options = data.get("options") or {}
        self._id, self._service = str(data.get("id") or ""), str(options.get("service") or "")
        try:
            variables = self._variables(data.get("address") or {})
            self._options = connection_options({}, variables, os.environ, of_inventory())
            self._hide(cluster_connection(self._options).token)
            self._keys = Keys(
                self._service,
                deploy=checked_prefix(self._options.get("deploy_prefix", "deploy"), "deploy_prefix"),
                nodes=checked_prefix(self._options.get("nodes_prefix", "nodes"), "nodes_prefix"),
            )
        except HitlessError as error:
            self._display.warning(f"deployment_log: nothing is sent to Consul: {error}")

    def _open(self) -> None:
        """The deployment has a record: it can have a log."""
        if self._writer or not self._keys or not self.get_option("consul"):
            return
        options = self._options

        def client() -> Client:
            return Client(cluster_connection(options), retry_for=2.0)

        self._writer = LogWriter(client, self._keys, self._id, self._display.warning)

    def _variables(self, address: Mapping[str, Any]) -> dict[str, Any]:
        """The variables ``hitless_consul_<option>`` as localhost has them in this play, those taken from a host too."""
        names = [VARIABLE_PREFIX + option for option in OPTIONS if "agent" not in option]
        try:
            own = play_variables_of(self._play, "localhost", names)
            taken = [name for name in address.get("variables", ()) if name not in own]
            return {**(play_variables_of(self._play, address["host"], taken) if taken else {}), **own}
        except Exception as error:  # whatever a template raises: the log is no reason to fail
            raise HitlessError(f"a variable {VARIABLE_PREFIX}* cannot be resolved: {error}") from None

    def _hide(self, secret: object) -> None:
        """From here on it is shown nowhere; a line end of it may have been left away."""
        self._secrets |= {text for text in (str(secret or ""), str(secret or "").strip()) if text}

    def _hide_tokens_of(self, host: Any) -> None:
        """The tokens that the steps on a host use, which may be of its own; looked up once a deployment."""
        if host.get_name() in self._asked or not self._id:
            return
        self._asked.add(host.get_name())
        for token in host_variables(self._play, host, _SECRETS).values():
            self._hide(token)

    def _is_own(self, task: Any) -> bool:
        """Whether the task is one of the collection's, and none of a hook or of the user's role."""
        path = str(task.get_path() or "").rpartition(":")[0]
        if path not in self._own:
            self._own[path] = os.path.realpath(path).startswith(_OWN)
        return self._own[path]

    def _is_housekeeping(self, task: Any, data: Mapping[str, Any]) -> bool:
        is_step = task.action == STEP and data.get("step") in _TELLING
        return self._is_own(task) and not is_step and (task.action == STEP or not task.action.startswith(OURS))

    def _told(self, result: Any, outcome: str) -> None:
        task, host, data = task_of(result), host_of(result).get_name(), data_of(result)
        began = self._began.pop((host, uuid_of(task)), None)
        if outcome in ("ok", "changed") and self._is_housekeeping(task, data):
            return
        self._hide_tokens_of(host_of(result))
        hidden = bool(task.no_log) or bool(data.get("_ansible_no_log"))
        entry: dict[str, Any] = {
            "time": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "deployment": self._id,
            "service": self._service,
            "host": host,
            # The name of a hidden task may hold what it hides.
            "task": _place(task) if hidden else self._clean(task.get_name()).removeprefix("hitless.consul.rollout : "),
            "action": task.action,
            "outcome": outcome,
            "seconds": None if began is None else round(time.monotonic() - began, 3),
        }
        if not hidden and outcome in ("failed", "ignored", "unreachable"):
            entry["message"] = self._clean(str(data.get("msg") or ""))[:2000]
        if not hidden and (host in self._deploying or (task.action == STEP and task.args.get("step") == "deploy")):
            entry["output"] = self._clean(_output(data))[-ENTRY_LIMIT + 2000 :]
        self._write_file(entry)
        if self._writer:
            self._writer.put(host, _as_text(entry))

    def _write_file(self, entry: Mapping[str, Any]) -> None:
        path = self.get_option("path")
        if not path or self._file_failed:
            return
        try:
            # Opened for each run, appended by whole lines: two runs may share it.
            if self._file is None:
                opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                self._file = os.fdopen(opened, "a", encoding="utf-8", buffering=1)
            self._file.write(json.dumps(entry) + "\n")
        except (OSError, ValueError) as error:
            self._file_failed = True
            self._display.warning(f"deployment_log: {path} cannot be written: {error}")

    def _clean(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return str(plain_text(text))  # type: ignore[no-untyped-call]


def _place(task: Any) -> str:
    """File and line of a task."""
    return os.path.basename(str(task.get_path() or "a task under no_log"))


def _output(data: Mapping[str, Any]) -> str:
    """What a task printed, of each item where it was a loop."""
    items = [one for one in data.get("results") or () if isinstance(one, Mapping) and not one.get("_ansible_no_log")]
    printed = [str(one.get(name) or "").rstrip("\n") for one in items or [data] for name in ("stdout", "stderr")]
    return "\n".join(part for part in printed if part)


def _as_text(entry: Mapping[str, Any]) -> str:
    took = "" if entry["seconds"] is None else f" ({entry['seconds']:.1f} s)"
    lines = [f"== {entry['time'][:19]}Z {entry['outcome']}: {entry['task']}{took}"]
    lines += [f"   {entry['message']}"] if entry.get("message") else []
    lines += entry["output"].splitlines() if entry.get("output") else []
    return "\n".join(lines) + "\n"
