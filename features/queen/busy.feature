@process
Feature: More requests than slots
  Whoever comes to a busy worker is told so, waits a little,
  and is told what to do if it stays busy.

  Background:
    Given a machine with the fake engine
    And workers have 1 slot

  @B11
  Scenario: A busy worker is tried, and answers when its slot is free
    Given the fake engine gives 20 tokens per second
    And a running queen
    And a worker for the fake model on localhost
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 30"
    And some tokens have come
    And another operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 0
    And standard error says "busy"
    And there is 1 worker

  @B35 @B41
  Scenario: A worker that stays busy is given up after three retries, each said
    Given the fake engine gives 5 tokens per second
    And a running queen
    And a worker for the fake model on localhost
    When the operator starts "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 400"
    And some tokens have come
    And another operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 4"
    Then the exit code is 1
    And standard error says "ALL_SLOTS_BUSY"
    And standard error tells of 3 retries with the slots in use
    And standard error gives the next step
