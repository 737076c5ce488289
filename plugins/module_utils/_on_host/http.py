# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request to the host's own Consul agent (a private program of this collection, see ``_host.py``).

request: method, url, headers, body, timeout (seconds), ca_path, client_cert, client_key, validate_certs
answer: status (0 where nothing answered), headers, body
"""

import os
import ssl
import urllib.error
import urllib.request


def opener(request):
    """Never through a proxy of the environment, which would be handed the token."""
    handlers = [urllib.request.ProxyHandler({})]
    if request["url"].startswith("https:"):
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
    call = urllib.request.Request(request["url"], data=body, headers=request["headers"], method=request["method"])
    try:
        with opener(request).open(call, timeout=request["timeout"]) as answer:
            return {
                "status": answer.status,
                "headers": dict(answer.headers.items()),
                "body": answer.read().decode("utf-8", "replace"),
            }
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        return {"status": error.code, "headers": dict(error.headers.items()), "body": text}
    except (OSError, ValueError) as error:
        return {"status": 0, "headers": {}, "body": "no answer on the host itself: %s" % error}
