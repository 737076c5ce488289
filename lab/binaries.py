# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the programs a lab needs; Consul is fetched and cached per user, never committed.

Consul: $CONSUL_BIN, PATH, the cache; else HashiCorp's release zip of a pinned version (checksum verified; a few
seconds to connect, because not every place reaches it), else the package of Debian 11 by a private sources list.
With Go, `build_consul` compiles a newer version; only done when asked for.
"""

from __future__ import annotations

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
from pathlib import Path

RELEASE = "1.20.1"
RELEASE_URL = "https://releases.hashicorp.com/consul/{version}/consul_{version}_linux_{arch}.zip"
RELEASE_SHA256 = {
    "amd64": "d38e7571177909d437a9cbcc62fb65083bc567266b74a62d02c6abe783951648",
    "arm64": "03ad4cf513819413016a79154e74161bcfa3c9e1fbfcbdc9eca525b2123d4779",
}
DEBIAN = "1.8.7"
DEBIAN_SOURCE = "deb [signed-by={keyring}] http://deb.debian.org/debian bullseye main\n"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CONNECT_SECONDS = 4
TEMPLATE_RELEASE = "0.41.1"
TEMPLATE_URL = f"https://releases.hashicorp.com/consul-template/{TEMPLATE_RELEASE}"

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
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    expected = RELEASE_SHA256.get(arch)
    if expected is None:
        raise BinaryError(f"no checksum is pinned for a Consul release on {arch}")
    url = RELEASE_URL.format(version=RELEASE, arch=arch)
    content = _download(url)
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise BinaryError(f"{url} has checksum {actual}, not the pinned {expected}: not used")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(content)) as archive:
        return _install(RELEASE, Path(archive.extract("consul", folder)))


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise BinaryError(f"{url}: {getattr(error, 'reason', error)}") from error
    return content


def _from_debian() -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BinaryError(f"no {tool}: Debian's package of Consul cannot be taken apart here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # apt drops to the user _apt for downloads, which must be able to write here.
        folder.chmod(0o777)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        (folder / "sources.list").write_text(DEBIAN_SOURCE.format(keyring=DEBIAN_KEYRING), encoding="utf-8")
        options = [
            f"Dir::Etc::sourcelist={folder}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::Lists={folder}/lists",
            f"Dir::Cache={folder}/cache",
            "APT::Sandbox::User=",
            "Acquire::Retries=0",
            f"Acquire::http::Timeout={CONNECT_SECONDS}",
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
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BinaryError("Go is not installed (1.25 or newer is needed to build Consul)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "go.mod").write_text(GO_MODULE, encoding="utf-8")
        _run([go, "get", "-tool", f"github.com/hashicorp/consul@v{version}"], folder, 900)
        _run([go, "build", "-o", "consul", "github.com/hashicorp/consul"], folder, 3600)
        return _install(version, folder / "consul")


def _run(command: list[str], folder: Path, seconds: int) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise BinaryError(f"{' '.join(command[:1])} failed ({done.returncode}): {last[0]}")


def find_consul_template() -> Path:
    """consul-template: $CONSUL_TEMPLATE_BIN, PATH, Go's folder, the cache; else fetched, else BinaryError."""
    cached = cache() / "consul-template" / TEMPLATE_RELEASE / "consul-template"
    named = os.environ.get("CONSUL_TEMPLATE_BIN") or shutil.which("consul-template")
    for candidate in ([Path(named)] if named else []) + [Path.home() / "go" / "bin" / "consul-template", cached]:
        if candidate.exists():
            return candidate
    raise BinaryError(
        "consul-template is not here: put it on PATH, set CONSUL_TEMPLATE_BIN, or run "
        "`python -m lab fetch --consul-template`"
    )


def fetch_consul_template() -> Path:
    """Put consul-template into the cache: its release, checked against the release's own list of checksums, else by Go.

    Raises BinaryError with all that was tried.
    """
    target = cache() / "consul-template" / TEMPLATE_RELEASE / "consul-template"
    target.parent.mkdir(parents=True, exist_ok=True)
    tried = []
    for way in (_template_from_release, _template_by_go):
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            try:
                found = way(Path(name))
            except (BinaryError, OSError, subprocess.SubprocessError) as error:
                tried.append(str(error))
                continue
            found.chmod(0o755)
            found.rename(target)
            return target
    raise BinaryError(f"consul-template {TEMPLATE_RELEASE} could not be had: {'; '.join(tried)}")


def _template_from_release(folder: Path) -> Path:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"consul-template_{TEMPLATE_RELEASE}"
    sums = _download(f"{TEMPLATE_URL}/{name}_SHA256SUMS").decode()
    content = _download(f"{TEMPLATE_URL}/{name}_linux_{arch}.zip")
    if f"{hashlib.sha256(content).hexdigest()}  {name}_linux_{arch}.zip" not in sums.splitlines():
        raise BinaryError(f"{name}_linux_{arch}.zip is not what its SHA256SUMS say: not used")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return Path(archive.extract("consul-template", folder))


def _template_by_go(folder: Path) -> Path:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BinaryError("Go is not installed")
    command = [go, "install", f"github.com/hashicorp/consul-template@v{TEMPLATE_RELEASE}"]
    environment = {**os.environ, "GOBIN": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise BinaryError(f"go install failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return folder / "consul-template"


def find_tool(name: str, package: str) -> Path:
    """A program of the system, also where only root's PATH has it; BinaryError names the package to install."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise BinaryError(f"{name} is not installed: the lab needs it (Debian: apt-get install {package})")
    return Path(found)
