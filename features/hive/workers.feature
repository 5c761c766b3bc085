@process
Feature: A hive looks after its workers
  The owner of a machine gets memory back when it is not used,
  and finds no process that nothing looks after.

  Background:
    Given a machine with the model "bee"

  @B12
  Scenario: The health of a hive can be read without a key
    Given a running hive
    When somebody without a key asks for the health of the hive
    Then the hive is alive, of this version, with API version "v1"

  @B45 @B48
  Scenario: An unused worker is stopped, and the next request is a cold start
    Given the hive stops workers that were idle for 5 seconds
    And a running queen
    And a worker for bee on localhost
    Then there are no workers within 10 seconds
    And there are 0 processes of llm-worker-rbee
    And there is 1 process of rbee-hive
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 0
    And the keeper reports a preflight

  @B46
  Scenario: A hive keeps running, watching and answering after a worker is ready
    Given a running queen
    And a worker for bee on localhost
    When the operator runs "rbee-keeper worker health --node localhost"
    Then the exit code is 0
    And there is 1 process of rbee-hive
    When the llm-worker-rbee is killed
    Then there are no workers within 2 seconds
    And there is 1 process of rbee-hive

  @B47
  Scenario: A worker that no longer responds is removed after three missed health checks
    Given the hive checks workers every 1 second
    And a running queen
    And a worker for bee on localhost
    When the llm-worker-rbee is frozen
    Then there are no workers within 20 seconds
    And there are 0 processes of llm-worker-rbee
    And the hive's log reports 3 missed health checks

  @B49
  Scenario: A hive that is terminated stops its three workers and keeps the catalog
    Given a running hive
    And three workers of the hive
    And the model is in its catalog
    When the rbee-hive is terminated
    Then it ends with code 0 within 10 seconds
    And there are 0 processes of llm-worker-rbee
    When the hive is started again
    Then the hive has no workers
    And the model is in its catalog

  @B29
  Scenario: A hive that was killed leaves no worker, and starts again with an empty list
    Given a running hive
    And three workers of the hive
    When the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    When the hive is started again
    Then the hive has no workers
