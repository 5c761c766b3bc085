@process
Feature: A worker speaks with the clients that people have
  Who writes a program with OpenAI's or Anthropic's own client
  points it at a worker, and it works.

  Background:
    Given a machine with the fake engine
    And a running hive
    And a worker of that hive for the fake model

  Scenario: A chat is answered
    When OpenAI's client chats with it for 5 tokens
    Then the client has 5 tokens of an answer, which ended by its length

  Scenario: A chat is answered as it comes
    When OpenAI's client follows a chat of 5 tokens
    Then the client has 5 tokens of an answer, which ended by its length

  Scenario: Anthropic's client is answered
    When Anthropic's client chats with it for 5 tokens
    Then the client has 5 tokens of an answer, which ended by its length

  Scenario Outline: What cannot be is refused in words
    When OpenAI's client asks for <something impossible>
    Then the client is refused with 400, and the field "<field>" is named

    Examples:
      | something impossible          | field          |
      | a thousand answers            | n              |
      | a grammar of nothing          | grammar        |
      | a tool                        | tools          |
      | a schema in a circle          | response_format |
      | a token that is not there     | logit_bias     |
      | an embedding                  | model          |
