# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the application's own address until it proves itself (a private program of this collection, see ``_host.py``).

request: url, match (regular expression or None), deadline (seconds from now), interval (seconds), timeout (seconds of
one request), stable_for (seconds it must go on answering well)
answer: ok, status, body (start of the last answer), error, tries, seconds
"""

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request


def ask(url, match, timeout):
    # The application may have any certificate: it is asked at its own address, not by its public name.
    context = ssl._create_unverified_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=timeout) as answer:
            status, body = answer.status, answer.read(65536).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return False, error.code, said(error), "it answered %d" % error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, 0, "", str(error) or type(error).__name__
    if match and not re.search(match, body):
        return False, status, body[:2048], "its answer does not match %r" % match
    return True, status, body[:2048], ""


def said(error):
    try:
        return error.read(2048).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def main(request):
    started = time.time()
    since, tries, pause = None, 0, 0.02
    while True:
        tries += 1
        ok, status, body, error = ask(request["url"], request.get("match"), request["timeout"])
        now = time.time()
        since = (since or now) if ok else None
        if ok and now - since >= request["stable_for"]:
            break
        if now - started >= request["deadline"]:
            ok = False
            break
        # Close together at first, since a process usually starts soon; then no more often than asked.
        time.sleep(min(pause, max(0.0, started + request["deadline"] - now)))
        pause = min(pause * 1.5, request["interval"])
    return {"ok": ok, "status": status, "body": body, "error": error, "tries": tries, "seconds": time.time() - started}
