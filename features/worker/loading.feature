@process
Feature: A worker that loads its model
  A model takes time to load. Everybody who waits sees
  how far it is, and does not wait for ever.

  Background:
    Given a machine with the model "bee"

  @B27 @B28 @B30
  Scenario: A worker is listed as loading until its model is loaded
    Given bee takes 3 seconds to load
    And a running hive
    When a worker of the hive is spawned
    Then the hive answers at once with a worker that is loading, on its own port
    And the worker says that it is loading and where its progress can be read
    And the hive lists the worker as loading
    And the worker says within 10 seconds that it is ready and its model is loaded
    And the hive lists the worker as idle within 2 seconds

  @B31
  Scenario: The progress of loading is shown to the person who waits
    Given bee takes 3 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 0
    And the keeper shows how many layers are loaded

  @B32
  Scenario: A worker that has loaded its model is ready
    Given a running hive
    When a worker of the hive is spawned
    Then the worker says within 10 seconds that it is ready and its model is loaded

  @B33
  Scenario: Loading that takes too long is stopped, with its progress and its log
    Given bee takes 60 seconds to load
    And the hive gives a worker 2 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 1
    And the keeper says "LOADING_TIMEOUT"
    And the keeper says "layers"
    And the keeper names the worker's log file
    And there are 0 processes of llm-worker-rbee
