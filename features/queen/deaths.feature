@process
Feature: A daemon that is killed
  When a daemon dies, nothing keeps running that nothing looks after,
  and nothing stops that is still looked after.

  Background:
    Given a machine with the model "bee"

  @B67
  Scenario: A hive without a queen stops its workers after a while, and keeps running
    Given the hive waits 6 seconds for a queen
    And a queen and a hive that it did not start
    And a worker of that hive
    When the queen-rbee is killed
    Then the worker of that hive still serves 1 second later
    And the llm-worker-rbee are gone within 15 seconds
    And there is 1 process of rbee-hive
    And the hive's log says that no queen was heard for 6 seconds

  @B67
  Scenario: A queen that is back in time finds its workers unchanged, and starts none twice
    Given the hive waits 20 seconds for a queen
    And a queen and a hive that it did not start
    And a worker of that hive
    When the queen-rbee is killed
    And the operator runs "rbee-keeper daemon start"
    And the operator runs "rbee-keeper infer --model bee --prompt hello --max-tokens 4"
    Then the exit code is 0
    And the keeper says "is warm"
    And the worker of that hive is the same process as before
    And the hive has started 1 worker in all

  @B67
  Scenario: Workers keep running after a queen is back in time
    Given the hive waits 10 seconds for a queen
    And a queen and a hive that it did not start
    And a worker of that hive
    When the queen-rbee is killed
    And the operator runs "rbee-keeper daemon start"
    Then the worker of that hive still serves 12 seconds later
    And the hive has started 1 worker in all

  @B68
  Scenario: The workers of a killed hive end with it, and the next request is answered
    Given a running queen
    And a worker for bee on localhost
    When the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    And there are no workers within 5 seconds
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 0
    And there is 1 worker

  @B68
  Scenario: A hive that is killed during an answer ends the answer with an error
    Given bee writes 20 tokens per second
    And a running queen
    And a worker for bee on localhost
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    And it ends with code 1 within 10 seconds
    And the keeper says "WORKER_CRASHED"
    And the keeper names a file with the partial answer
