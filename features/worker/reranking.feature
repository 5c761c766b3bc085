@process
Feature: A worker sorts documents by a question
  Who searches hands over a question and what was found,
  and has the documents that answer it first.

  Background:
    Given a machine with the fake engine

  Scenario: The documents come the best first
    Given the fake engine ranks documents
    And a running hive
    And a worker of that hive for the fake model
    When a client has "wasps sting", "bees dance" and "honey is made by bees" sorted by "bees honey"
    Then the client has document 2 first, then 1

  Scenario: A model that was made to write sorts nothing
    Given a running hive
    And a worker of that hive for the fake model
    When a client has "wasps", "bees" and "honey" sorted by "bees"
    Then the client is refused with 400, and the field "model" is named

  Scenario: A model that was made to sort writes nothing
    Given the fake engine ranks documents
    And a running hive
    And a worker of that hive for the fake model
    When OpenAI's client asks for a chat
    Then the client is refused with 400, and the field "model" is named
