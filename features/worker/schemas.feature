@engine
Feature: An answer is held to a schema
  A model that thinks does so first.

  @B75
  Scenario: A thought comes before the schema holds
    Given the real model with the chat template of Qwen-QwQ-32B
    When a client asks it for a city in JSON, with a thought of 12 tokens at most
    Then the thought is no JSON, and the answer fits the schema
