@process
Feature: More requests than slots
  A person who finds a worker busy is told so, waits a little,
  and gets advice if it stays busy.

  Background:
    Given a machine with the model "bee"
    And workers have 1 slot

  @B11
  Scenario: A busy worker is tried again, and answers when its slot is free
    Given bee writes 20 tokens per second
    And a running queen
    And a worker for bee on localhost
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 70"
    And the first tokens have arrived
    And another operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 0
    And the keeper says "all slots are busy (1 of 1)"
    And there is 1 worker

  @B35 @B41
  Scenario: A request to a worker that stays busy fails after three reported retries
    Given bee writes 5 tokens per second
    And a running queen
    And a worker for bee on localhost
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 400"
    And the first tokens have arrived
    And another operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 4"
    Then the exit code is 1
    And the keeper says "ALL_SLOTS_BUSY"
    And the keeper reports 3 retries, each with the slots in use
    And the keeper says "rbee-keeper worker start --node localhost"
