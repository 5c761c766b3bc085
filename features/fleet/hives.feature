@rig
Feature: Hives on machines
  From bare machines to tokens and cleanly back, with nothing but SSH.

  @B03
  Scenario: Bare machines become hives
    Given an operator with the machines h1 and h2
    When the operator types "rbee-keeper hive install --all"
    Then the exit code is 0
    And standard error tells, for h1 and h2, of a clone, a release, a service and a proof
    And the machines h1 and h2 are done

  @B70
  Scenario: A second run changes nothing, and a check changes nothing either
    Given hives on h1 and h2
    When the operator types "rbee-keeper hive install --all --json"
    Then the exit code is 0
    And nothing was changed
    Given somebody edits the hive's config on h1
    When the operator types "rbee-keeper hive install --all --check --json"
    Then the exit code is 0
    And only /etc/rbee/hive.toml on h1 would change
    And the edit on h1 is still there
    When the operator types "rbee-keeper hive install --node h1"
    Then the exit code is 0

  @B07
  Scenario: From cold to tokens on another machine
    Given hives on h1 and h2
    And the hive of h2 is stopped
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt 'Name three bees.' --max-tokens 20"
    Then the exit code is 0
    And standard output has at least 5 words
    And standard error says "retry 3 of 3"
    And standard error says "preflight: connected, logged in, commands run"
    And standard error says "round trip"
    And standard error says "the hive program is installed"
    And standard error says "hive h2: connected"
    And standard error says "20 tokens"
    And no process of rbee is left within 2 seconds
    And no hive runs on h2
    And the hive of h1 serves

  @B57
  Scenario: The program that the config names is looked for on the machine
    Given hives on h1 and h2
    And the hive of h2 is stopped
    And the config names the hive program "/opt/elsewhere/rbee-hive"
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt Hello"
    Then the exit code is 1
    And standard error says "WORKER_BINARY_NOT_FOUND"
    And standard error says "/opt/elsewhere/rbee-hive"
    And standard error says "rbee-keeper hive install --node h2"

  @B64
  Scenario: Hives are stopped, looked at and started
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
    And standard error says "as its child"

  @B14 @B36
  Scenario: A hive that cannot be reached from here is tried again, attempt by attempt, and then given up
    Given hives on h1 and h2
    And the hive of h1 listens to its own machine only
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello"
    Then the exit code is 1
    And standard error says "retry 1 of 3"
    And standard error says "retry 2 of 3"
    And standard error says "retry 3 of 3"
    And standard error says "CONNECTION_TIMEOUT"

  @B13
  Scenario: A hive of another version is not used
    Given hives on h1 and h2
    And the hive of h1 is of version 9.9.0
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello"
    Then the exit code is 1
    And standard error says "VERSION_MISMATCH"
    And standard error says "9.9.0"
    And standard error says this version
    And standard error says "rbee-keeper hive upgrade --node h1"

  Scenario: An upgrade puts another release beside the one that served, and goes on serving
    Given hives on h1 and h2
    And the branch "next" has a release of its own
    When the operator types "rbee-keeper hive upgrade --node h1 --branch next"
    Then the exit code is 0
    And standard error says "the inventory still names main"
    And the hive of h1 runs the release of "next"
    And the hive of h2 runs the release of "main"
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0

  @B66
  Scenario: One stop ends everything on all machines
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the operator types "rbee-keeper infer --node h2 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the operator types "rbee-keeper infer --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And standard error says "is warm"
    When the operator types "rbee-keeper hive status --all"
    Then the table has a line with "h1, serves, connected, worker-, idle"
    When the operator types "rbee-keeper daemon stop"
    Then the exit code is 0
    And the receipt names 3 hives and 2 workers, and nothing is left
    And no process of rbee is left within 2 seconds
    And no hive runs on h1
    And no hive runs on h2

  @B03
  Scenario: Ctrl-C ends a run and says how each machine was left
    Given hives on h1 and h2
    When the operator starts "rbee-keeper hive install --all"
    And the run has reached the machines
    And the operator presses Ctrl-C
    Then it ends with code 130 within 15 seconds
    And standard error says "State of the machines"
    And standard error says "h1: "
