# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the application's own address until it is verified (a private program of this collection, see ``_host.py``).

request: url, match (regular expression or None), deadline (seconds from now), interval (seconds), timeout (seconds of
one request), stable_for (seconds it must go on answering well)
answer: ok, status, body (start of the last answer), found (what matched in it), error, tries, seconds

A pattern may come from a key, and some take ages on some texts: it is short, and has a second of processor time.
"""

import http.client
import re
import signal
import ssl
import time
import urllib.error
import urllib.request

PATTERN_LIMIT = 1000
"""Characters of a pattern."""
MATCH_TIME = 1.0
"""Seconds of processor time that a pattern gets."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: a login page that answers 200 verifies nothing."""

    def redirect_request(self, *_args, **_kwargs):
        return None


# The application may have any certificate: it is asked at its own address, not by its public name. Made once, before a
# controller has a process for each host: that takes longer than to ask.
OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
    NoRedirect(),
)


class TooSlow(Exception):
    """A pattern took more than its time."""


def pattern_problem(pattern):
    """What is wrong with a pattern; empty where nothing is."""
    if not isinstance(pattern, str):
        return "it is no text"
    if len(pattern) > PATTERN_LIMIT:
        return "it is longer than %d characters" % PATTERN_LIMIT
    try:
        in_time(lambda: re.compile(pattern))
    except TooSlow:
        return "it takes more than %g s" % MATCH_TIME
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def in_time(call):
    """What call() returns; raises TooSlow. Only for the main thread.

    The timer counts this process's own work alone, and re looks for signals while it searches.
    """

    def stop(_number, _frame):
        raise TooSlow()

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MATCH_TIME)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def ask(url, match, timeout):
    """One question -> the answer of main, less tries and seconds."""
    try:
        with OPENER.open(url, timeout=timeout) as answer:
            status, body = answer.status, answer.read(65536).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return told(error.code, start_of(error), error=refusal(error))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return told(0, "", error=str(error) or type(error).__name__)
    problem = pattern_problem(match or "")
    if problem:
        return told(status, body, error="the pattern %.100r cannot be used: %s" % (match, problem))
    try:
        found = in_time(lambda: re.search(match or "", body))
    except TooSlow:
        return told(status, body, error="the pattern %.100r takes more than %g s" % (match, MATCH_TIME))
    if not found:
        return told(status, body, error="its answer does not match %r" % match)
    return told(status, body, found=found.group())


def told(status, body, found="", error=""):
    return {"ok": not error, "status": status, "body": body[:2048], "found": found[:2048], "error": error}


def refusal(error):
    """What an answer that is no success says."""
    place = "".join(one for one in error.headers.get("Location") or "" if one.isprintable())[:200]
    return "it redirects to %s" % place if 300 <= error.code < 400 and place else "it answered %d" % error.code


def start_of(error):
    try:
        return error.read(2048).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def main(request):
    started = time.monotonic()
    since, tries, pause = None, 0, 0.02
    while True:
        tries += 1
        answer = ask(request["url"], request.get("match"), request["timeout"])
        now = time.monotonic()
        since = (now if since is None else since) if answer["ok"] else None
        if answer["ok"] and now - since >= request["stable_for"]:
            break
        if now - started >= request["deadline"]:
            answer["ok"] = False
            break
        # Close together at first, since a process usually starts soon; then no more often than asked.
        time.sleep(min(pause, max(0.0, started + request["deadline"] - now)))
        pause = min(pause * 1.5, request["interval"])
    answer.update(tries=tries, seconds=time.monotonic() - started)
    return answer
