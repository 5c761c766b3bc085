@process
Feature: Presets and fallbacks
  One model has several names, each with defaults of its own for what a request does not say.
  Where a model cannot be served, another one answers that the operator has named for it.

  Background:
    Given a machine with the model "bee"
    And a running queen

  @B87
  Scenario: A preset fills in what a request does not say
    When the operator runs "rbee-keeper models serve chat --model bee --preset chat-short:max_tokens=3"
    And OpenAI's client chats with the queen's "chat-short" and says nothing else
    Then the client gets an answer of 3 tokens that ends with "length"
    When OpenAI's client chats with the queen's "chat-short" for 5 tokens
    Then the client gets an answer of 5 tokens that ends with "length"
    And there is 1 worker

  @B87
  Scenario: A preset is asked for on the command line
    When the operator runs "rbee-keeper models serve chat --model bee --preset chat-short:max_tokens=3"
    And the operator runs "rbee-keeper infer --model chat-short --prompt hello"
    Then the exit code is 0
    And the keeper says "3 tokens"

  @B87
  Scenario: A fallback answers, and the client is told which
    When the operator runs "rbee-keeper models serve small --model bee"
    And the operator runs "rbee-keeper models serve big --model bee --backend cuda --fallback small"
    And a client asks for "big"
    Then it is answered by "small", which the header "X-Rbee-Fallback" names too
    When the operator runs "rbee-keeper infer --model big --prompt hello"
    Then the exit code is 0
    And the keeper says "big cannot be served now"
    And the keeper says "using small instead"

  @B87
  Scenario: A fallback answers also a key that may not ask for it by name
    Given a key for the client "guest" with "--model big"
    When the operator runs "rbee-keeper models serve small --model bee"
    And the operator runs "rbee-keeper models serve big --model bee --backend cuda --fallback small"
    And the client "guest" chats with "big"
    Then the client is answered
    When the client "guest" chats with "small"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "big"
