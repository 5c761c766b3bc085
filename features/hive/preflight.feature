@process
Feature: A request is checked before a worker is started
  Nobody gets a slower answer than they asked for,
  or a worker that runs out of memory.

  Background:
    Given a machine with the model "bee"

  @B23 @B25
  Scenario: A worker starts where memory and backend are available
    Given a running queen
    When the operator runs "rbee-keeper worker start --node localhost --model bee --backend cpu"
    Then the exit code is 0

  @B24 @B22
  Scenario: Too little memory is refused with required memory, free memory and advice
    Given a running queen
    And bee needs more memory than there is
    When the operator runs "rbee-keeper worker start --node localhost --model bee"
    Then the exit code is 1
    And the keeper says "RAM_EXHAUSTED"
    And the keeper says how many MB are needed and how many are free
    And the keeper says "smaller quantisation"
    And there are 0 processes of llm-worker-rbee

  @B26
  Scenario: A missing backend is refused at once with the backends that the machine has
    Given a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --backend cuda"
    Then the exit code is 1
    And it took less than 5 seconds
    And the keeper says "BACKEND_UNAVAILABLE"
    And the keeper says "it has cpu"
    And the keeper says "--backend cpu"
    And there are 0 processes of llm-worker-rbee

  @B26
  Scenario: A missing device is refused at once with the devices that the machine has
    Given a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --backend cpu --device 5"
    Then the exit code is 1
    And it took less than 5 seconds
    And the keeper says "INVALID_DEVICE"
    And the keeper says "its cpu devices are 0"
    And there are 0 processes of llm-worker-rbee
