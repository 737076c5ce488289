"""Measures the inventory against a static file: `python -m bench.inventory`.

A Consul server gets so many nodes, each with one instance of one service, a check and two metadata keys. Then
`ansible-inventory --list` and `--host` run with three inventories, in turn, several times in one run of this program:
a static JSON file of the same hosts, variables and groups; `hitless.consul.catalog`; and the same plugin with
expressions (compose, groups and two keyed_groups) that the static file does not have to evaluate. Before anything is
measured both inventories are compared, host by host and group by group.

Printed are medians of all rounds: wall time, in which Consul's own work is, and the command's processor time, which a
busy machine changes less. Requests are counted by Consul itself: its log has a line for each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.binaries import consul_version, find_consul
from lab.testkit import link_tree
from lab.testkit.ansible_run import BIN

from .consul import Consul, running

EXPRESSIONS = {
    "compose": {"rack": "consul_node_meta.rack", "web_port": "consul_services.web[0].port"},
    "groups": {"first_racks": "consul_node_meta.rack in ['r0', 'r1']"},
    "keyed_groups": [
        {"key": "consul_node_meta.os", "prefix": "os"},
        {"key": "consul_node_meta.rack ~ '_' ~ consul_status", "prefix": "rack"},
    ],
}


def fill(consul: Consul, first: int, last: int) -> None:
    """Register nodes number `first` to `last` - 1."""
    consul.write([node(number) for number in range(first, last)])


def reads(consul: Consul) -> int:
    """GET requests answered so far."""
    return sum(one.method == "GET" for one in consul.requests())


def node(number: int) -> list[dict[str, Any]]:
    """The operations of a transaction that make one node with its instance and check."""
    name = f"web-{number:05d}"
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    meta = {"rack": f"r{number % 20}", "os": f"os{number % 3}"}
    identity = f"{number:08x}-0000-4000-8000-000000000000"
    service = {"ID": "web", "Service": "web", "Port": 8080, "Tags": ["prod"], "Meta": {"version": "1.0"}}
    check = {"Node": name, "CheckID": "service:web", "Name": "http", "Status": "passing", "ServiceID": "web"}
    return [
        {"Node": {"Verb": "set", "Node": {"ID": identity, "Node": name, "Address": address, "Meta": meta}}},
        {"Service": {"Verb": "set", "Node": name, "Service": service}},
        {"Check": {"Verb": "set", "Check": check}},
    ]


def ansible_inventory(folder: Path, file: Path, *arguments: str) -> tuple[tuple[float, float], str]:
    """(wall time, processor time of the command) in seconds, and its output."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(link_tree.make()),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    }
    command = [str(BIN / "ansible-inventory"), "-i", str(file), *arguments]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode != 0:
        raise RuntimeError(f"{file.name} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return (seconds, processor), done.stdout


def plain(value: Any) -> Any:
    """Without the mark that ansible-inventory puts on text that is no template."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe") or {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def picture(output: str) -> dict[str, Any]:
    """What `--list` says, free of order."""
    listed = plain(json.loads(output))
    hostvars = listed.pop("_meta")["hostvars"]
    return {"hostvars": hostvars, "groups": {name: sorted(group.get("hosts", [])) for name, group in listed.items()}}


def static_inventory(said: dict[str, Any]) -> dict[str, Any]:
    """A JSON inventory file of these hosts, variables and groups."""
    groups = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in said["groups"].items() if name != "all"}
    return {"all": {"hosts": said["hostvars"], "children": groups}}


def prepare(folder: Path, consul: Consul, nodes: int) -> dict[str, Path]:
    """Fill Consul and write the three inventories; says how many requests reading takes, at 100 nodes and at all."""
    options = {"plugin": "hitless.consul.catalog", "url": consul.url, "services": ["web"], "group_by_meta": ["rack"]}
    catalog, expressions, all_services = (
        folder / name for name in ("catalog.consul.yml", "more.consul.yml", "all.consul.yml")
    )
    catalog.write_text(json.dumps(options), encoding="utf-8")
    expressions.write_text(json.dumps({**options, **EXPRESSIONS}), encoding="utf-8")
    all_services.write_text(json.dumps({**options, "services": []}), encoding="utf-8")
    filled, output = 0, ""
    for size in (min(100, nodes), nodes):
        fill(consul, filled, size)
        filled = size
        for file, what in ((catalog, "one named service"), (all_services, "all services")):
            before = reads(consul)
            _seconds, listed = ansible_inventory(folder, file, "--list")
            print(f"requests, {size} nodes, {what}: {reads(consul) - before}", flush=True)
            output = listed if file is catalog else output
    said = picture(output)
    static = folder / "static.json"
    static.write_text(json.dumps(static_inventory(said)), encoding="utf-8")
    if picture(ansible_inventory(folder, static, "--list")[1]) != said or len(said["hostvars"]) != nodes:
        raise RuntimeError("the static file and the plugin do not give the same inventory: nothing to compare")
    return {"static JSON": static, "catalog": catalog, "catalog, with expressions": expressions}


def report(what: str, times: dict[str, list[tuple[float, float]]]) -> None:
    """One line for each inventory: medians, and their ratios to the first."""
    medians = {kind: [statistics.median(one) for one in zip(*found, strict=True)] for kind, found in times.items()}
    base = next(iter(medians.values()))
    for kind, (wall, processor) in medians.items():
        seconds = [one for one, _processor in times[kind]]
        print(
            f"{what}: {kind:26} {wall:5.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), {wall / base[0]:.2f} of "
            f"static; processor {processor:4.1f} s, {processor / base[1]:.2f} of static",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--consul", help="version or path; default: any that is found")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as name:
        folder, binary = Path(name), find_consul(given.consul)
        with running(binary, folder) as consul:
            print(
                f"(c) inventory of {given.nodes} nodes, Consul {consul_version(binary)}, {given.rounds} rounds in turn"
            )
            files = prepare(folder, consul, given.nodes)
            for what in (("--list",), ("--host", "web-00001")):
                times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in files}
                for _round in range(given.rounds):
                    for kind, file in files.items():
                        times[kind].append(ansible_inventory(folder, file, *what)[0])
                report(what[0], times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
