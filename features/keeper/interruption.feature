@process
Feature: An answer that is broken off
  Whoever stops an answer, or loses one, is told so,
  keeps what came, and gets the slot back.

  Background:
    Given a machine with the fake engine
    And the fake engine gives 20 tokens per second

  @B40
  Scenario: Ctrl-C cancels, waits for the acknowledgement and frees the slot
    Given a running queen
    And a worker for the fake model on localhost
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And the operator presses Ctrl-C
    Then it ends with code 130 within 5 seconds
    And standard error says "cancel"
    And every slot is free within 2 seconds

  @B40 @B51
  Scenario: Ctrl-C in a cold start takes everything down that it had started
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And the operator presses Ctrl-C
    Then it ends with code 130 within 10 seconds
    And no process of rbee is left within 2 seconds

  Scenario Outline: Nothing outlives a parent that is killed
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And <program> is killed
    Then <children> are gone within 2 seconds

    Examples:
      | program         | children                                    |
      | the rbee-keeper | the queen-rbee, rbee-hive, llm-worker-rbee  |
      | the queen-rbee  | the rbee-hive, llm-worker-rbee              |
      | the rbee-hive   | the llm-worker-rbee                         |

  @B39
  Scenario: A worker that crashes in mid-stream leaves the partial text and its counts
    Given a running queen
    And a worker for the fake model on localhost
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And the llm-worker-rbee is killed
    Then it ends with code 1 within 10 seconds
    And standard error says "WORKER_CRASHED"
    And standard error says "of 400 tokens"
    And standard error names a file with the partial text
    And there are no workers within 5 seconds
    And the log of the hive tells of the worker's end
