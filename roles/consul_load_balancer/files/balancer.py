# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what consul-template rendered into HAProxy or nginx, without losing a connection.

    balancer.py apply FILE            what consul-template runs: check FILE, put it in place, make it hold
    balancer.py check FILE            only check it
    balancer.py check-template FILE   check what consul-template makes of FILE
    balancer.py reload                check, and reload
    balancer.py slots                 whether HAProxy that follows DNS has a slot for each instance, and whether each of
                                      them is one of the service's own; exit code 1 if not
    balancer.py status                whether it serves exactly what Consul calls healthy; exit code 1 if not

An instance that leaves or returns is told to HAProxy by its runtime API. A new one, or any other change of the file,
takes a reload, by HAProxy's master process, which hands its listeners over. nginx reloads each time.
What does not pass the program's own check is never put in place: the last good file stays, and consul-template tries
again.

Its settings are in balancer.json beside it. Needs Python 3.6 or newer and nothing else.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
HOLD = 3.0  # seconds for which a service without any instance is not believed: Consul says so around a change of leader
SLOTS = "consul_load_balancer_slots"
RENDERED_WITHIN = 30.0  # seconds for consul-template to ask Consul
RELOADED_WITHIN = 10.0  # seconds until the new process has to answer
SETTLED = (1.0, 3.0)  # seconds after a reload by which HAProxy has asked DNS for sure, and until which it may be late
RELOADS = 3  # reloads until one is not crossed by an instance that leaves
SECTION = re.compile(r"^\s*(?:backend|upstream)\s+(\S+)|^(?:frontend|listen|global|defaults|resolvers)\b|^\s*\}")
SERVER = re.compile(r"^\s+server\s+(\S+)(.*)$")
# srv_admin_state: maintenance set by the runtime API; that, or by the configuration, or because DNS has no address.
ADMIN_MAINTENANCE, ANY_MAINTENANCE = 0x01, 0x01 | 0x04 | 0x20


class Refused(Exception):
    """What was asked cannot be done; nothing has been changed."""


def main(arguments):
    with open(os.path.join(HERE, "balancer.json")) as file:
        settings = json.load(file)
    command = arguments[0] if arguments else ""
    try:
        if command == "apply" and len(arguments) == 2:
            apply(settings, arguments[1])
        elif command == "check" and len(arguments) == 2:
            check(settings, read(arguments[1]))
        elif command == "check-template" and len(arguments) == 2:
            check(settings, rendered(settings, arguments[1]))
        elif command == "reload":
            check(settings, read(settings["config"]))
            reload(settings)
        elif command in ("slots", "status"):
            problems = [
                *no_slot(settings),
                *spelled_otherwise(settings),
                *(not_served(settings) if command == "status" else []),
            ]
            if problems:
                raise Refused("; ".join(problems))
        else:
            sys.exit(__doc__)
    except (Refused, OSError, subprocess.SubprocessError) as error:
        sys.exit("balancer: {}".format(error))


# --- files ---------------------------------------------------------------------------------------------------------


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path, text):
    """All at once: whoever reads it meanwhile finds the old one or the new one."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.chmod(path + ".new", 0o640)
    os.rename(path + ".new", path)


def servers(text):
    """Backend (or upstream) -> {server's name: the rest of its line}; nginx has addresses for names."""
    found, section = {}, None
    for line in text.splitlines():
        start = SECTION.match(line)
        if start:
            section = start.group(1)
            if section:
                found[section] = {}
            continue
        server = SERVER.match(line)
        if server and section and not server.group(2).rstrip().endswith("down;"):
            found[section][server.group(1)] = server.group(2).strip()
    return found


def without_servers(text):
    return [line for line in text.splitlines() if not SERVER.match(line)]


def rendered(settings, template):
    """What consul-template makes of a template now."""
    command = [settings["consul_template"], "-config", settings["consul_config"], "-once", "-dry", "-log-level", "err"]
    command += ["-template", "{}:{}".format(template, settings["config"])]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
        timeout=RENDERED_WITHIN,
        universal_newlines=True,
    )
    if done.returncode != 0:
        raise Refused("consul-template cannot render {}: {}".format(template, done.stderr.strip()))
    # The first line says where it would go.
    return done.stdout.partition("\n")[2]


def check(settings, text):
    """The program's own check; raises Refused with its words."""
    candidate = settings["config"] + ".candidate"
    with open(candidate, "w") as file:
        file.write(text)
    try:
        if settings["kind"] == "haproxy":
            files = [part for one in [*settings["before"], candidate] for part in ("-f", one)]
            command = [settings["program"], "-c", *files]
        else:
            command = [settings["program"], "-t", "-q", "-c", candidate]
            if settings["before"]:
                command = nginx_whole(settings, candidate)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60, universal_newlines=True
        )
        if done.returncode != 0:
            said = done.stdout.replace(candidate, settings["config"]).strip()
            raise Refused(
                "{} refuses the new configuration, the last good one stays:\n{}".format(settings["kind"], said)
            )
    finally:
        os.unlink(candidate)
        if os.path.exists(candidate + ".main"):
            os.unlink(candidate + ".main")


def nginx_whole(settings, candidate):
    """The user's configuration, which includes our part, with the candidate in its place."""
    main = settings["before"][0]
    text = read(main)
    pattern = r"include\s+[^;]*?{}\s*;".format(re.escape(os.path.basename(settings["config"])))
    changed, times = re.subn(pattern, "include {};".format(candidate), text)
    if not times:
        raise Refused(
            "{} does not include {}: add `include {};` to its http block".format(
                main, settings["config"], settings["config"]
            )
        )
    with open(candidate + ".main", "w") as file:
        file.write(changed)
    # Relative includes are relative to the folder of the configuration.
    return [settings["program"], "-t", "-q", "-p", os.path.dirname(main), "-c", candidate + ".main"]


# --- apply ---------------------------------------------------------------------------------------------------------


def apply(settings, path):
    wanted, installed = read(path), read(settings["config"])
    emptied = [name for name, found in servers(installed).items() if found and not servers(wanted).get(name, True)]
    if emptied:
        print(
            "balancer: no instance of {} is healthy; asking again in {:g} s".format(", ".join(emptied), HOLD),
            flush=True,
        )
        time.sleep(HOLD)
        wanted = rendered(settings, settings["template"])
    check(settings, wanted)
    write(settings["config"], wanted)
    if settings["kind"] == "nginx":
        if wanted != installed:
            reload(settings)
        return
    try:
        running = states(settings)
    except (ConnectionRefusedError, FileNotFoundError):
        print("balancer: HAProxy does not run; it will start with {}".format(settings["config"]), flush=True)
        return
    same = without_servers(wanted) == without_servers(installed)
    if not same or not by_runtime(settings, servers(wanted), servers(installed), running):
        reload(settings)
        print("balancer: reloaded", flush=True)


def by_runtime(settings, wanted, before, running):
    """Whether the running HAProxy could be brought to what is wanted without a reload."""
    commands = []
    for backend, its in wanted.items():
        there = running.get(backend, {})
        for name, line in its.items():
            address, _unused, options = line.partition(" ")
            if name not in there or before.get(backend, {}).get(name, line).partition(" ")[2] != options:
                return False
            commands += returning("{}/{}".format(backend, name), address, options.split(), there[name])
        for name, state in there.items():
            if name not in its and not int(state["srv_admin_state"]) & ADMIN_MAINTENANCE:
                commands.append("set server {}/{} state maint".format(backend, name))
    for one in commands:
        said = ask(settings["socket"], one).strip()
        print("balancer: {} {}".format(one, said).rstrip(), flush=True)
        if said and "chang" not in said:
            return False
    return True


def returning(server, address, options, state):
    """The commands that make a known server serve at this address."""
    commands = []
    host, _unused, port = address.rpartition(":")
    if (state["srv_addr"], state["srv_port"]) != (host.strip("[]"), port):
        commands.append("set server {} addr {} port {}".format(server, host.strip("[]"), port))
    if int(state["srv_admin_state"]) & ADMIN_MAINTENANCE:
        # Its weight may have changed while it was away, and nothing else that is its own.
        if "weight" in options:
            commands.append("set server {} weight {}".format(server, options[options.index("weight") + 1]))
        commands.append("set server {} state ready".format(server))
    return commands


# --- what Consul says, and what is served ----------------------------------------------------------------------------


def asked(settings, service):
    """What Consul says of a service's instances."""
    consul = settings["consul"]
    query = [("tag", service["tag"])] if service.get("tag") else []
    query += [("dc", consul["datacenter"])] if consul["datacenter"] else []
    url = "{}/v1/health/service/{}?{}".format(consul["url"], service["name"], urllib.parse.urlencode(query))
    handlers = [urllib.request.ProxyHandler({})]
    if url.startswith("https:"):
        context = ssl.create_default_context(cafile=consul["ca_path"] or None)
        if consul["client_cert"]:
            context.load_cert_chain(consul["client_cert"], consul["client_key"])
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, headers={"X-Consul-Token": consul["token"]} if consul["token"] else {})
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        return json.loads(answer.read().decode())


def instances(settings, service, passing):
    """Addresses of a service's instances, as Consul names them."""
    good = ("passing", "warning") if settings["warning"] else ("passing",)
    return {
        "{}:{}".format(entry["Service"]["Address"] or entry["Node"]["Address"], entry["Service"]["Port"])
        for entry in asked(settings, service)
        if not passing or all(check["Status"] in good for check in entry["Checks"])
    }


def no_slot(settings):
    """Services with more instances than slots, in words: the rest would get no traffic, and HAProxy says nothing."""
    problems = []
    for service in settings["services"] if settings["slots"] else []:
        slots = int(service.get("slots", settings["slots"]))
        count = len(instances(settings, service, passing=False))
        if count > slots:
            sentence = "{} has {} instances and HAProxy {} slots for it, so that {} would get no traffic: raise {}"
            problems.append(sentence.format(service["name"], count, slots, count - slots, SLOTS))
    return problems


def spelled_otherwise(settings):
    """Services whose names differ in case alone from one that is served, in words.

    Consul answers with the instances of all of them for each, in its DNS and to consul-template.
    """
    problems = []
    for service in settings["services"]:
        others = sorted({entry["Service"]["Service"] for entry in asked(settings, service)} - {service["name"]})
        if others:
            sentence = "Consul also has {}, and does not tell its instances from those of {}: rename one of them"
            problems.append(sentence.format(", ".join(others), service["name"]))
    return problems


def not_served(settings):
    """How what is served differs from what Consul calls healthy, in words."""
    problems = []
    for service in settings["services"]:
        wanted, has = instances(settings, service, passing=True), served(settings, service["name"])
        for what, which in (
            ("healthy, and no traffic goes to", wanted - has),
            ("traffic goes to, and not healthy", has - wanted),
        ):
            if which:
                problems.append("{}: {}: {}".format(service["name"], what, ", ".join(sorted(which))))
    return problems


def served(settings, name):
    """Addresses that get a service's requests."""
    if settings["kind"] == "nginx":
        return set(servers(read(settings["config"])).get(name, {}))
    return {
        address_of(state)
        for state in states(settings).get(name, {}).values()
        if not int(state["srv_admin_state"]) & ANY_MAINTENANCE and state["srv_addr"] != "-"
    }


def address_of(state):
    return "{}:{}".format(state.get("srv_addr"), state.get("srv_port"))


# --- HAProxy's sockets, and reloads --------------------------------------------------------------------------------


def ask(path, command):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def states(settings):
    """Backend -> {server: its state}, of the process that takes new connections."""
    found = {}
    lines = ask(settings["socket"], "show servers state").splitlines()
    names = lines[1].lstrip("# ").split()
    for line in lines[2:]:
        state = dict(zip(names, line.split()))
        if len(state) > 1:
            found.setdefault(state["be_name"], {})[state["srv_name"]] = state
    return found


def pid(settings):
    try:
        return next(line for line in ask(settings["socket"], "show info").splitlines() if line.startswith("Pid:"))
    except (OSError, StopIteration):
        return None


def stale(settings):
    """Backend -> addresses that get requests, and that Consul does not call healthy; raises Refused without Consul."""
    found = {}
    for service in settings["services"]:
        has = served(settings, service["name"])
        try:
            known = instances(settings, service, passing=False)
            healthy = instances(settings, service, passing=True)
        except OSError as error:
            sentence = (
                "Consul does not answer ({}). HAProxy is not reloaded: it would keep instances that leave meanwhile"
            )
            raise Refused(sentence.format(error)) from None
        # Where Consul shows none of them, a token is missing, or it names them otherwise: not to be judged by.
        found[service["name"]] = has - healthy if has & known else set()
    return found


def save_state(settings):
    """What a reload begins with, without what has left.

    HAProxy takes an address from there for good: a server that is not in the first answer of DNS after the reload keeps
    it for as long as "hold timeout".
    """
    if not settings.get("state"):
        return
    gone = stale(settings)
    lines = ask(settings["socket"], "show servers state").splitlines()
    names = lines[1].lstrip("# ").split()

    def stays(line):
        state = dict(zip(names, line.split()))
        return address_of(state) not in gone.get(state.get("be_name"), ())

    write(settings["state"], "\n".join([*lines[:2], *(line for line in lines[2:] if stays(line))]) + "\n")


def settled(settings):
    """Whether HAProxy let go of what left while it was reloaded."""
    began = time.monotonic()
    time.sleep(SETTLED[0])
    while any(stale(settings).values()):
        if time.monotonic() - began > SETTLED[1]:
            return False
        time.sleep(0.1)
    return True


def reload(settings):
    for _attempt in range(RELOADS):
        if not reloaded(settings) or not settings.get("state") or settled(settings):
            return
    raise Refused("an instance left during each of {} reloads, and still gets requests: reload again".format(RELOADS))


def reloaded(settings):
    """Reload once -> whether it runs at all."""
    if settings["kind"] == "nginx":
        main = (settings["before"] or [settings["config"]])[0]
        done = subprocess.run(
            [settings["program"], "-s", "reload", "-c", main],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            universal_newlines=True,
        )
        if done.returncode != 0:
            print("balancer: nginx does not run; it will start with {}".format(settings["config"]), flush=True)
        return done.returncode == 0
    old = pid(settings)
    if old is None:
        print("balancer: HAProxy does not run; it will start with {}".format(settings["config"]), flush=True)
        return False
    save_state(settings)
    ask(settings["master"], "reload")
    # The next command must not reach the old process: what it is told ends with it.
    deadline = time.monotonic() + RELOADED_WITHIN
    while pid(settings) in (None, old):
        if time.monotonic() > deadline:
            raise Refused("HAProxy did not reload within {:g} s".format(RELOADED_WITHIN))
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
