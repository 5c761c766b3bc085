@rig
Feature: Hives on machines
  An operator installs, starts, upgrades and stops hives on other machines
  over SSH, and gets answers from them.

  @B03
  Scenario: Bare machines become hives
    Given an operator with the machines h1 and h2
    When the operator types "rbee-keeper hive install --all"
    Then the exit code is 0
    And the keeper reports a clone, a release, a service and an answer of the hive for h1 and h2
    And h1 and h2 are listed as done, and their hives serve

  @B70
  Scenario: A second run changes nothing, and --check only reports
    Given hives on h1 and h2
    When the operator types "rbee-keeper hive install --all --json"
    Then the exit code is 0
    And nothing was changed
    Given somebody has edited the hive's config on h1
    When the operator types "rbee-keeper hive install --all --check --json"
    Then the exit code is 0
    And only /etc/rbee/hive.toml on h1 would change
    And the edit on h1 is still there
    When the operator types "rbee-keeper hive install --node h1"
    Then the exit code is 0

  @B07
  Scenario: A cold start on another machine answers and leaves nothing running
    Given hives on h1 and h2
    And the hive of h2 is stopped
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt 'Name three bees.' --max-tokens 20"
    Then the exit code is 0
    And the answer has at least 5 words
    And the keeper says "retry 3 of 3"
    And the keeper says "preflight: connected, logged in, commands run"
    And the keeper says "round trip"
    And the keeper says "the hive program is installed"
    And the keeper says "hive h2: connected"
    And the keeper says "20 tokens"
    And no process of rbee is left within 2 seconds
    And no hive runs on h2
    And the hive of h1 serves

  @B57
  Scenario: A hive program that is missing on the machine is reported with its path
    Given hives on h1 and h2
    And the hive of h2 is stopped
    And the config names the hive program "/opt/elsewhere/rbee-hive"
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt Hello"
    Then the exit code is 1
    And the keeper says "WORKER_BINARY_NOT_FOUND"
    And the keeper says "/opt/elsewhere/rbee-hive"
    And the keeper says "rbee-keeper hive install --node h2"

  @B64
  Scenario: Hives are stopped, shown and started
    Given hives on h1 and h2
    When the operator types "rbee-keeper hive stop --node h1"
    Then the exit code is 0
    When the operator types "rbee-keeper hive status --all"
    Then the exit code is 0
    And the table has a line with "h1, stopped, no queen runs"
    And the table has a line with "h2"
    When the operator types "rbee-keeper hive start --all"
    Then the exit code is 0
    When the operator types "rbee-keeper hive status --node h1"
    Then the table has a line with "h1, serves"
    When the operator types "rbee-keeper hive status --node localhost"
    Then the exit code is 0
    And the keeper says "as its child"

  @B14 @B36
  Scenario: A hive that cannot be reached is tried four times, each attempt reported, and then the request fails
    Given hives on h1 and h2
    And the hive of h1 accepts connections from its own machine only
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello"
    Then the exit code is 1
    And the keeper says "retry 1 of 3"
    And the keeper says "retry 2 of 3"
    And the keeper says "retry 3 of 3"
    And the keeper says "CONNECTION_TIMEOUT"

  @B13
  Scenario: A hive of another version is refused, with both versions and the command that upgrades it
    Given hives on h1 and h2
    And the hive of h1 is of version 9.9.0
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello"
    Then the exit code is 1
    And the keeper says "VERSION_MISMATCH"
    And the keeper says "9.9.0"
    And the keeper says its own version
    And the keeper says "rbee-keeper hive upgrade --node h1"

  Scenario: An upgrade switches one hive to another release, and the hive answers again
    Given hives on h1 and h2
    And the branch "next" has a release of its own
    When the operator types "rbee-keeper hive upgrade --node h1 --branch next"
    Then the exit code is 0
    And the keeper says "the inventory still names main"
    And the hive of h1 runs the release of "next"
    And the hive of h2 runs the release of "main"
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0

  @B66
  Scenario: One command stops everything on all machines
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the operator types "rbee-keeper infer --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the keeper says "is warm"
    When the operator types "rbee-keeper hive status --all"
    Then the table has a line with "h1, serves, connected, worker-, idle"
    When the operator types "rbee-keeper daemon stop"
    Then the exit code is 0
    And the receipt names 3 hives and 2 workers, and nothing is left
    And no process of rbee is left within 2 seconds
    And no hive runs on h1
    And no hive runs on h2

  @B03
  Scenario: Ctrl-C during an installation reports the state of each machine
    Given hives on h1 and h2
    When the operator starts "rbee-keeper hive install --all"
    And the run has reached the machines
    And the operator presses Ctrl-C
    Then it ends with code 130 within 15 seconds
    And the keeper says "State of the machines"
    And the keeper says "h1: "
