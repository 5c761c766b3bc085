@process
Feature: A model comes from the neighbour
  What one machine has fetched, the others copy from it:
  the origin sends a model once, however many machines want it.

  Background:
    Given a machine with the model "bee"
    And a model hub with a model of 3 MiB

  @B88
  Scenario: Machines that want a model at once fetch it from the hub once
    Given the hub sends 1 MiB per second
    And a queen with the hives h1, h2 and h3
    When operators pull the hub's model to h1, h2 and h3 at once
    Then all exit codes are 0
    And the hub sent the file once
    And two of them were told who fetches it, and copied it from another hive
    And h1, h2 and h3 have the file of the hub
    When the operator runs "rbee-keeper models list"
    Then the exit code is 0
    And the output shows "h1, h2, h3"

  @B88
  Scenario: A machine that has the model dies while it is copied
    Given a queen with the hives h1, h2 and h3
    And h1 sends 4 megabits per second
    And the hub's model was pulled to h1
    When the operator starts "rbee-keeper models pull --node h2 hf:bees/tiny-GGUF"
    And 40 percent of it have arrived at h2
    And h1 is killed
    Then it ends with code 0 within 60 seconds
    And the keeper says "copying it from h1"
    And the keeper says "No other hive gives all of"
    And the hub sent the rest only
    And h2 has the file of the hub

  @B88
  Scenario: A copy with wrong bytes is not used
    Given a queen with the hives h1 and h2
    And the hub's model was pulled to h1
    And a bit of the file of h1 has changed
    When the operator runs "rbee-keeper models pull --node h2 hf:bees/tiny-GGUF"
    Then the exit code is 0
    And the keeper says "sha256"
    And h2 has the file of the hub
