@process
Feature: A hive keeps models
  A model is fetched once, whole or not at all,
  and the catalogue says what is there.

  Background:
    Given a machine with the fake engine
    And a model hub with a model of 3 MiB

  @B16 @B18
  Scenario: A missing model is downloaded with progress, then catalogued
    Given the hub sends 1 MiB per second
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost {hub_model}"
    Then the exit code is 0
    And standard error tells of bytes and percent
    When the operator runs "rbee-keeper models list --node localhost --json"
    Then the one model has a reference, a path, a size of 3 MiB and a time
    And the file of the model is the hub's

  @B15
  Scenario: A model in the catalogue is not downloaded again
    Given a running queen
    And the model of the hub was pulled
    When the operator runs "rbee-keeper models pull --node localhost {hub_model}"
    Then the exit code is 0
    And the hub sent the file once

  @B17
  Scenario: A download that breaks goes on where it stopped
    Given the hub breaks off the file at 40 percent 2 times
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost {hub_model}"
    Then the exit code is 0
    And standard error says "1 of 6"
    And the hub sent less than 4 MiB
    And the file of the model is the hub's

  @B17
  Scenario: A download that breaks every time is given up after six more attempts
    Given the hub breaks off the file at 40 percent 99 times
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost {hub_model}"
    Then the exit code is 1
    And standard error says "6 of 6"
    And standard error says "DOWNLOAD_FAILED"
    When the operator runs "rbee-keeper models list --node localhost --json"
    Then the JSON list of models is empty

  Scenario: Two requests for one model are one download
    Given a running queen
    When two operators run "rbee-keeper models pull --node localhost {hub_model}" at once
    Then both exit codes are 0
    And the hub sent the file once

  @B18
  Scenario: A file that vanished from the disk is said
    Given a running queen
    And the model of the hub was pulled
    When the file of the model is deleted
    And the operator runs "rbee-keeper models list --node localhost"
    Then standard output says "is gone"
