@process
Feature: A worker's model calls tools
  Who writes an agent sees which tool is called as soon as the model has named it,
  and the arguments while they are written.

  Background:
    Given a machine with the fake engine
    And the fake engine calls the tool "weather" for "Paris"

  Scenario: A call is told while it is written
    Given a running hive
    And a worker of that hive for the fake model
    When OpenAI's client follows a chat with the tool "weather"
    Then the client knows the tool "weather" before its arguments
    And the arguments come in several pieces, which together say that "city" is "Paris"
    And the answer ended with "tool_calls"

  Scenario: A call that is cut off is said to be
    Given a running hive
    And a worker of that hive for the fake model
    When OpenAI's client follows a chat with the tool "weather" for 5 tokens
    Then the client knows the tool "weather" before its arguments
    And the answer ended with "length"

  Scenario: A client of the queen sees the same
    Given the fake model is called "bee"
    And a running queen
    When OpenAI's client follows a call of "weather" by the queen's "bee"
    Then the arguments come in several pieces, which together say that "city" is "Paris"
    And the answer ended with "tool_calls"
