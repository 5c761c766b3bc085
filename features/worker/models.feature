@engine
Feature: What a worker can run
  A GGUF file of any common quantisation is recognised by its content,
  and any other file is refused before a worker is started.

  @B19 @B20
  Scenario: The metadata of a model is read from its file
    Given a machine with a running queen
    When the operator runs "rbee-keeper models pull --node localhost demo"
    And the operator runs "rbee-keeper models show --node localhost demo --json"
    Then the model has a vocabulary of 49152, end token 2, quantisation Q4_1, 30 layers and a context of 8192

  @B21
  Scenario Outline: Models of several quantisations load and answer
    Given a machine
    And the demo model quantised as <quantisation> is called "bee"
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello --max-tokens 8"
    Then the exit code is 0
    And the answer has at least 1 words

    Examples:
      | quantisation |
      | Q4_1         |
      | Q8_0         |

  @B19
  Scenario Outline: A file that is not a complete GGUF file is refused with its name
    Given a machine with a running queen
    And bee is a file that is <fault>
    When the operator runs "rbee-keeper infer --node localhost --model bee --prompt hello"
    Then the exit code is 1
    And the keeper says "<code>"
    And the keeper names the model file
    And there are 0 processes of llm-worker-rbee

    Examples:
      | fault     | code            |
      | not GGUF  | MODEL_INVALID   |
      | empty     | MODEL_INVALID   |
      | truncated | MODEL_INVALID   |
      | missing   | MODEL_NOT_FOUND |

  Scenario: A prompt that is longer than the context is refused at once
    Given a machine with a running queen
    And a worker for "demo" on localhost
    When the operator runs the demo model with a prompt of 60000 words
    Then the exit code is 1
    And the keeper says "context_length_exceeded"
    And the keeper says "context"
