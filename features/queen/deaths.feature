@process
Feature: A daemon dies without a word
  Whoever pulls a plug finds nothing running that nobody answers for,
  and loses nothing that somebody still does.

  Background:
    Given a machine with the fake engine

  @B67
  Scenario: Workers are stopped when no queen is heard for long enough, and the hive stays
    Given the hive waits 3 seconds for a queen
    And a queen with a hive that is not her child
    And a worker of that hive
    When the queen-rbee is killed
    Then the worker of that hive still serves 1 second later
    And the llm-worker-rbee are gone within 5 seconds
    And there is 1 process of rbee-hive
    And the log of the hive tells that no queen was heard for 3 seconds

  @B67
  Scenario: A queen that is back in time finds her workers as they were, and starts none twice
    Given the hive waits 20 seconds for a queen
    And a queen with a hive that is not her child
    And a worker of that hive
    When the queen-rbee is killed
    And the operator runs "rbee-keeper daemon start"
    And the operator runs "rbee-keeper infer --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 0
    And standard error says "is warm"
    And the worker of that hive is the same process as before
    And the hive has started 1 worker in all

  @B67
  Scenario: A fence that was lifted in time stays lifted
    Given the hive waits 10 seconds for a queen
    And a queen with a hive that is not her child
    And a worker of that hive
    When the queen-rbee is killed
    And the operator runs "rbee-keeper daemon start"
    Then the worker of that hive still serves 12 seconds later
    And the hive has started 1 worker in all

  @B68
  Scenario: A hive that is killed takes its workers along, and the next request is answered
    Given a running queen
    And a worker for the fake model on localhost
    When the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    And there are no workers within 5 seconds
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 0
    And there is 1 worker

  @B68
  Scenario: A hive that is killed in mid-answer ends the answer in words
    Given the fake engine gives 20 tokens per second
    And a running queen
    And a worker for the fake model on localhost
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And the rbee-hive is killed
    Then the llm-worker-rbee are gone within 2 seconds
    And it ends with code 1 within 10 seconds
    And standard error says "WORKER_CRASHED"
    And standard error names a file with the partial text
