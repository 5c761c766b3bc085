@process
Feature: Failures are reported while they happen
  A person who waits for an answer sees what goes wrong at once,
  with numbers and with the next step.

  Background:
    Given a machine with the model "bee"

  @B37
  Scenario: A download that fails is reported attempt by attempt
    Given a model hub with a model of 3 MiB
    And the hub closes the connection at 10 percent of the file 99 times
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model hf:bees/tiny-GGUF --prompt hello"
    Then the exit code is 1
    And the keeper reports 6 download attempts in order, each with its reason
    And the keeper says "DOWNLOAD_FAILED"
    And the keeper says "failed 7 times"
    And the keeper says "the download resumes where it stopped"
    And there are 0 processes of llm-worker-rbee

  @B38
  Scenario: A GPU with too little memory is refused with required memory, free memory and advice
    Given two GPUs of 8192 MB with 8190 MB in use
    And bee is a file of 4 MiB
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And it took less than 5 seconds
    And the keeper says "VRAM_EXHAUSTED"
    And the keeper says that more than 2 MB are needed and 2 MB are free
    And the keeper says "smaller quantisation"
    And the keeper says "--backend cpu"
    And there are 0 processes of llm-worker-rbee

  @B42
  Scenario: A model that takes too long to load is reported layer by layer, then stopped
    Given loading bee stops after 28 of 32 layers
    And the hive gives a worker 2 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper reports in this order
      | what                        |
      | started worker worker       |
      | is loading                  |
      | 28 of 32 layers             |
      | within 2 s                  |
      | had reached 28 of 32 layers |
      | LOADING_TIMEOUT             |
      | loading_timeout_s           |
    And the keeper names the worker's log file
    And there are 0 processes of llm-worker-rbee

  @B43
  Scenario: A hive of another version is reported with both versions and the command that upgrades it
    Given the hive program is of version 9.9.0
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper says "VERSION_MISMATCH"
    And the keeper says "9.9.0"
    And the keeper says its own version
    And the keeper says "rbee-keeper hive upgrade --node localhost"
    And there are 0 processes of llm-worker-rbee

  Scenario: A client whose requests ended three workers is kept from the model
    Given the worker of bee crashes at the first token
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    And the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    And the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper says "WORKER_CRASHED"
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And it took less than 3 seconds
    And the keeper says "QUARANTINED"
    And the keeper says "3 workers crashed while its requests ran"
    And the keeper says "rbee-keeper worker start --node"
    When the operator runs "rbee-keeper worker list"
    Then the keeper says "is quarantined"
