# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the programs a lab needs; Consul and consul-template are fetched and cached per user, never committed.

Consul: $CONSUL_BIN, PATH, the cache; else HashiCorp's release zip of a pinned version (checksum verified; a few
seconds to connect, because not every place reaches it), else the package of Debian 11 by a private sources list.
With Go, `build_consul` compiles a newer version; only done when asked for. consul-template: the release as well, else
compiled with Go, which takes a minute.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

RELEASE_URL = "https://releases.hashicorp.com/{product}/{version}/{product}_{version}_linux_{arch}.zip"
RELEASE = "1.20.1"
RELEASE_SHA256 = {
    "amd64": "d38e7571177909d437a9cbcc62fb65083bc567266b74a62d02c6abe783951648",
    "arm64": "03ad4cf513819413016a79154e74161bcfa3c9e1fbfcbdc9eca525b2123d4779",
}
DEBIAN = "1.8.7"
DEBIAN_SOURCE = "deb [signed-by={keyring}] {mirror} bullseye main\n"
DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CONNECT_SECONDS = 4
TEMPLATE_RELEASE = "0.41.1"
TEMPLATE_SHA256 = {
    "amd64": "ab68e09642437dcc5b6e9a572a1924d3969e4fe131f50a1a3a4f782d7a21f530",
    "arm64": "b768fc22916b74b90f470e2e784d94fe967b3732bab32ac4040d5fae3f7af95e",
}

# Without the excludes the module does not resolve: two tags of go-msgpack v1.1 are ambiguous with its v2 path.
GO_MODULE = """\
module hitless.local/consul

go 1.25

exclude github.com/hashicorp/go-msgpack v1.1.5

exclude github.com/hashicorp/go-msgpack v1.1.6
"""


class BinaryError(Exception):
    """A program is missing and could not be fetched; the text says what to install or set."""


def cache() -> Path:
    """The per-user cache, ${XDG_CACHE_HOME:-~/.cache}/hitless."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hitless"


def cached_consul(version: str) -> Path:
    """Where the cache keeps Consul of that version, whether it is there or not."""
    return cache() / "consul" / version / "consul"


def consul_version(binary: Path | str) -> str:
    """The version that the binary says it is, "1.20.1"."""
    try:
        text = subprocess.run([str(binary), "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryError(f"{binary} does not run as Consul: {error}") from error
    match = re.match(r"Consul v?(\d+\.\d+\.\d+)", text)
    if match is None:
        raise BinaryError(f"{binary} does not look like Consul, its version command says {text[:80]!r}")
    return match.group(1)


def find_consul(wanted: str | None = None) -> Path:
    """The Consul binary for `wanted`: a version, a path, or None for any (the newest in the cache first).

    Fetches it where it is not there yet; BinaryError with all that was tried otherwise.
    """
    if wanted is not None and "/" in wanted:
        consul_version(wanted)
        return Path(wanted)
    for candidate in (os.environ.get("CONSUL_BIN"), shutil.which("consul")):
        if candidate and (wanted is None or consul_version(candidate) == wanted):
            return Path(candidate)
    if wanted is not None:
        cached = cached_consul(wanted)
        return cached if cached.exists() else fetch_consul(wanted)
    found = sorted((cache() / "consul").glob("*/consul"), key=lambda path: _number(path.parent.name))
    return found[-1] if found else fetch_consul(None)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def fetch_consul(version: str | None, *, build: bool = False) -> Path:
    """Put Consul into the cache and return it; with `build` also by compiling it with Go (minutes)."""
    ways = []
    if version in (None, RELEASE):
        ways.append(_from_release)
    if version in (None, DEBIAN):
        ways.append(_from_debian)
    tried = []
    for way in ways:
        try:
            return way()
        except (BinaryError, OSError, subprocess.SubprocessError) as error:
            tried.append(str(error))
    if build and version is not None:
        return build_consul(version)
    raise BinaryError(
        f"Consul{f' {version}' if version else ''} is not here: set CONSUL_BIN, put it on PATH, or (with Go) run "
        f"`python -m lab fetch --consul {version or RELEASE}`. Tried: {'; '.join(tried) or 'the cache'}"
    )


def _install(version: str, program: Path) -> Path:
    """Move a finished program into the cache at once, so that another process never sees half of it."""
    target = cached_consul(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"consul.{os.getpid()}")
    shutil.copyfile(program, temporary)
    temporary.chmod(0o755)
    found = consul_version(temporary)
    if found != version:
        temporary.unlink()
        raise BinaryError(f"fetched Consul {version}, but it says it is {found}")
    temporary.rename(target)
    return target


def _from_release() -> Path:
    with tempfile.TemporaryDirectory() as folder:
        return _install(RELEASE, _release("consul", RELEASE, RELEASE_SHA256, Path(folder)))


def _release(product: str, version: str, checksums: Mapping[str, str], folder: Path) -> Path:
    """Download a release of HashiCorp's and unpack its program into `folder`."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    expected = checksums.get(arch)
    if expected is None:
        raise BinaryError(f"no checksum is pinned for a {product} release on {arch}")
    url = RELEASE_URL.format(product=product, version=version, arch=arch)
    content = _download(url)
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise BinaryError(f"{url} has checksum {actual}, not the pinned {expected}: not used")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return Path(archive.extract(product, folder))


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise BinaryError(f"{url}: {getattr(error, 'reason', error)}") from error
    return content


def debian_mirrors() -> list[str]:
    """The package archives that this machine's apt is set up with, in its order, and Debian's public name last.

    An archive of anything else has no Debian 11, or is not signed by Debian.
    """
    listed = _run(["apt-get", "update", "--print-uris"], Path("/"), 30)
    # A suite with a hyphen is an addition, such as bookworm-security, and need not be beside the archive.
    mirrors = re.findall(r"^'(\S+)/dists/[^/'-]+/InRelease'", listed, re.MULTILINE)
    return list(dict.fromkeys([*mirrors, DEBIAN_MIRROR]))


def _from_debian() -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BinaryError(f"no {tool}: Debian's package of Consul cannot be taken apart here")
    tried = []
    for mirror in debian_mirrors():
        try:
            return _from_mirror(mirror)
        except (BinaryError, subprocess.TimeoutExpired) as error:
            tried.append(str(error))
    # An address may hold a password.
    raise BinaryError(re.sub(r"//[^/@\s]*@", "//", "; ".join(tried)))


def _from_mirror(mirror: str) -> Path:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # apt drops to the user _apt for downloads, which must be able to write here.
        folder.chmod(0o777)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        source = DEBIAN_SOURCE.format(keyring=DEBIAN_KEYRING, mirror=mirror)
        (folder / "sources.list").write_text(source, encoding="utf-8")
        options = [
            f"Dir::Etc::sourcelist={folder}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::Lists={folder}/lists",
            f"Dir::Cache={folder}/cache",
            "APT::Sandbox::User=",
            "Acquire::Retries=0",
            "APT::Update::Error-Mode=any",
            f"Acquire::http::Timeout={CONNECT_SECONDS}",
            f"Acquire::https::Timeout={CONNECT_SECONDS}",
        ]
        apt = ["apt-get", "-qq", *(part for option in options for part in ("-o", option))]
        _run([*apt, "update"], folder, 120)
        _run([*apt, "download", f"consul={DEBIAN}*"], folder, 120)
        packages = list(folder.glob("consul_*.deb"))
        if not packages:
            raise BinaryError(f"Debian's package of Consul {DEBIAN} was not downloaded")
        _run(["dpkg-deb", "-x", str(packages[0]), "out"], folder, 60)
        return _install(DEBIAN, folder / "out" / "usr" / "bin" / "consul")


def build_consul(version: str) -> Path:
    """Compile Consul with Go >= 1.25 through the module proxy; some four minutes on two cores.

    Versions from 1.20.6 on do not resolve this way.
    """
    go = _find_go()
    with _temporary_folder() as folder:
        environment = _go_environment(go, folder)
        (folder / "go.mod").write_text(GO_MODULE, encoding="utf-8")
        _run([go, "get", "-tool", f"github.com/hashicorp/consul@v{version}"], folder, 900, environment)
        _run([go, "build", "-o", "consul", "github.com/hashicorp/consul"], folder, 3600, environment)
        return _install(version, folder / "consul")


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder in the cache, so that what is made in it can be moved to its place at once."""
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        yield Path(name)


def _find_go() -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BinaryError("Go is not installed (https://go.dev/dl; 1.25 or newer builds Consul)")
    return go


def _go_environment(go: str, folder: Path) -> dict[str, str]:
    """Go's settings here, but all that it downloads and compiles goes to `folder`.

    It needs no home then, and leaves nothing in one. It makes modules read-only, which nobody could remove.
    """
    flags = _run([go, "env", "GOFLAGS"], folder, 30).strip()
    return {
        **os.environ,
        "GOPATH": str(folder / "go"),
        "GOMODCACHE": str(folder / "go" / "modules"),
        "GOCACHE": str(folder / "go" / "built"),
        "GOBIN": str(folder),
        "GOFLAGS": f"{flags} -modcacherw".strip(),
    }


def _run(command: list[str], folder: Path, seconds: int, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        # apt names the cause first, Go last.
        cause = next((line for line in lines if line.startswith("E: ")), lines[-1])
        raise BinaryError(f"{command[0]} failed ({done.returncode}): {cause}")
    return done.stdout


def find_consul_template() -> Path:
    """consul-template: $CONSUL_TEMPLATE_BIN, PATH, Go's folder or the cache, else BinaryError."""
    named = os.environ.get("CONSUL_TEMPLATE_BIN") or shutil.which("consul-template")
    by_hand = Path.home() / "go" / "bin" / "consul-template"
    for candidate in ([Path(named)] if named else []) + [by_hand, _cached_template()]:
        if candidate.exists():
            return candidate
    raise BinaryError(
        "consul-template is not here: put it on PATH, set CONSUL_TEMPLATE_BIN, or run "
        "`python -m lab fetch --consul-template`"
    )


def _cached_template() -> Path:
    return cache() / "consul-template" / TEMPLATE_RELEASE / "consul-template"


def fetch_consul_template() -> Path:
    """Put consul-template into the cache: its release (checksum verified), else compiled with Go.

    Raises BinaryError with all that was tried.
    """
    target = _cached_template()
    tried = []
    for way in (_template_from_release, _template_by_go):
        with _temporary_folder() as folder:
            try:
                found = way(folder)
            except (BinaryError, OSError, subprocess.SubprocessError) as error:
                tried.append(str(error))
                continue
            found.chmod(0o755)
            target.parent.mkdir(parents=True, exist_ok=True)
            found.rename(target)
            return target
    raise BinaryError(f"consul-template {TEMPLATE_RELEASE} could not be had: {'; '.join(tried)}")


def _template_from_release(folder: Path) -> Path:
    return _release("consul-template", TEMPLATE_RELEASE, TEMPLATE_SHA256, folder)


def _template_by_go(folder: Path) -> Path:
    go = _find_go()
    module = f"github.com/hashicorp/consul-template@v{TEMPLATE_RELEASE}"
    _run([go, "install", module], folder, 600, _go_environment(go, folder))
    return folder / "consul-template"


def find_tool(name: str, package: str) -> Path:
    """A program of the system, also where only root's PATH has it; BinaryError names the package to install."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise BinaryError(f"{name} is not installed: the lab needs it (Debian: apt-get install {package})")
    return Path(found)
