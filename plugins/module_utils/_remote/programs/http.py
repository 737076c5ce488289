# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request to the host's own Consul agent (a private program of this collection, see ``_host.py``).

request: method, url, headers, body, timeout (seconds), ca_path, client_cert, client_key, validate_certs
answer: status (0 where nothing answered), headers, body, and for status 0: error, tls (TLS failed: no try mends that)
"""

import http.client
import os
import ssl
import urllib.error
import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: following it would hand the token to wherever it points."""

    def redirect_request(self, *_args, **_kwargs):
        return None


def opener(request):
    """Never through a proxy of the environment, which would be handed the token."""
    handlers = [urllib.request.ProxyHandler({}), NoRedirect()]
    if request["url"].startswith("https:"):
        for name in ("ca_path", "client_cert", "client_key"):
            if request.get(name):
                os.stat(request[name])  # its error names the file, which ssl's own does not
        path = request.get("ca_path")
        folder = path if path and os.path.isdir(path) else None
        context = ssl.create_default_context(cafile=None if folder else path, capath=folder)
        if not request.get("validate_certs", True):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if request.get("client_cert"):
            context.load_cert_chain(request["client_cert"], request.get("client_key"))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def main(request):
    body = request["body"].encode() if request["method"] in ("PUT", "POST") else None
    try:
        call = urllib.request.Request(request["url"], data=body, headers=request["headers"], method=request["method"])
        way = opener(request)
    except (OSError, ValueError) as error:
        return no_answer(error, True)
    try:
        try:
            answer = way.open(call, timeout=request["timeout"])
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode("utf-8", "replace")
            return {"status": answer.code, "headers": dict(answer.headers.items()), "body": text}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return no_answer(error, isinstance(getattr(error, "reason", error), ssl.SSLError))


def no_answer(error, tls):
    why = getattr(error, "reason", None) or error
    text = str(why) or type(why).__name__
    named = getattr(why, "filename", None)
    return {"status": 0, "headers": {}, "body": "", "error": "%s: %s" % (named, text) if named else text, "tls": tls}
