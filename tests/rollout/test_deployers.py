"""Real deployers as hooks: each example of them, as it stands, by SSH and by the machines' own agents, under load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import VM, Lab
from lab.testkit.ansible_run import CHECKOUT, Result, flat
from tests.fleet import CONSUL, reset
from tests.rollout.awx import EXAMPLES
from tests.rollout.drive import Drive, Load

OLD, NEW, BROKEN, FAILING = "1.0.0", "2.0.0", "3.0.0-broken", "3.0.0-deployfail"
# Setting a machine up takes some dozen tasks of Ansible, each by a connection of its own.
PATIENCE = 600
TOOLS = {"systemd-release": ("curl", "tar"), "apt": ("dpkg", "apt-get", "apt-ftparchive"), "puppet": ("puppet",)}
# Per machine of the lab, and not of the lab itself.
TRACES = ("srv", "root", "puppet", "hitless", "units", "apt.conf", "deploy-web")


def needs(example: str) -> pytest.MarkDecorator:
    missing = [tool for tool in TOOLS[example] if shutil.which(tool) is None]
    reason = f"examples/{example} needs {', '.join(missing)}, which make setup-tools installs"
    return pytest.mark.skipif(bool(missing), reason=reason)


EXAMPLE_NAMES = [pytest.param(name, marks=needs(name)) for name in TOOLS]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=2, consul=CONSUL) as running:
        yield running


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    """As it began, and no example has ever been there."""
    for vm in lab.vms:
        vm.stop_units()
        for trace in TRACES:
            path = vm.directory / trace
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        vm.units_directory.mkdir()
    reset(lab)
    return lab


class Example:
    """A copy of an example's folder, with the lab instead of machines."""

    def __init__(self, name: str, drive: Drive, folder: Path) -> None:
        self.name, self.drive, self.folder = name, drive, folder
        times = "rollout_drain_time=1 rollout_min_healthy_time=0.5 rollout_bake_time=0.5 rollout_healthy_deadline=60"
        self.options = ["-e", "@lab.yml", "-e", times]
        shutil.copytree(drive.ansible.collections / EXAMPLES / name, folder)

    def playbook(self, name: str, *more: str) -> Result:
        lab = self.drive.lab
        return self.drive.ansible.playbook(
            f"{name}.yml", *self.options, *more, cwd=self.folder, env=lab.environment, timeout=PATIENCE
        )

    def prepare(self, *versions: str) -> None:
        """What a user does once: releases are published, machines set up."""
        publish = self.folder / "lab" / "publish"
        if publish.exists():
            environment = {**os.environ, **self.drive.lab.environment}
            subprocess.run([publish, *versions], env=environment, check=True, timeout=60)
        # By local connections: how the hook comes to a machine is Ansible's matter.
        done = self.playbook("machines", "-e", "ansible_connection=local")
        assert done.rc == 0, done.output

    def roll_out(self, version: str, *more: str) -> Result:
        return self.playbook("rollout", "-e", f"rollout_version={version}", *more)

    def start_agents(self) -> None:
        """The deploy agents run as the unit files say that the role has written, and no sshd does."""
        for vm in self.drive.lab.vms:
            assert vm.start_units() == ["hitless-deploy-web"]
            vm.stop_sshd()


@pytest.fixture
def example(drive: Drive, tmp_path: Path) -> Callable[[str], Example]:
    return lambda name: Example(name, drive, tmp_path / name)


def on_disk(name: str, vm: VM) -> str:
    """The version that the deployer itself says is there."""
    if name == "systemd-release":
        return os.readlink(vm.directory / "srv" / "current").removeprefix("releases/")
    if name == "puppet":
        fact = (vm.directory / "puppet" / "var" / "facts.d" / "web_version.txt").read_text(encoding="utf-8")
        version = (vm.directory / "srv" / "VERSION").read_text(encoding="utf-8")
        assert fact == f"web_version={version}"
        return version.strip()
    query = ["dpkg-query", f"--root={vm.directory / 'root'}", "-W", "-f", "${db:Status-Want} ${Version}", "web"]
    want, version = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    assert want == "hold"
    return version


def check_put_back(example: Example, load: Load, failed: Result, why: str) -> None:
    """A third version has failed on the first machine, and 2 runs again everywhere."""
    drive = example.drive
    vms = drive.lab.vms
    assert failed.rc != 0
    assert why in flat(failed.output), failed.output
    assert drive.outcomes()["web1"] == "rolled_back"
    assert drive.running() == [NEW] * len(vms)
    assert [on_disk(example.name, vm) for vm in vms] == [NEW] * len(vms)
    assert drive.is_settled()
    load.check_nothing_lost()
    assert load.report.by_version.keys() == {OLD, NEW}, "the version that failed got traffic"


def check_rolled_out(example: Example, done: Result) -> None:
    vms = example.drive.lab.vms
    assert done.rc == 0, done.output
    assert example.drive.outcomes() == {vm.name: "ok" for vm in vms}
    assert [on_disk(example.name, vm) for vm in vms] == [NEW] * len(vms)


def check_all(example: Example) -> None:
    """1 -> 2, nothing the second time, and a broken 3 that is put back; no request is lost."""
    with Load(example.drive.lab) as load:
        check_rolled_out(example, example.roll_out(NEW))
        ran = [len(vm.deploys()) for vm in example.drive.lab.vms]
        again = example.roll_out(NEW)
        assert again.rc == 0, again.output
        assert [len(vm.deploys()) for vm in example.drive.lab.vms] == ran, "the second run has deployed"
        # The rollback has no longer than that either.
        failed = example.roll_out(BROKEN, "-e", "rollout_healthy_deadline=20")
    check_put_back(example, load, failed, "it answered 500")


@pytest.mark.slow
def test_a_release_folder_by_ssh(example: Callable[[str], Example]) -> None:
    release = example("systemd-release")
    release.prepare(OLD, NEW, FAILING)
    with Load(release.drive.lab) as load:
        check_rolled_out(release, release.roll_out(NEW))
        failed = release.roll_out(FAILING)
    check_put_back(release, load, failed, "The deployment command exited with 3")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", EXAMPLE_NAMES)
def test_by_ssh(example: Callable[[str], Example], name: str) -> None:
    deployer = example(name)
    deployer.prepare(OLD, NEW, BROKEN)
    check_all(deployer)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", EXAMPLE_NAMES)
def test_by_the_machines_own_agents(example: Callable[[str], Example], name: str) -> None:
    deployer = example(name)
    deployer.options += ["-e", "@agent.yml"]
    deployer.prepare(OLD, NEW, BROKEN)
    deployer.start_agents()
    check_all(deployer)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_back_by_hand_and_machines_set_up_twice(example: Callable[[str], Example]) -> None:
    release = example("systemd-release")
    release.prepare(OLD, NEW)
    twice = release.playbook("machines", "-e", "ansible_connection=local")
    assert all(counts["changed"] == 0 for counts in twice.recap.values()), twice.output
    there = release.roll_out(NEW)
    assert there.rc == 0, there.output
    arguments = ["hitless.consul.rollback", *release.options, "-e", "rollout_service=web"]
    back = release.drive.ansible.playbook(*arguments, cwd=release.folder, env=release.drive.lab.environment)
    assert back.rc == 0, back.output
    assert [on_disk("systemd-release", vm) for vm in release.drive.lab.vms] == [OLD] * 2
    assert release.drive.running() == [OLD] * 2


# -- the hooks alone ----------------------------------------------------------------------------------------------


class Releases:
    """The hook of examples/systemd-release on a machine that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.published = folder / "srv", folder / "releases"
        self.environment = {
            "PATH": os.environ["PATH"],
            "WEB_ROOT": str(self.root),
            "WEB_RELEASES": f"file://{self.published}",
            "WEB_RESTART": "true",
        }
        (self.root / "shared" / "log").mkdir(parents=True)

    def publish(self, *versions: str) -> None:
        publish = CHECKOUT / "examples" / "systemd-release" / "lab" / "publish"
        subprocess.run([publish, *versions], env={**os.environ, "HITLESS_LAB": str(self.root.parent)}, check=True)

    def deploy(self, version: str, reason: str = "deploy", **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "DEPLOY_VERSION": version, "DEPLOY_REASON": reason, **more}
        hook = CHECKOUT / "examples" / "systemd-release" / "hooks" / "deploy-web"
        return subprocess.run([hook], env=environment, capture_output=True, text=True, check=False)

    @property
    def current(self) -> str:
        return (self.root / "current" / "VERSION").read_text(encoding="utf-8").strip()

    @property
    def there(self) -> set[str]:
        return {path.name for path in (self.root / "releases").iterdir()}


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path)


def test_pruning_keeps_what_a_rollback_may_need(releases: Releases) -> None:
    """Deployed last, the one before, and where a rollback goes once the first has failed; also where only 1 is kept."""
    versions = [f"1.{number}" for number in range(6)]
    releases.publish(*versions, "2.0")
    for version in versions:
        assert releases.deploy(version, WEB_KEEP="1").returncode == 0
    assert releases.there == {"1.5", "1.4", "1.3"}
    # 2.0 fails, is rolled back, tried again: 1.4 is where 1.5 can be rolled back to, all the time.
    for _ in range(2):
        assert releases.deploy("2.0", WEB_KEEP="1").returncode == 0
        assert releases.deploy("1.5", "rollback", WEB_KEEP="1").returncode == 0
        assert releases.there == {"2.0", "1.5", "1.4"}
    shutil.rmtree(releases.published)
    assert releases.deploy("1.4", "rollback").returncode == 0, "going back needs nothing from outside"
    assert releases.current == "1.4"


def test_there_is_a_current_release_at_every_moment(releases: Releases) -> None:
    releases.publish("1.0", "2.0")
    assert releases.deploy("1.0").returncode == 0
    seen, ended = set(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                seen.add(releases.current)
            except OSError as error:
                seen.add(str(error))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for version in ["2.0", "1.0"] * 15:
            assert releases.deploy(version).returncode == 0
    finally:
        ended.set()
        watcher.join()
    assert seen == {"1.0", "2.0"}


def test_what_is_cut_off_is_no_release(releases: Releases) -> None:
    releases.publish("1.0", "2.0")
    assert releases.deploy("1.0").returncode == 0
    archive = releases.published / "web-2.0.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert releases.deploy("2.0").returncode != 0
    assert releases.current == "1.0"
    assert "2.0" not in releases.there
    archive.write_bytes(whole)
    assert releases.deploy("2.0").returncode == 0
    assert releases.current == "2.0"
    assert (releases.root / "current" / "log").resolve() == releases.root / "shared" / "log"
    assert releases.there == {"1.0", "2.0"}
    failed = releases.deploy("2.0", WEB_RESTART="false")
    assert failed.returncode != 0, "a restart that fails is a deployment that fails"


@pytest.mark.parametrize(
    ("version", "keep", "why"),
    [
        ("..", "5", "cannot be the name of a release"),
        (".hidden", "5", "cannot be the name of a release"),
        ("a/../../b", "5", "cannot be the name of a release"),
        ("1.0", "five", "WEB_KEEP is five"),
    ],
)
def test_what_a_release_cannot_be_is_refused_at_once(releases: Releases, version: str, keep: str, why: str) -> None:
    refused = releases.deploy(version, WEB_KEEP=keep)
    assert refused.returncode != 0
    assert why in refused.stderr
    assert not (releases.root / "releases").exists(), "it has begun"


class Packages:
    """The hook of examples/apt on a machine that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.machine = folder / "vm"
        self.machine.mkdir()
        (self.machine / "vm.json").write_text("{}", encoding="utf-8")
        self.folder, self.root = folder, self.machine / "root"
        self.environment = {
            "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}",
            "APT_CONFIG": str(self.machine / "apt.conf"),
            "DPKG_ROOT": str(self.root),
            "DPKG_FORCE": "not-root,downgrade",
            "WEB_PACKAGE": "web",
            "WEB_RESTART": "true",
            "WEB_PATIENCE": "0",
        }

    def publish(self, *versions: str) -> None:
        publish = CHECKOUT / "examples" / "apt" / "lab" / "publish"
        subprocess.run([publish, *versions], env={**os.environ, "HITLESS_LAB": str(self.folder)}, check=True)
        sources = self.root / "etc" / "apt" / "sources.list.d" / "web.list"
        sources.write_text(f"deb [trusted=yes] file:{self.folder}/repository ./\n", encoding="utf-8")

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def deploy(self, version: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(CHECKOUT / "examples" / "apt" / "hooks" / "deploy-web"), DEPLOY_VERSION=version, **more)

    @property
    def there(self) -> str:
        return self.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "web").stdout


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    found = Packages(tmp_path)
    found.publish("1.0", "2.0")
    return found


@pytest.mark.slow
@needs("apt")
def test_a_package_goes_up_and_down_and_stays_where_it_is(packages: Packages) -> None:
    for version in ("2.0", "1.0", "1.0"):
        done = packages.deploy(version)
        assert done.returncode == 0, done.stderr
        assert packages.there == f"hold ok installed {version}"
    upgraded = packages.run("apt-get", "-y", "dist-upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert packages.there == "hold ok installed 1.0"


@pytest.mark.slow
@needs("apt")
def test_a_package_that_apt_did_not_install_although_it_ended_well(packages: Packages) -> None:
    assert packages.deploy("2.0").returncode == 0
    # dpkg may not downgrade: it skips the package, and apt-get exits with 0.
    refused = packages.deploy("1.0", DPKG_FORCE="not-root")
    assert refused.returncode == 1
    assert "web is now 'installed 2.0', and not 'installed 1.0'" in refused.stderr
    assert packages.deploy("9.0").returncode != 0
    assert packages.there.endswith("installed 2.0")


@pytest.mark.slow
@needs("apt")
def test_a_dpkg_that_was_cut_off_is_finished_first(packages: Packages) -> None:
    assert packages.deploy("1.0").returncode == 0
    status = packages.root / "var" / "lib" / "dpkg" / "status"
    (packages.root / "var" / "lib" / "dpkg" / "updates" / "0000").write_bytes(status.read_bytes())
    refused = packages.run("apt-get", "-y", "install", "web")
    assert "dpkg was interrupted" in refused.stderr
    done = packages.deploy("2.0")
    assert done.returncode == 0, done.stderr
    assert packages.there == "hold ok installed 2.0"


@pytest.mark.slow
@needs("apt")
def test_a_version_without_a_way_back_is_told(packages: Packages) -> None:
    assert "WARNING" not in packages.deploy("2.0", DEPLOY_PREVIOUS_VERSION="1.0").stderr
    told = packages.deploy("1.0", DEPLOY_PREVIOUS_VERSION="0.9")
    assert told.returncode == 0, told.stderr
    assert "WARNING: 0.9, where a rollback would go, cannot be fetched" in told.stderr


class Puppet:
    """The hook of examples/puppet on a machine that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        code = folder / "code" / "environments" / "production"
        shutil.copytree(CHECKOUT / "examples" / "puppet" / "puppet", code)
        # What runs, is what the restart has noted; the process tells it as the application's health does.
        data = {
            "web::root": str(folder / "srv"),
            "web::restart": f"echo restarted >>{folder}/restarts; {self.noted} {folder}/srv/VERSION >{folder}/runs",
            "web::health": f"file://{folder}/runs",
        }
        (code / "data").mkdir()
        (code / "data" / "common.yaml").write_text(json.dumps(data), encoding="utf-8")
        folders = {"confdir": "", "codedir": "code", "vardir": "var", "rundir": "run", "logdir": "log", "ssldir": "ssl"}
        options = " ".join(f"--{name} {folder / value}" for name, value in folders.items())
        self.command = f"puppet apply {options} --detailed-exitcodes --color false {code}/manifests"

    noted = """sed 's/.*/{"version": "&"}/'"""

    def deploy(self, version: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DEPLOY_VERSION": version,
            "WEB_FACTS": str(self.folder / "var" / "facts.d"),
            "WEB_PUPPET": self.command,
        }
        hook = CHECKOUT / "examples" / "puppet" / "hooks" / "deploy-web"
        return subprocess.run([hook], env=environment, capture_output=True, text=True, check=False)

    def run(self) -> int:
        """Any other run of puppet on the machine -> its exit code."""
        return subprocess.run(["sh", "-c", self.command], capture_output=True, check=False).returncode

    @property
    def restarts(self) -> int:
        path = self.folder / "restarts"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


@pytest.mark.slow
@needs("puppet")
def test_runs_of_puppet_between_deployments_change_nothing(tmp_path: Path) -> None:
    machine = Puppet(tmp_path)
    assert machine.run() == 0, "before the first deployment"
    done = machine.deploy("1.10")
    assert done.returncode == 2, done.stdout
    assert machine.restarts == 1
    assert machine.run() == 0
    version = tmp_path / "srv" / "VERSION"
    version.unlink()
    assert machine.run() == 2, "puppet knows no version any more"
    assert version.read_text(encoding="utf-8") == "1.10\n"
    assert machine.restarts == 1
    # A run that was cut off after it wrote the file: the old process runs on, and the next one sees to it.
    (tmp_path / "runs").write_text('{"version": "1.9"}', encoding="utf-8")
    assert machine.deploy("1.10").returncode == 2
    assert machine.restarts == 2
    version.unlink()
    version.mkdir()
    assert machine.deploy("2.0").returncode in (4, 6)
