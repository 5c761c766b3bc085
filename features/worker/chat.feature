@process
Feature: A model is spoken to in its own words
  Whatever a model's chat template and its forms of thoughts and calls are,
  clients send and get what they know.

  @B72
  Scenario Outline: A template takes every conversation
    When the template of <model> renders the six conversations
    Then no text of them is lost, and those of users, assistants and tools are in their order

    Examples: of models that refuse or drop what others take
      | model                                |
      | google-gemma-2-2b-it                 |
      | mistralai-Mistral-Nemo-Instruct-2407 |
      | meta-llama-Llama-3.1-8B-Instruct     |
      | openai-gpt-oss-120b                  |
      | deepseek-ai-DeepSeek-V3.1            |

  @B73 @B74
  Scenario Outline: Thought, text and call come out apart in every interface
    Given a machine with the model "bee"
    And bee answers as <model> does, with a thought and a call
    And a running hive
    And a worker of that hive for bee
    When clients of chats, messages and responses ask for an answer, as a stream and at once
    Then each of them gets the thought, the text and the call, each in its place

    Examples: of forms
      | model                     |
      | Qwen-Qwen3-0.6B           |
      | openai-gpt-oss-120b       |
      | deepseek-ai-DeepSeek-V3.1 |
      | GLM-4.6                   |

  @B74
  Scenario: A thought ends where its budget does
    Given a machine with the model "bee"
    And bee answers as Qwen-Qwen3-0.6B does, with a thought without end
    And a running hive
    And a worker of that hive for bee
    When a client of messages asks for a thought of 10 tokens at most
    Then the thought has 10 words at most, and text follows it

  @B76
  Scenario: What no model understands is left out and named
    Given a machine with the model "bee"
    And a running queen
    When a client of responses offers the queen's "bee" a web search, and tells of one in its history
    Then it gets an answer whose header "X-Rbee-Ignored" names "tools: web_search" and "input.0: web_search_call"

  @B80
  Scenario: A model without sight refuses an image
    Given a machine with the model "bee"
    And a running hive
    And a worker of that hive for bee
    When clients of chats, messages and responses send an image
    Then each of them is refused with a message that says that the model reads text only

  @B81
  Scenario: A conversation that is too long is refused in the words that clients know
    Given a machine with the model "bee"
    And a running hive
    And a worker of that hive for bee
    When clients of chats, messages and responses send 10000 words
    Then each of them is refused with the code "context_length_exceeded" and "maximum context length is 2048 tokens"
