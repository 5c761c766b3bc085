@process
Feature: One address for all models
  A program with OpenAI's own client needs one address and one key;
  it need not know which machine answers.

  Background:
    Given a machine with the model "bee"

  Scenario: A model that is not loaded is loaded, and answers
    Given a running queen
    When OpenAI's client chats with the queen's "bee" for 5 tokens
    Then the client gets an answer of 5 tokens that ends with "length"
    And there is 1 worker

  Scenario: A client that can reach the worker is redirected to it
    Given a running queen
    And a worker for bee on localhost
    When OpenAI's client chats with the queen's "bee" for 5 tokens and asks to be redirected
    Then the client gets an answer of 5 tokens that ends with "length"
    And no answer has passed through the queen

  Scenario: A client that waits for a model is told what it waits for
    Given bee takes 3 seconds to load
    And a running queen
    When a client streams a chat with the queen's "bee"
    Then the stream reports the start of the worker before the first token

  Scenario: The models are listed by the names that requests can use
    Given a running queen
    And a worker for bee on localhost
    When OpenAI's client lists the queen's models
    Then "bee" is in the list

  Scenario: An unknown model is refused with the models that there are
    Given a running queen
    When OpenAI's client chats with the queen's "wasp" for 5 tokens
    Then the client gets status 404 and a message that names "bee"

  Scenario: A worker that crashes during an answer is an error, never a shorter answer
    Given the worker of bee crashes after 7 tokens
    And a running queen
    When OpenAI's client streams a chat with the queen's "bee"
    Then the client raises an error that says "broke off"
