@process
Feature: A failure is told while it happens
  Whoever waits for an answer sees what goes wrong as it goes wrong,
  with figures, and with the next thing to do.

  Background:
    Given a machine with the fake engine

  @B37
  Scenario: A download that fails is told attempt by attempt
    Given a model hub with a model of 3 MiB
    And the hub breaks off the file at 10 percent 99 times
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {hub_model} --prompt hello"
    Then the exit code is 1
    And standard error tells of 6 download attempts in order, each with its reason
    And standard error says "DOWNLOAD_FAILED"
    And standard error says "failed 7 times"
    And standard error says "running again resumes"
    And there are 0 processes of llm-worker-rbee

  @B38
  Scenario: A GPU with too little memory is told with what is needed, what is there, and advice
    Given two GPUs of 8192 MB with 8190 MB in use
    And a model file of 4 MiB
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And it took less than 5 seconds
    And standard error says "VRAM_EXHAUSTED"
    And standard error says that more than 2 MB are needed and 2 MB are there
    And standard error says "smaller quantisation"
    And standard error says "--backend cpu"
    And there are 0 processes of llm-worker-rbee

  @B42
  Scenario: A model that takes too long to load is told layer by layer, then given up
    Given the fake engine hangs after 28 of 32 layers
    And the hive gives a worker 2 seconds to load
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And standard error tells in order
      | what                        |
      | started worker worker       |
      | is loading                  |
      | 28 of 32 layers             |
      | within 2 s                  |
      | had reached 28 of 32 layers |
      | LOADING_TIMEOUT             |
      | loading_timeout_s           |
    And standard error names the log of the worker
    And there are 0 processes of llm-worker-rbee

  @B43
  Scenario: A hive of another version is told with both versions and the command that upgrades it
    Given the hive program is of version 9.9.0
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And standard error says "VERSION_MISMATCH"
    And standard error says "9.9.0"
    And standard error says this version of rbee
    And standard error says "rbee-keeper hive upgrade --node localhost"
    And there are 0 processes of llm-worker-rbee

  Scenario: A model that crashes every worker is not tried for ever
    Given the fake engine dies at the first token
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    And the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    And the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And standard error says "WORKER_CRASHED"
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And it took less than 3 seconds
    And standard error says "QUARANTINED"
    And standard error says "3 workers crashed in a row"
    And standard error says "rbee-keeper worker start --node localhost"
    When the operator runs "rbee-keeper worker list"
    Then standard error says "is quarantined"
