@process
Feature: A wish is checked before a worker is started
  Nobody gets a slower answer than asked for,
  or a worker that dies of too little memory.

  Background:
    Given a machine with the fake engine

  @B23 @B25
  Scenario: Enough memory and a backend that is there
    Given a running queen
    When the operator runs "rbee-keeper worker start --node localhost --model {model} --backend cpu"
    Then the exit code is 0

  @B24 @B22
  Scenario: Too little memory is said with need, have and advice
    Given a running queen
    And a model file whose header asks for more memory than there is
    When the operator runs "rbee-keeper worker start --node localhost --model {model}"
    Then the exit code is 1
    And standard error says "RAM_EXHAUSTED"
    And standard error gives need and have in MB
    And standard error says "smaller quantisation"
    And there are 0 processes of llm-worker-rbee

  @B26
  Scenario: A backend that is not there fails fast and names what is there
    Given a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --backend cuda"
    Then the exit code is 1
    And it took less than 5 seconds
    And standard error says "cpu"
    And standard error says "--backend cpu"
    And there are 0 processes of llm-worker-rbee

  @B26
  Scenario: A device that is not there fails fast and names the devices there are
    Given a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --backend cpu --device 5"
    Then the exit code is 1
    And standard error says "INVALID_DEVICE"
    And there are 0 processes of llm-worker-rbee
