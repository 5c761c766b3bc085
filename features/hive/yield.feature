@process @B90
Feature: A device is given to another program for a while
  The owner of a machine wants its GPU for a game, or for another program:
  the models leave it, requests go elsewhere or wait, and the device comes back by itself.

  Background:
    Given a machine with the model "bee"

  Scenario: A device is emptied while a request runs, and given back by a command
    Given bee writes 20 tokens per second
    And a running queen
    When the operator starts "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 120"
    And the first tokens have arrived
    And the operator runs "rbee-keeper hive yield --node localhost --for 2h"
    Then the exit code is 0
    And the output shows "is yielded to another program until"
    And the output shows "1 worker stopped"
    And there are 0 processes of llm-worker-rbee
    And it ends with code 0 within 5 seconds
    And the answer has at least 40 words
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper says "DEVICE_YIELDED"
    And the keeper says "rbee-keeper hive resume --node localhost"
    When the operator runs "rbee-keeper hive status --node localhost"
    Then the keeper says "cpu device 0 is yielded to another program until"
    When the operator runs "rbee-keeper hive resume --node localhost"
    Then the output shows "cpu device 0 is used again"
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 0

  Scenario: A device comes back when its time is over
    Given a running queen
    When the operator runs "rbee-keeper hive yield --node localhost --for 3s"
    Then the exit code is 0
    And no device is yielded within 10 seconds
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 0

  Scenario: A device stays yielded when its hive is killed
    Given a running queen
    When the operator runs "rbee-keeper hive yield --node localhost"
    Then the output shows "yielded to another program until it is resumed"
    When the rbee-hive is killed
    And the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper says "DEVICE_YIELDED"

  Scenario: One of two GPUs is yielded, and the other is used
    Given two GPUs of 24576 MB with 512 MB in use
    And a running queen
    When the operator runs "rbee-keeper hive yield --node localhost --device 0"
    Then the output shows "cuda device 0"
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 0
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --backend cuda --device 0"
    Then the exit code is 1
    And the keeper says "DEVICE_YIELDED"

  Scenario: A program that takes the memory of a GPU is named
    Given two GPUs of 24576 MB with 512 MB in use
    And another program holds 24000 MB of each GPU
    And a running queen
    And bee needs more memory than there is
    When the operator runs "rbee-keeper worker start --node localhost --model bee --backend cuda"
    Then the exit code is 1
    And the keeper says "VRAM_EXHAUSTED"
    And the keeper says "other programs hold 24000 MB, the most"
    When the operator runs "rbee-keeper hive status --node localhost"
    Then the keeper says "foreign 25.2 GB"
