@process
Feature: A hive looks after its workers
  Whoever owns the machine wants memory back when it is not used,
  and no process that nobody answers for.

  Background:
    Given a machine with the fake engine

  @B12
  Scenario: A hive tells its status and versions to anyone
    Given a running hive
    When the health of the hive is asked without a key
    Then it is alive, of this version, with API version "v1"

  @B45 @B48
  Scenario: A worker that is not used is stopped, and the next request is a cold start
    Given the hive stops workers after 1 second of idling
    And a running queen
    And a worker for the fake model on localhost
    Then there are no workers within 10 seconds
    And there are 0 processes of llm-worker-rbee
    And there is 1 process of rbee-hive
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 0
    And standard error tells of the preflight

  @B46
  Scenario: A hive stays, watches and answers after a worker is ready
    Given a running queen
    And a worker for the fake model on localhost
    When the operator runs "rbee-keeper worker health --node localhost"
    Then the exit code is 0
    And there is 1 process of rbee-hive
    When the llm-worker-rbee is killed
    Then there are no workers within 2 seconds
    And there is 1 process of rbee-hive

  @B47
  Scenario: A worker that no longer answers is removed after three misses
    Given the hive checks workers every 1 second
    And a running queen
    And a worker for the fake model on localhost
    When the llm-worker-rbee is frozen
    Then there are no workers within 20 seconds
    And there are 0 processes of llm-worker-rbee
    And the log of the hive tells of missed health checks

  @B49
  Scenario: SIGTERM to a hive ends its three workers and keeps the catalogue
    Given a running hive
    And three workers of the hive
    And the model is in its catalogue
    When the rbee-hive gets SIGTERM
    Then it ends with code 0 within 10 seconds
    And there are 0 processes of llm-worker-rbee
    When the hive is started again
    Then the hive has no workers
    And the model is in its catalogue

  @B29
  Scenario: The list of workers lives in memory, and leftovers of an earlier life are removed
    Given a running hive
    And three workers of the hive
    When the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    When the hive is started again
    Then the hive has no workers
