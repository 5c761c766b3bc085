@process
Feature: An answer that is interrupted
  A person who stops an answer, or loses one, is told so,
  keeps the text so far, and gets the slot back.

  Background:
    Given a machine with the model "bee"
    And bee writes 20 tokens per second

  @B40
  Scenario: Ctrl-C cancels the answer, waits for the acknowledgement and frees the slot
    Given a running queen
    And a worker for bee on localhost
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And the operator presses Ctrl-C
    Then it ends with code 130 within 5 seconds
    And the keeper says "acknowledged"
    And every slot is free within 2 seconds

  @B40 @B51
  Scenario: Ctrl-C during a cold start stops everything that it had started
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And the operator presses Ctrl-C
    Then it ends with code 130 within 10 seconds
    And no process of rbee is left within 2 seconds

  Scenario Outline: No process outlives its killed parent
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And <program> is killed
    Then <children> are gone within 2 seconds

    Examples:
      | program         | children                                   |
      | the rbee-keeper | the queen-rbee, rbee-hive, llm-worker-rbee |
      | the queen-rbee  | the rbee-hive, llm-worker-rbee             |
      | the rbee-hive   | the llm-worker-rbee                        |

  @B39
  Scenario: A worker that crashes during an answer leaves the partial answer and its token count
    Given a running queen
    And a worker for bee on localhost
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And the llm-worker-rbee is killed
    Then it ends with code 1 within 10 seconds
    And the keeper says "WORKER_CRASHED"
    And the keeper says "of 400 tokens"
    And the keeper names a file with the partial answer
    And there are no workers within 5 seconds
    And the hive's log reports the end of the worker
