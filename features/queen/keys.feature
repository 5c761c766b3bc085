@process
Feature: Keys for people who are not trusted
  An operator gives others a key for what they need.
  Who may only ask can neither choose machines nor make them fetch anything.

  Background:
    Given a machine with the model "bee"
    And a running queen

  @B96
  Scenario: A key uses a declared model, and no other
    Given a key for the client "guest"
    When the client "guest" chats with "bee"
    Then the client is answered
    When the client "guest" chats with "https://host.example/other.gguf"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"
    When the client "guest" chats with "file:///etc/hostname"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"
    And there is 1 worker

  @B96
  Scenario: A key chooses neither machine nor device nor a higher priority
    Given a key for the client "guest"
    When the client "guest" chats with "bee" on the node "localhost"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"
    When the client "guest" chats with "bee" on the device "0"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "operate"
    When the client "guest" chats with "bee" at the priority "5"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "Priority"

  @B96
  Scenario: A key is limited to some models, and lists no others
    Given a key for the client "guest" with "--model demo"
    When the client "guest" chats with "bee"
    Then the client is refused with status 403 and code "FORBIDDEN", and a message with "demo"
    And the client "guest" lists only the model "demo"

  @B96
  Scenario: A key that has used its tokens of the day waits for the next day
    Given a key for the client "guest" with "--tokens-per-day 5"
    When the client "guest" chats with "bee"
    Then the client is answered
    When the client "guest" chats with "bee"
    Then the client is refused with status 429 and code "TOO_MANY_REQUESTS", and told when to come back

  @B96
  Scenario: A key that has expired opens nothing, until it is prolonged
    Given a key for the client "guest"
    When the operator runs "rbee-keeper keys set guest --expires 2020-01-01"
    And the client "guest" chats with "bee"
    Then the client is refused with status 401 and code "INVALID_API_KEY", and a message with "expired"
    When the operator runs "rbee-keeper keys set guest --expires 30d"
    And the client "guest" chats with "bee"
    Then the client is answered

  @B96
  Scenario: The operator sees what each key may do and has used
    Given a key for the client "guest" with "--tasks 2 --tokens-per-day 1000"
    And a key for the client "friend" with "--may infer --may operate"
    When the client "guest" chats with "bee"
    And the operator runs "rbee-keeper keys list"
    Then the exit code is 0
    And the output shows "of 1000"
    And the output shows "infer, operate"
