@process
Feature: Managing the queen and the workers
  An operator starts, inspects and stops what rbee runs,
  and can use every output in a script.

  Background:
    Given a machine with the model "bee"

  @B63
  Scenario: The queen is started, inspected and stopped
    When the operator runs "rbee-keeper daemon status --json"
    Then the JSON field "state" is "stopped"
    When the operator runs "rbee-keeper daemon start"
    Then the exit code is 0
    When the operator runs "rbee-keeper daemon start"
    Then the exit code is 0
    And the keeper says "already"
    When the operator runs "rbee-keeper daemon status --json"
    Then the JSON field "state" is "running"
    And there is 1 process of queen-rbee
    When the operator runs "rbee-keeper daemon stop"
    Then the exit code is 0
    And no process of rbee is left within 2 seconds
    When the operator runs "rbee-keeper daemon status --json"
    Then the JSON field "state" is "stopped"

  @B63
  Scenario: A PID file of a queen that is gone is called stale and does not prevent a start
    Given a PID file of a queen that is gone
    When the operator runs "rbee-keeper daemon status --json"
    Then the JSON field "state" is "stale"
    When the operator runs "rbee-keeper daemon start"
    Then the exit code is 0
    And there is 1 process of queen-rbee

  @B65 @B59 @B61 @B10
  Scenario: A worker is started, listed and stopped
    Given a running queen
    When the operator runs "rbee-keeper worker start --node localhost --model bee"
    Then the exit code is 0
    When the operator runs "rbee-keeper worker list"
    Then the output shows "localhost"
    And the output shows "idle"
    When the operator stops the worker by its id
    Then the exit code is 0
    And there are no workers within 2 seconds
    And there are 0 processes of llm-worker-rbee

  @B60
  Scenario: The health of the workers of a node is shown
    Given a running queen
    And a worker for bee on localhost
    When the operator runs "rbee-keeper worker health --node localhost --json"
    Then the exit code is 0
    And the worker is shown as idle with 4 of 4 slots free
    When the operator runs "rbee-keeper workers health --node localhost"
    Then the exit code is 0

  @B62
  Scenario: The logs of a node are followed until Ctrl-C
    Given a running queen
    When the operator starts "rbee-keeper logs --node localhost --follow"
    And the output has a line of "rbee-hive"
    And a worker is started for bee on localhost
    Then the output gets a line of the worker within 5 seconds
    When the operator presses Ctrl-C
    Then it ends with code 130 within 5 seconds

  @B44
  Scenario: A wrong key is refused, with the place where the key is configured
    Given a running queen
    And the operator uses the key "not-the-right-key"
    When the operator runs "rbee-keeper worker list"
    Then the exit code is 1
    And the keeper says "INVALID_API_KEY"
    And the keeper says "api-key"
    And the keeper does not say "not-the-right-key"
