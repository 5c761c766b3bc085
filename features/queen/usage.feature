@process
Feature: What clients use, and what operators do
  An operator who shares machines sees who uses them for what, and can say who did what.

  Background:
    Given a machine with the model "bee"
    And a running queen

  @B97
  Scenario: The operator sees what each client has used
    Given a key for the client "guest"
    And a key for the client "friend"
    When the client "guest" chats with "bee"
    And the client "friend" chats with "bee"
    And the client "friend" chats with "bee"
    Then the usage of the client "guest" is 1 request and 5 answer tokens of "bee"
    And the usage of the client "friend" is 2 requests and 10 answer tokens of "bee"
    When the operator runs "rbee-keeper usage --by client"
    Then the exit code is 0
    And the output shows "guest"
    And the output shows "friend"
    And the output shows "total"

  @B97
  Scenario: A client sees its own usage, and nobody else's
    Given a key for the client "guest"
    And a key for the client "friend"
    When the client "friend" chats with "bee"
    And the client "guest" chats with "bee"
    Then the usage of the client "friend" is 1 request and 5 answer tokens of "bee"
    And the client "guest" sees only its own usage
    When the client "guest" asks for the usage of "friend"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"

  @B97
  Scenario: What was used is still known after the queen was started anew
    Given a key for the client "guest"
    When the client "guest" chats with "bee"
    Then the usage of the client "guest" is 1 request and 5 answer tokens of "bee"
    When the queen is started anew
    Then the usage of the client "guest" is 1 request and 5 answer tokens of "bee"

  @B97
  Scenario: The time of a device that requests take is told
    Given a key for the client "guest"
    When the client "guest" chats with "bee"
    Then the usage of the client "guest" has seconds of a device

  @B97
  Scenario: What an operator does, and what a client is refused, is audited
    Given a key for the client "guest"
    When the client "guest" chats with "file:///etc/hostname"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"
    And the audit names "/v2/keys/add" by "operator" with the status 201
    And the audit names "/v1/chat/completions" by "guest" with the status 403
