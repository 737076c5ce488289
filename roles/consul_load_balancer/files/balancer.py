# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what consul-template rendered into HAProxy or nginx, without losing a connection.

    balancer.py apply FILE            what consul-template runs: check FILE, put it in place, make it hold
    balancer.py check FILE            only check it
    balancer.py check-template FILE   check what consul-template makes of FILE
    balancer.py reload                check, and reload
    balancer.py slots                 whether each instance has a port, a name of its own, and (DNS) a slot; exit code 1
                                      if not
    balancer.py status                whether it serves exactly what Consul calls healthy; exit code 1 if not

An instance that leaves or returns is told to HAProxy by its runtime API. A new one, or any other change of the file,
takes a reload, by HAProxy's master process, which hands its listeners over. nginx reloads each time.
What does not pass the program's own check is never put in place: the last good file stays, and consul-template tries
again.

Beside it are its settings, balancer.json, and haproxy.py, by which it talks with HAProxy. Needs Python 3.6 or newer
and nothing else.
"""

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)  # Python runs isolated (-I)
sys.dont_write_bytecode = True

import haproxy  # noqa: E402 - needs the path above

HOLD = 3.0  # seconds for which a service without any instance is not believed: Consul says so around a change of leader
NOT_RUNNING = "{} does not run; it will start with {}"
RENDERED_WITHIN = 30.0  # seconds for consul-template to ask Consul
RELOADED_WITHIN = 10.0  # seconds until the new process has to answer
SETTLED = (1.0, 3.0)  # seconds after a reload by which HAProxy has asked DNS for sure, and until which it may be late
RELOADS = 3  # reloads until one is not crossed by an instance that leaves
SECTION = re.compile(r"^\s*(?:backend|upstream)\s+(\S+)|^(?:frontend|listen|global|defaults|resolvers)\b|^\s*\}")
SERVER = re.compile(r"^\s+server\s+(\S+)(.*)$")


class Refused(Exception):
    """What was asked cannot be done; nothing has been changed."""


def main(arguments):
    with open(os.path.join(HERE, "balancer.json")) as file:
        settings = json.load(file)
    commands = {
        ("apply", 1): apply,
        ("check", 1): lambda settings, path: check(settings, read(path)),
        ("check-template", 1): lambda settings, path: check(settings, rendered(settings, path)),
        ("reload", 0): lambda settings: (check(settings, read(settings["config"])), reload(settings)),
        ("slots", 0): lambda settings: compare(settings, by_traffic=False),
        ("status", 0): lambda settings: compare(settings, by_traffic=True),
    }
    command = commands.get((arguments[0] if arguments else "", len(arguments) - 1))
    if command is None:
        sys.exit(__doc__)
    try:
        command(settings, *arguments[1:])
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
    new = beside(path, text)
    os.chmod(new, 0o640)
    os.rename(new, path)


def beside(path, text):
    """A file of this process alone beside another one: consul-template and Ansible may both be at work."""
    folder, name = os.path.split(path)
    handle, new = tempfile.mkstemp(prefix=".{}.".format(name), dir=folder or ".")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return new


def run(command, within, errors=subprocess.STDOUT):
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=errors, check=False, timeout=within, universal_newlines=True
    )


def say(text, *values):
    print("balancer: " + text.format(*values).rstrip(), flush=True)


def servers(text):
    """Backend (or upstream) -> {server's name: the rest of its line}; nginx has addresses for names."""
    found, section = {}, None
    for line in text.splitlines():
        start, server = SECTION.match(line), SERVER.match(line)
        if start:
            section = start.group(1)
            found.update({section: {}} if section else {})
        elif server and section and not server.group(2).rstrip().endswith("down;"):
            found[section][server.group(1)] = server.group(2).strip()
    return found


def rendered(settings, template):
    """What consul-template makes of a template now."""
    command = [settings["consul_template"], "-config", settings["consul_config"], "-once", "-dry", "-log-level", "err"]
    command += ["-template", "{}:{}".format(template, settings["config"])]
    done = run(command, RENDERED_WITHIN, errors=subprocess.PIPE)
    if done.returncode != 0:
        raise Refused("consul-template cannot render {}: {}".format(template, done.stderr.strip()))
    # The first line says where it would go.
    return done.stdout.partition("\n")[2]


def check(settings, text):
    """The program's own check; raises Refused with its words."""
    program, before, candidate = settings["program"], settings["before"], beside(settings["config"], text)
    made = [candidate]
    try:
        if settings["kind"] == "haproxy":
            command = [program, "-c", *(part for one in [*before, candidate] for part in ("-f", one))]
        else:
            if before:
                # Beside the user's own configuration, since what that includes is relative to its folder.
                made.append(beside(before[0], including(settings, candidate)))
            command = [program, "-t", "-q", "-c", os.path.abspath(made[-1])]
        done = run(command, 60)
    finally:
        for one in made:
            os.unlink(one)
    if done.returncode != 0:
        said = done.stdout.replace(candidate, settings["config"]).strip()
        raise Refused("{} refuses the new configuration, the last good one stays:\n{}".format(settings["kind"], said))


def including(settings, candidate):
    """The user's configuration of nginx, which includes our part, with the candidate in its place."""
    main, config = settings["before"][0], settings["config"]
    pattern = r"include\s+[^;]*?{}\s*;".format(re.escape(os.path.basename(config)))
    changed, times = re.subn(pattern, "include {};".format(os.path.abspath(candidate)), read(main))
    if not times:
        raise Refused("{0} does not include {1}: add `include {1};` to its http block".format(main, config))
    return changed


# --- apply ---------------------------------------------------------------------------------------------------------


def apply(settings, path):
    wanted, installed = read(path), read(settings["config"])
    emptied = [name for name, found in servers(installed).items() if found and not servers(wanted).get(name, True)]
    if emptied:
        say("no instance of {} is healthy; asking again in {:g} s", ", ".join(emptied), HOLD)
        time.sleep(HOLD)
        wanted = rendered(settings, settings["template"])
    check(settings, wanted)
    write(settings["config"], wanted)
    if settings["kind"] == "nginx":
        if wanted != installed:
            reload(settings)
        return
    try:
        running = haproxy.states(settings["socket"])
    except (ConnectionRefusedError, FileNotFoundError):
        say(NOT_RUNNING, "HAProxy", settings["config"])
        return
    new, old = ([line for line in text.splitlines() if not SERVER.match(line)] for text in (wanted, installed))
    if new != old or not by_runtime(settings, servers(wanted), servers(installed), running):
        reload(settings)
        say("reloaded")


def by_runtime(settings, wanted, before, running):
    """Whether the running HAProxy could be brought to what is wanted without a reload."""
    commands = haproxy.changes(wanted, before, running)
    for one in commands or ():
        said = haproxy.ask(settings["socket"], one).strip()
        say("{} {}", one, said)
        if said and "chang" not in said:
            return False
    return commands is not None


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
    if any(not " " <= character <= "~" for character in consul["token"]):
        # Here: an HTTP library shows the header that it refuses.
        raise Refused("consul_load_balancer_token holds more than a token, or none that can be sent")
    request = urllib.request.Request(url, headers={"X-Consul-Token": consul["token"]} if consul["token"] else {})
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        return json.loads(answer.read().decode())


def instances(settings, service):
    """Addresses of a service's instances as Consul names them, all of them and those that are healthy."""
    good = ("passing", "warning") if settings["warning"] else ("passing",)
    known, healthy = set(), set()
    for entry in asked(settings, service):
        # Newer versions of Consul leave empty fields out of their answers.
        its, node = entry.get("Service") or {}, entry.get("Node") or {}
        address = "{}:{}".format(its.get("Address") or node.get("Address", ""), its.get("Port", 0))
        known.add(address)
        if all(check.get("Status") in good for check in entry.get("Checks") or ()):
            healthy.add(address)
    return known, healthy


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


def compare(settings, by_traffic):
    """Raises Refused for instances that cannot get requests (HAProxy says nothing of them) and, by_traffic, for those
    that get none though they are healthy, or the other way round."""
    problems = spelled_otherwise(settings)
    for service in settings["services"]:
        name = service["name"]
        known, healthy = instances(settings, service)
        without_port = {one for one in known if one.endswith(":0")}
        has = served(settings, name) if by_traffic else healthy - without_port
        for what, which in (
            ("registered without a port, so that no request can be sent there", without_port),
            ("healthy, and no traffic goes to", healthy - without_port - has),
            ("traffic goes to, and not healthy", has - healthy),
        ):
            if which:
                problems.append("{}: {}: {}".format(name, what, ", ".join(sorted(which))))
        slots = int(service.get("slots", settings["slots"])) if settings["slots"] else len(known)
        if len(known) > slots:
            sentence = (
                "{} has {} instances and HAProxy {} slots for it, so that {} would get no traffic: raise {}_slots"
            )
            problems.append(sentence.format(name, len(known), slots, len(known) - slots, "consul_load_balancer"))
    if problems:
        raise Refused("; ".join(problems))


def served(settings, name):
    """Addresses that get a service's requests."""
    if settings["kind"] == "nginx":
        return set(servers(read(settings["config"])).get(name, {}))
    running = haproxy.states(settings["socket"]).get(name, {})
    return {haproxy.address_of(state) for state in running.values() if haproxy.takes_requests(state)}


# --- reloads -------------------------------------------------------------------------------------------------------


def stale(settings):
    """Backend -> addresses that get requests, and that Consul does not call healthy; raises Refused without Consul."""
    found = {}
    for service in settings["services"]:
        has = served(settings, service["name"])
        try:
            known, healthy = instances(settings, service)
        except OSError as error:
            sentence = "Consul does not answer ({}): HAProxy, reloaded, would keep instances that leave meanwhile"
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
    head, lines = haproxy.state_lines(settings["socket"])
    stay = [line for line, state in lines if haproxy.address_of(state) not in gone.get(state["be_name"], ())]
    write(settings["state"], "\n".join([*head, *stay]) + "\n")


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
        if run([settings["program"], "-s", "reload", "-c", main], 60).returncode == 0:
            return True
        say(NOT_RUNNING, "nginx", settings["config"])
        return False
    old = haproxy.pid(settings["socket"])
    if old is None:
        say(NOT_RUNNING, "HAProxy", settings["config"])
        return False
    save_state(settings)
    haproxy.ask(settings["master"], "reload")
    # The next command must not reach the old process: what it is told ends with it.
    deadline = time.monotonic() + RELOADED_WITHIN
    while haproxy.pid(settings["socket"]) in (None, old):
        if time.monotonic() > deadline:
            raise Refused("HAProxy did not reload within {:g} s".format(RELOADED_WITHIN))
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
