#!/usr/bin/env python3
"""haproxy_server.py SOCKET BACKEND/SERVER drain|ready: tells a HAProxy by its runtime API, and says what it answers.

After "ready" it waits until HAProxy's own check has found the server up: the next one is drained after that.
"""

import socket
import sys
import time

WITHIN = 60
RUNNING = "2"


def ask(path, command):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()


path, name, state = sys.argv[1:]
backend, server = name.split("/")
try:
    refused = ask(path, f"set server {name} state {state}")
    until = time.monotonic() + WITHIN
    while state == "ready" and not refused:
        lines = [line.split() for line in ask(path, f"show servers state {backend}").splitlines()]
        if [line[5] for line in lines if line[3:4] == [server]] == [RUNNING]:
            break
        if time.monotonic() > until:
            refused = f"its check has not found it up for {WITHIN} s"
        time.sleep(0.2)
except OSError as error:
    refused = f"{path}: {error}"
if refused:
    sys.exit(f"HAProxy: {name} {state}: {refused}")
