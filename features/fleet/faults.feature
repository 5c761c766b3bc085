@rig
Feature: Machines that fail
  Cables are pulled and plugs too: the queen notices, works on with what is left,
  and takes back what returns, without anything running twice.

  @B66
  Scenario: A cable is cut for a moment, and everything is as before
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the worker of h1 is noted
    When the cable of h1 is cut
    Then the queen does not hear h1 within 12 seconds
    When the operator types "rbee-keeper infer --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the cable of h1 is mended
    Then the queen hears h1 within 12 seconds
    And h1 has the worker that was noted, and no other
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And standard error says "is warm"
    And the operator stops the queen

  @B67
  Scenario: A cable is cut for longer than the fence, and the memory is given back
    Given hives on h1 and h2
    And the hive of h1 waits 6 seconds for a queen
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the cable of h1 is cut
    Then no worker runs on h1 within 15 seconds
    When the cable of h1 is mended
    And the operator types "rbee-keeper worker start --node h1 --model demo"
    Then the exit code is 0
    And the queen hears h1 within 12 seconds
    And the hive of h1 serves
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the operator stops the queen

  @B39
  Scenario: A machine loses its power in the middle of an answer
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator asks h1 for a long answer
    And some tokens have come
    And the power of h1 is cut
    Then it ends with code 1 within 30 seconds
    And standard error says "tokens came"
    And standard error names a file with the partial text
    When the power of h1 is back
    Then the queen hears h1 within 30 seconds
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the operator stops the queen

  @B17
  Scenario: A machine loses its power in the middle of a download
    Given hives on h1 and h2
    And the hive of h1 fetches from a slow hub
    When the operator types "rbee-keeper daemon start"
    And the operator begins to fetch the hub's model to h1
    And at least 20 MiB of it are on h1
    And the power of h1 is cut
    And the power of h1 is back
    Then the queen hears h1 within 30 seconds
    When the hub is no longer slow
    And the operator types "rbee-keeper models pull --node h1 hf:bees/tiny-GGUF"
    Then the exit code is 0
    And at most 8 MiB were fetched twice
    And the operator stops the queen
