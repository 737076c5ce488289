# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request to Consul (a private program of this collection, see ``_host.py``).

On a host it asks the host's own agent. The keeper asks by it too, and the client takes its TLS from here, so that all
three trust the same.

request: method, url, headers, body, timeout (seconds), ca_path, client_cert, client_key, tls_server_name,
validate_certs
answer: status (0 where nothing answered), headers, body, and for status 0: error, refused (nothing listens there), tls
(TLS failed: no try mends that)
"""

import errno
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: following it would hand the token to wherever it points."""

    def redirect_request(self, *_args, **_kwargs):
        return None


class Https(urllib.request.HTTPSHandler):
    """Checks the certificate by another name than the address's where one is given."""

    def __init__(self, context, name):
        super().__init__(context=context)
        self._tls, self._name = context, name

    def https_open(self, req):
        context, name = self._tls, self._name

        class Connection(http.client.HTTPSConnection):
            def connect(self):
                http.client.HTTPConnection.connect(self)
                self.sock = context.wrap_socket(self.sock, server_hostname=name or self.host)

        return self.do_open(Connection, req, context=context)


def tls_context(request):
    """Trusts ``ca_path``, as the consul command does each file of a folder; the system's authorities without it.

    :raises OSError: a file cannot be read, or holds no certificate; it names the file.
    """
    for name in ("ca_path", "client_cert", "client_key"):
        if request.get(name):
            os.stat(request[name])  # its error names the file, which ssl's own does not
    path = request.get("ca_path")
    folder = path if path and os.path.isdir(path) else None
    context = ssl.create_default_context(cafile=None if folder else path, capath=folder)
    if folder:
        for root, _folders, names in os.walk(folder):
            for name in names:
                try:
                    context.load_verify_locations(os.path.join(root, name))
                except (OSError, ValueError):  # a README, a link that leads nowhere
                    pass
        if not context.get_ca_certs():
            raise OSError(errno.EINVAL, "no file in it holds a certificate", folder)
    if not request.get("validate_certs", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if request.get("client_cert"):
        context.load_cert_chain(request["client_cert"], request.get("client_key"))
    return context


def opener(request):
    """Never through a proxy of the environment, which would be handed the token."""
    handlers = [urllib.request.ProxyHandler({}), NoRedirect()]
    if request["url"].startswith("https:"):
        handlers.append(Https(tls_context(request), request.get("tls_server_name")))
    else:
        # Where there is none, Python since 3.12 makes one that reads all of the system's certificates: 20 ms a request.
        handlers.append(urllib.request.HTTPSHandler(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
    return urllib.request.build_opener(*handlers)


def main(request):
    try:
        way = opener(request)
    except (OSError, ValueError) as error:
        return no_answer(error, True)
    return ask(way, request)


def ask(way, request):
    """:param way: what :func:`opener` made; it may be used again."""
    body = request["body"].encode() if request["method"] in ("PUT", "POST") else None
    try:
        call = urllib.request.Request(request["url"], data=body, headers=request["headers"], method=request["method"])
        try:
            answer = way.open(call, timeout=request["timeout"])
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode("utf-8", "replace")
            return {"status": answer.code, "headers": dict(answer.headers.items()), "body": text}
    except (OSError, http.client.HTTPException) as error:
        return no_answer(error, isinstance(getattr(error, "reason", error), ssl.SSLError))
    except ValueError:
        # Its own words would show the header, and with it a token.
        return no_answer(ValueError("the address or a header cannot be sent"), False)


def no_answer(error, tls):
    why = getattr(error, "reason", None) or error
    text = str(why) or type(why).__name__
    named = getattr(why, "filename", None)
    nobody = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
    return {
        "status": 0,
        "headers": {},
        "body": "",
        "error": "%s: %s" % (named, text) if named else text,
        "refused": isinstance(why, socket.gaierror) or getattr(why, "errno", None) in nobody,
        "tls": tls,
    }
