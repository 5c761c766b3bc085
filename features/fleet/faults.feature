@rig
Feature: Machines that fail
  Network cables and power plugs are pulled. The queen notices, goes on with the machines
  that are left, and takes back those that return, without running anything twice.

  @B66
  Scenario: After a short network failure the same worker goes on
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the operator notes the worker of h1
    And the cable of h1 is cut
    Then the queen is no longer connected to h1 within 12 seconds
    When the operator types "rbee-keeper infer --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the cable of h1 is plugged in again
    Then the queen is connected to h1 within 12 seconds
    And h1 has the noted worker and no other
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the keeper says "is warm"
    And the operator can stop the queen

  @B67
  Scenario: After a long network failure the hive has stopped its workers and freed their memory
    Given hives on h1 and h2
    And the hive of h1 waits 6 seconds for a queen
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    When the cable of h1 is cut
    Then no worker runs on h1 within 15 seconds
    When the cable of h1 is plugged in again
    And the operator types "rbee-keeper worker start --node h1 --model demo"
    Then the exit code is 0
    And the queen is connected to h1 within 12 seconds
    And the hive of h1 serves
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the operator can stop the queen

  @B39
  Scenario: A machine that loses power during an answer fails the request and comes back
    Given hives on h1 and h2
    When the operator types "rbee-keeper daemon start"
    And the operator asks h1 for a long answer
    And the first tokens have arrived
    And the power of h1 is cut
    Then it ends with code 1 within 30 seconds
    And the keeper says "tokens came"
    And the keeper names a file with the partial answer
    When the power of h1 is back
    Then the queen is connected to h1 within 30 seconds
    When the operator types "rbee-keeper infer --node h1 --model demo --prompt Hello --max-tokens 3"
    Then the exit code is 0
    And the operator can stop the queen

  @B17
  Scenario: A download resumes after the machine lost power
    Given hives on h1 and h2
    And the hive of h1 downloads from a slow hub
    When the operator types "rbee-keeper daemon start"
    And the operator starts to pull the hub's model to h1
    And at least 20 MiB of it have reached h1
    And the power of h1 is cut
    And the power of h1 is back
    Then the queen is connected to h1 within 30 seconds
    When the hub is no longer slow
    And the operator types "rbee-keeper models pull --node h1 hf:bees/tiny-GGUF"
    Then the exit code is 0
    And at most 8 MiB were downloaded twice
    And the operator can stop the queen

  @B88
  Scenario: A machine loses power while another one copies a model from it
    Given hives on h1 and h2
    And the hives of h1 and h2 download from the same hub
    And the hive of h1 sends 50 megabits per second
    When the operator types "rbee-keeper daemon start"
    And the operator types "rbee-keeper models pull --node h1 hf:bees/shared-GGUF"
    Then the exit code is 0
    When the operator starts "rbee-keeper models pull --node h2 hf:bees/shared-GGUF"
    And at least 24 MiB of it have reached h2
    And the power of h1 is cut
    Then it ends with code 0 within 60 seconds
    And the keeper says "copying it from h1"
    And h2 has the model, of which the hub sent the rest only
    When the power of h1 is back
    Then the queen is connected to h1 within 30 seconds
    When the operator types "rbee-keeper models list --node h1,h2 --json"
    Then the exit code is 0
    And the shared model is one row, on h1 and h2
    And the operator can stop the queen
