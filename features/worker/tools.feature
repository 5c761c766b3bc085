@process
Feature: A model calls tools
  An agent sees which tool is called as soon as the model has named it,
  and the arguments while the model writes them.

  Background:
    Given a machine with the model "bee"
    And bee calls the tool "weather" for "Paris"

  Scenario: A tool call is streamed while the model writes it
    Given a running hive
    And a worker of that hive for bee
    When OpenAI's client streams a chat with the tool "weather"
    Then the client gets the name "weather" before the arguments
    And the arguments come in several pieces and together give "Paris" as "city"
    And the answer ends with "tool_calls"

  Scenario: A tool call that reaches the token limit ends with "length"
    Given a running hive
    And a worker of that hive for bee
    When OpenAI's client streams a chat with the tool "weather" for 5 tokens
    Then the client gets the name "weather" before the arguments
    And the answer ends with "length"

  Scenario: A tool call is streamed through the queen as well
    Given a running queen
    When OpenAI's client asks the queen's "bee" with the tool "weather"
    Then the arguments come in several pieces and together give "Paris" as "city"
    And the answer ends with "tool_calls"
