@process
Feature: A worker reranks documents
  A search program sends a question and the documents that it found,
  and gets them back with the best answer first.

  Background:
    Given a machine with the model "bee"

  Scenario: The best documents come first
    Given bee is a model for reranking
    And a running hive
    And a worker of that hive for bee
    When a client reranks "wasps sting", "bees dance" and "honey is made by bees" for "bees honey"
    Then document 2 is first, then document 1

  Scenario: A model for chat does not rerank
    Given a running hive
    And a worker of that hive for bee
    When a client reranks "wasps", "bees" and "honey" for "bees"
    Then the client gets status 400 and an error that names the field "model"

  Scenario: A model for reranking does not chat
    Given bee is a model for reranking
    And a running hive
    And a worker of that hive for bee
    When OpenAI's client asks for a chat
    Then the client gets status 400 and an error that names the field "model"
