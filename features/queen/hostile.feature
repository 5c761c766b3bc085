@process
Feature: Hostile clients
  Somebody with a key, or without one, sends requests that are made to harm.
  Nothing stops, stalls or fills up, and everybody else is answered.

  Background:
    Given a machine with the model "bee"
    And a running queen
    And a key for the client "eve"
    And a key for the client "guest"

  @B98
  Scenario Outline: A request that is made to harm ends at once, and others are answered
    When the client "eve" sends <request>
    Then the hostile client gets "<answer>" within 20 seconds
    When the client "guest" chats with "bee"
    Then the client is answered
    And there is 1 worker

    Examples:
      | request                            | answer                      |
      | a body with a million wrong values | 413 PAYLOAD_TOO_LARGE       |
      | a body with 350000 unknown keys    | 413 PAYLOAD_TOO_LARGE       |
      | a body that is nested deeply       | 413 PAYLOAD_TOO_LARGE       |
      | a reference of its own             | 403 FORBIDDEN               |
      | a prompt longer than any context   | 400 context_length_exceeded |

  @B98
  Scenario: Half-sent requests keep nobody out
    When the client "eve" holds 300 connections open with half a request each
    And the client "guest" chats with "bee"
    Then the client is answered

  @B98
  Scenario: Long paths of strangers write little into the log
    When a stranger asks 200 times for a path of 60000 letters
    Then the log of the queen has grown by less than 100000 bytes
    When the client "guest" chats with "bee"
    Then the client is answered
