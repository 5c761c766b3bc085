@process
Feature: A worker that loads its model
  A model takes its time to load; everybody who waits
  is told how far it is, and is not left waiting for ever.

  Background:
    Given a machine with the fake engine

  @B27 @B28 @B30
  Scenario: A worker is known as loading from its start until its model is there
    Given the fake engine takes 3 seconds to load
    And a running hive
    When a worker of the hive is spawned
    Then the hive answers at once with a worker that is starting or loading, on its own port
    And the worker says that it is loading and where its progress is
    And the worker called back, so that the hive lists it as loading
    And the worker says within 10 seconds that it is ready and its model loaded
    And the hive lists it as idle within 2 seconds

  @B31
  Scenario: The progress of loading is shown to the person who waits
    Given the fake engine takes 3 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 0
    And standard error tells of layers loaded

  @B32
  Scenario: A loaded worker is ready
    Given a running hive
    When a worker of the hive is spawned
    Then the worker says within 10 seconds that it is ready and its model loaded

  @B33
  Scenario: Loading that takes too long is given up, with its state and its log
    Given the fake engine takes 60 seconds to load
    And the hive gives a worker 2 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 1
    And standard error says "LOADING_TIMEOUT"
    And standard error says "layers"
    And standard error names the log of the worker
    And there are 0 processes of llm-worker-rbee
