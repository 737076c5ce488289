# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python -m lab`: start a lab that outlives the command, look at it, play with it, end it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from .balancer import METHODS
from .binaries import BinaryError, build_consul, fetch_consul, fetch_consul_template
from .demo import main as demo
from .errors import ConsulError, LabError
from .fleet import Lab
from .network import APP_PORT
from .testkit import link_tree
from .testkit.ansible_run import BIN
from .vm import VM

# As it can be typed in this folder.
COMMAND = f"{sys.executable.removeprefix(f'{Path.cwd()}/')} -m lab"
# Ansible's own default.
COLLECTIONS_PATH = "~/.ansible/collections:/usr/share/ansible/collections"
# What makes the lab pleasant to play with: its load balancer follows Consul within 0.2 s, so short times do.
PLAY_VARIABLES = {
    "rollout_health_url": "http://{{ consul_address }}:8080/health",
    "rollout_health_match": '"version": "{{ deploy_version }}"',
    "rollout_drain_time": 2,
    "rollout_min_healthy_time": 2,
    "rollout_bake_time": 2,
    "rollout_healthy_deadline": 30,
}


def start_deploy_agent(vm: VM) -> None:
    """Start the VM's deploy agent again."""
    vm.deploy_agent.start()


def stop_deploy_agent(vm: VM) -> None:
    """Kill -9 of the VM's deploy agent; a command that it has started goes on."""
    vm.deploy_agent.stop()


VM_ACTIONS: dict[str, Callable[[VM], object]] = {
    "stop-ssh": VM.stop_sshd,
    "start-ssh": VM.start_sshd,
    "stop-app": VM.stop_app,
    "kill-agent": VM.kill_agent,
    "start-agent": VM.start_agent,
    "stop-deploy-agent": stop_deploy_agent,
    "start-deploy-agent": start_deploy_agent,
}


def state_file() -> Path:
    """Where the directory of the user's lab is noted."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hitless" / "lab"


def current() -> Lab:
    """The lab that `up` started; LabError when there is none."""
    try:
        directory = state_file().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise LabError(f"no lab is running: start one with `{COMMAND} up`") from None
    return Lab.attach(directory)


def up(options: argparse.Namespace) -> None:
    """Start a lab and say how to use it."""
    try:
        running = current()
    except LabError:
        pass
    else:
        raise LabError(f"a lab is running already in {running.directory}: `{COMMAND} down` ends it")
    state_file().parent.mkdir(parents=True, exist_ok=True)
    lab = Lab(
        vms=options.vms,
        servers=options.servers,
        service=options.service,
        version=options.version,
        consul=options.consul,
        ssh=options.ssh and not options.agent,
        agent="watch" if options.agent else "",
        zones=options.zones,
        acl=options.acl,
        tls=options.tls,
        haproxy_retries=not options.no_retries,
        balancer=options.balancer,
        lifetime=options.hours * 3600,
        detached=True,
        state_file=state_file(),
        inventory_variables=PLAY_VARIABLES,
    )
    lab.start()
    state_file().write_text(f"{lab.directory}\n", encoding="utf-8")
    show(lab)
    kind = "agent" if options.agent else "ssh" if options.ssh else "local"
    print(f"\nIt ends by itself after {options.hours:g} h, or with `{COMMAND} down`. To roll a version over it:\n")
    print(f'  eval "$({COMMAND} env)"')
    print(f"  ansible-playbook -i {lab.directory}/inventory/{kind}/web.consul.yml hitless.consul.rollout \\")
    print(f"    -e rollout_service={lab.settings.service} -e rollout_version=2.0.0")


def show(lab: Lab) -> None:
    """Addresses, and what runs where."""
    print(f"Lab in {lab.directory}, Consul {lab.settings.consul_version}")
    print(f"  Consul         {lab.url}")
    print(f"  load balancer  {lab.frontend}  (statistics: {lab.balancer.stats_url})")
    print(f"  inventories    {lab.directory}/inventory")
    try:
        entries = {entry["Node"]["Node"]: entry for entry in lab.services()}
    except ConsulError as error:
        print(f"  Consul does not answer: {error}")
        entries = {}
    traffic = lab.balancer.servers_up()
    for vm in lab.vms:
        checks = entries.get(vm.name, {"Checks": []})["Checks"]
        failing = [f"{check['CheckID']} {check['Status']}" for check in checks if check["Status"] != "passing"]
        state = ", ".join(failing) or ("passing" if checks else "not in the catalog")
        serves = "gets traffic" if f"{vm.address}:{APP_PORT}" in traffic else "no traffic"
        print(f"  {vm.name:<8} {vm.address:<14} {vm.running_version() or '-':<14} {serves:<13} {state}")


def environment(lab: Lab) -> None:
    """For a shell: what finds this lab, Ansible, and the collection of this checkout as it stands."""
    paths = {
        "PATH": before(str(BIN), os.environ.get("PATH", os.defpath)),
        "ANSIBLE_COLLECTIONS_PATH": before(
            str(link_tree.make()), os.environ.get("ANSIBLE_COLLECTIONS_PATH") or COLLECTIONS_PATH
        ),
    }
    for name, value in {**lab.environment, **paths}.items():
        print(f"export {name}={shlex.quote(value)}")


def before(folder: str, path: str) -> str:
    """A search path that begins with the folder."""
    return os.pathsep.join([folder, *(other for other in path.split(os.pathsep) if other != folder)])


def start_units(lab: Lab) -> None:
    """What systemd does at boot, on each VM."""
    for vm in lab.vms:
        print(f"{vm.name}: {', '.join(vm.start_units()) or 'no unit files'}")


def load(options: argparse.Namespace) -> int:
    """Load for a while, then the account; exit code 1 when anything was lost."""
    with current().load(rate=options.rate, seconds=options.seconds) as generator:
        try:
            generator.wait()
        except KeyboardInterrupt:
            generator.stop()
    report = generator.report()
    print(report)
    return 1 if report.lost else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("up", help="start a lab")
    one.add_argument("--vms", type=int, default=5)
    one.add_argument("--zones", type=int, default=0, help="that the VMs are in by turns, by their nodes' meta")
    one.add_argument("--servers", type=int, default=1)
    one.add_argument("--service", default="web")
    one.add_argument("--version", default="1.0.0", help="of the application that runs first")
    one.add_argument("--consul", help="a version or a path (any that is found)")
    one.add_argument("--ssh", action=argparse.BooleanOptionalAction, default=True, help="an sshd on each VM")
    one.add_argument("--agent", action="store_true", help="a deploy agent on each VM, and no sshd")
    one.add_argument("--acl", action="store_true", help="default-deny ACLs")
    one.add_argument("--tls", action="store_true", help="HTTPS with client certificates")
    one.add_argument("--no-retries", action="store_true", help="the load balancer tries nothing again, so losses show")
    one.add_argument("--balancer", choices=METHODS, default=METHODS[0], help="how the load balancer follows Consul")
    one.add_argument("--hours", type=float, default=8, help="it ends by itself after that")
    commands.add_parser("demo", help="a rollout under load, and one that has to put itself back, in a lab of its own")
    commands.add_parser("status", help="what runs where")
    commands.add_parser("env", help="variables for your shell: the lab, Ansible, the collection")
    commands.add_parser("down", help="end the lab")
    one = commands.add_parser("load", help="send requests and account for each")
    one.add_argument("--seconds", type=float, default=20)
    one.add_argument("--rate", type=float, default=100)
    commands.add_parser("add-vm", help="one more VM")
    commands.add_parser("start-units", help="start what the unit files in the VMs' folders `units` describe")
    for name, action in VM_ACTIONS.items():
        commands.add_parser(name, help=(action.__doc__ or "").splitlines()[0]).add_argument("vm")
    one = commands.add_parser("maintenance", help="an operator's own maintenance")
    one.add_argument("vm")
    one.add_argument("reason", nargs="?", help="none: ends it")
    one = commands.add_parser("fetch", help="put Consul into the cache; builds it with Go where it must")
    one.add_argument("--consul", help="the version")
    one.add_argument("--consul-template", action="store_true", help="fetch consul-template instead")
    one.add_argument("--build", action="store_true", help="build at once, try no download")
    return top


LAB_ACTIONS = {"status": show, "env": environment, "down": Lab.stop, "start-units": start_units}


def run(options: argparse.Namespace) -> int:
    """One command."""
    if options.command == "up":
        up(options)
    elif options.command == "demo":
        return demo()
    elif options.command in LAB_ACTIONS:
        LAB_ACTIONS[options.command](current())
    elif options.command == "load":
        return load(options)
    elif options.command == "add-vm":
        lab = current()
        lab.add_vm()
        show(lab)
    elif options.command == "maintenance":
        current().vm(options.vm).operator_maintenance(options.reason or "", enable=options.reason is not None)
    elif options.command == "fetch":
        if options.consul_template:
            print(fetch_consul_template())
            return 0
        build = options.build and options.consul
        print(build_consul(options.consul) if build else fetch_consul(options.consul, build=True))
    else:
        VM_ACTIONS[options.command](current().vm(options.vm))
    return 0


def main() -> int:
    try:
        return run(parser().parse_args())
    except (LabError, BinaryError, ConsulError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
