Feature: A GPU is used, or the request fails
  Whoever asks for a GPU gets a GPU or a reason,
  and never a slow answer from the CPU.

  @process @B26
  Scenario Outline: A driver that does not work is told within seconds, and nothing falls back
    Given a machine with the fake engine
    And two GPUs whose driver <fault>
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And it took less than 15 seconds
    And standard error says "GPU_NOT_AVAILABLE"
    And standard error says "<reason>"
    And standard error says "--backend cpu"
    And there are 0 processes of llm-worker-rbee
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --backend cpu"
    Then the exit code is 0

    Examples:
      | fault                                   | reason                          |
      | hangs                                   | did not answer within 2 s       |
      | fails                                   | Unknown Error                   |
      | has another version than its library    | reboot after an update          |

  @process @B26
  Scenario: A GPU too many names the ones there are
    Given a machine with the fake engine
    And two GPUs of 24576 MB with 512 MB in use
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --backend cuda --device 2"
    Then the exit code is 1
    And standard error says "INVALID_DEVICE"
    And standard error says "0, 1"
    And there are 0 processes of llm-worker-rbee

  @engine @B26
  Scenario: A GPU that the machine has and llama.cpp cannot use is an error, never a worker on the CPU
    Given a machine
    And a llama.cpp without CUDA
    And two GPUs of 24576 MB with 512 MB in use
    And a running queen
    When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --backend cuda"
    Then the exit code is 1
    And it took less than 5 seconds
    And standard error says "CUDA_DEVICE_FAILED"
    And standard error says "built without support for GPUs"
    And standard error says "--backend cpu"
    And no worker has been on the CPU
    And there are 0 processes of llm-worker-rbee
