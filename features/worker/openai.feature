@process
Feature: A worker serves OpenAI's and Anthropic's clients
  A program with OpenAI's or Anthropic's own client
  works with the address of a worker.

  Background:
    Given a machine with the model "bee"
    And a running hive
    And a worker of that hive for bee

  Scenario: A chat is answered
    When OpenAI's client chats with it for 5 tokens
    Then the client gets an answer of 5 tokens that ends with "length"

  Scenario: A chat is streamed
    When OpenAI's client streams a chat of 5 tokens
    Then the client gets an answer of 5 tokens that ends with "length"

  Scenario: A chat of Anthropic's client is answered
    When Anthropic's client chats with it for 5 tokens
    Then the client gets an answer of 5 tokens that ends with "length"

  Scenario Outline: An impossible request is refused with the field that is wrong
    When OpenAI's client asks for <something impossible>
    Then the client gets status 400 and an error that names the field "<field>"

    Examples:
      | something impossible           | field                 |
      | a thousand answers             | n                     |
      | an empty grammar               | grammar               |
      | a tool that has no name        | tools.0.function.name |
      | a schema that is nested deeply | response_format       |
      | an unknown token               | logit_bias            |
      | an embedding                   | model                 |
