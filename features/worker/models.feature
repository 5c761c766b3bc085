@engine
Feature: What a worker can run
  A GGUF file of any common quantisation is recognised by what is in it,
  and anything else is refused by name before it costs anything.

  @B19 @B20
  Scenario: A model file tells what it is
    Given a machine with a running queen
    When the operator runs "rbee-keeper models pull --node localhost demo"
    And the operator runs "rbee-keeper models show --node localhost demo --json"
    Then the model has a vocabulary of 49152, end token 2, quantisation Q4_1, 30 layers and a context of 8192

  @B21
  Scenario Outline: Several quantisations load and answer
    Given a machine
    And the demo model quantised as <quantisation>
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello --max-tokens 8"
    Then the exit code is 0
    And standard output has at least 1 words

    Examples:
      | quantisation |
      | Q4_1         |
      | Q8_0         |

  @B19
  Scenario Outline: A file that is no whole GGUF is refused by name
    Given a machine with a running queen
    And a model file that is <fault>
    When the operator runs "rbee-keeper infer --node localhost --model {model} --prompt hello"
    Then the exit code is 1
    And standard error says "<code>"
    And standard error names the model file
    And there are 0 processes of llm-worker-rbee

    Examples:
      | fault         | code            |
      | no GGUF       | MODEL_INVALID   |
      | empty         | MODEL_INVALID   |
      | truncated     | MODEL_INVALID   |
      | missing       | MODEL_NOT_FOUND |

  Scenario: A prompt that is longer than the context is refused before any work
    Given a machine with a running queen
    And a worker for "demo" on localhost
    When the operator runs the demo model with a prompt of 60000 words
    Then the exit code is 1
    And standard error says "INVALID_REQUEST"
    And standard error says "context"
