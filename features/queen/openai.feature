@process
Feature: One address for all models
  Who writes a program with OpenAI's own client knows one address and one key;
  which machine answers is not their concern.

  Background:
    Given a machine with the fake engine
    And the fake model is called "bee"

  Scenario: A model that is not loaded is loaded, and its answer comes
    Given a running queen
    When OpenAI's client chats with the queen's "bee" for 5 tokens
    Then the client has 5 tokens of an answer, which ended by its length
    And there is 1 worker

  Scenario: A client that can reach the worker gets its answer from there
    Given a running queen
    And a worker for the fake model on localhost
    When OpenAI's client asks the queen's "bee" for the direct way, for 5 tokens
    Then the client has 5 tokens of an answer, which ended by its length
    And no answer has passed through the queen

  Scenario: A waiting client is told what it waits for
    Given the fake engine takes 3 seconds to load
    And a running queen
    When a client follows a chat with the queen's "bee"
    Then it is told of the load before the first token

  Scenario: The models are listed by the names that requests may use
    Given a running queen
    And a worker for the fake model on localhost
    When OpenAI's client lists the queen's models
    Then "bee" is one of them

  Scenario: A model that nobody knows is named, with those that there are
    Given a running queen
    When OpenAI's client chats with the queen's "wasp" for 5 tokens
    Then the client is told 404, and that there is "bee"

  Scenario: A worker that dies in the middle is an error, never half an answer
    Given the fake engine dies after 7 tokens
    And a running queen
    When OpenAI's client follows a chat with the queen's "bee"
    Then the client raises an error that says "broke off"
