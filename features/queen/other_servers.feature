@process
Feature: Clients of other servers
  Programs that were made for Ollama or for llama-server find what they know.

  Background:
    Given a machine with the model "bee"
    And a running queen

  @B77
  Scenario: The list of models says what a program must know of each
    When OpenAI's client chats with the queen's "bee" for 5 tokens
    Then the queen's list says that "bee" is loaded, takes 2048 tokens and can do "completion"

  @B78
  Scenario: A client of Ollama's chats, and is told what is not heeded
    Given a worker for bee on localhost
    When a client of Ollama's streams a chat with "bee:latest" of 5 tokens and a context of 9000
    Then it gets 5 lines and one that says "length"; its header "X-Rbee-Ignored" names "options.num_ctx"

  @B78
  Scenario: A client of Ollama's looks for models, and unloads one
    Given a worker for bee on localhost
    When a client of Ollama's lists what is there and what runs, and unloads "bee"
    Then it has seen "bee" in both, and there are no workers

  @B78
  Scenario: A client of Ollama's is refused in the form that it reads
    When a client of Ollama's chats with "wasp"
    Then it gets status 404 and a text at "error" that names "wasp"

  @B79
  Scenario: A client of llama-server's loads a model, asks about it and unloads it
    When a client of llama-server's loads "bee" and waits until its status says so
    Then it can read the tokens of a text, a prompt, the properties and the slots of "bee"
    And after it has unloaded "bee" there are no workers
