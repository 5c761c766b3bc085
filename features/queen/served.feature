@process
Feature: Declared models are kept served
  An operator says once which models are to be served; the queen sees to it,
  and says of each model where it runs, or why it does not.

  Background:
    Given a machine with the model "bee"

  @B82
  Scenario: A declared model comes up unasked, with its own settings
    Given a running queen
    When the operator runs "rbee-keeper models serve chat --model bee --replicas 1 --slots 3 --context-length 512"
    Then the exit code is 0
    And "chat" is served by 1 worker within 20 seconds
    And its worker has 3 slots of 512 tokens

  @B83
  Scenario: What is declared is back after a crash of the worker, of the hive and of the queen
    Given a running queen
    And "chat" is declared with "--replicas 1"
    When the worker dies by a signal
    Then "chat" is served by 1 worker within 30 seconds
    When the local hive dies by a signal
    Then "chat" is served by 1 worker within 30 seconds
    When the queen is killed and started again
    Then "chat" is served by 1 worker within 30 seconds

  @B84
  Scenario: A changed declaration is rolled out without a lost request
    Given bee writes 100 tokens per second
    And a running queen
    And "chat" is declared with "--replicas 1 --slots 2"
    When clients ask "chat" all the time
    And the operator runs "rbee-keeper models serve chat --model bee --replicas 1 --slots 3"
    Then its worker has 3 slots within 20 seconds
    And no request was lost

  @B85
  Scenario: An idle model gives way, a busy and a pinned one do not
    Given bee writes 40 tokens per second
    And the machine has memory for 1 worker
    And a running queen
    And "idle" is declared with ""
    And "other" is declared with ""
    When the operator runs "rbee-keeper infer --model idle --prompt hello --max-tokens 2"
    And the operator runs "rbee-keeper infer --model other --prompt hello --max-tokens 2"
    Then the exit code is 0
    And the keeper says "to make room for other"
    And "other" is served by 1 worker within 5 seconds
    And "idle" is served by 0 workers within 5 seconds
    When the operator starts "rbee-keeper infer --model other --prompt hello --max-tokens 240"
    And the first tokens have arrived
    And another operator runs "rbee-keeper infer --model idle --prompt hello --max-tokens 2"
    Then the exit code is 0
    And the keeper says "waits for memory"
    And the first operator got a whole answer

  @B85
  Scenario: A pinned model stays, and who asks for another one is told what it needs
    Given the machine has memory for 1 worker
    And a running queen
    And "pinned" is declared with "--replicas 1 --keep always"
    And "other" is declared with ""
    When the operator runs "rbee-keeper infer --model other --prompt hello --max-tokens 2"
    Then the exit code is 1
    And the keeper says "RAM_EXHAUSTED"
    And "pinned" is served by 1 worker within 1 seconds

  @B86
  Scenario: Replicas share the load, and one that is lost is replaced
    Given bee writes 40 tokens per second
    And a running queen
    And "chat" is declared with "--replicas 2 --slots 1"
    When 2 clients ask "chat" at once
    Then each of its workers has answered one
    When the worker dies by a signal
    Then "chat" is served by 2 workers within 30 seconds

  @B89
  Scenario: Serve, plan, explain and unserve
    Given a running queen
    When the operator runs "rbee-keeper models plan chat --model bee --replicas 1"
    Then the exit code is 0
    And the operator reads "start +chat +localhost"
    And "chat" is not declared
    Given "chat" is declared with "--replicas 1"
    When the operator runs "rbee-keeper models served"
    Then the operator reads "chat +bee +1 worker +anywhere +serving +localhost idle +command"
    When the operator runs "rbee-keeper explain chat"
    Then the operator reads "localhost +cpu:0 +serves"
    When the operator runs "rbee-keeper models plan --remove chat"
    Then the operator reads "end +chat +localhost"
    When the operator runs "rbee-keeper models unserve chat"
    Then the exit code is 0
    And there are no workers within 20 seconds
