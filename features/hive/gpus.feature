Feature: A GPU is used, or the request fails
  A request for a GPU gets a GPU or an error with the reason,
  never a slow answer from the CPU.

  @process @B26
  Scenario Outline: A GPU driver that does not work is reported within seconds, and the CPU is not used instead
    Given a machine with the model "bee"
    And two GPUs whose driver <fault>
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And it took less than 15 seconds
    And the keeper says "GPU_NOT_AVAILABLE"
    And the keeper says "<reason>"
    And the keeper says "--backend cpu"
    And there are 0 processes of llm-worker-rbee
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --backend cpu"
    Then the exit code is 0

    Examples:
      | fault                                | reason                    |
      | hangs                                | did not answer within 2 s |
      | fails                                | Unknown Error             |
      | has another version than its library | reboot after an update    |

  @process @B26
  Scenario: A GPU index that does not exist is refused with the indexes that do
    Given a machine with the model "bee"
    And two GPUs of 24576 MB with 512 MB in use
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --backend cuda --device 2"
    Then the exit code is 1
    And the keeper says "INVALID_DEVICE"
    And the keeper says "0, 1"
    And there are 0 processes of llm-worker-rbee

  @engine @B26
  Scenario: A GPU that llama.cpp cannot use is an error, never a worker on the CPU
    Given a machine
    And a llama.cpp without CUDA
    And two GPUs of 24576 MB with 512 MB in use
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --backend cuda"
    Then the exit code is 1
    And it took less than 5 seconds
    And the keeper says "CUDA_DEVICE_FAILED"
    And the keeper says "built without GPU support"
    And the keeper says "--backend cpu"
    And no worker has loaded the model
    And there are 0 processes of llm-worker-rbee
