@process
Feature: A hive stores models
  A model is downloaded once, completely or not at all,
  and the catalog lists what is there.

  Background:
    Given a machine with the model "bee"
    And a model hub with a model of 3 MiB

  @B16 @B18
  Scenario: A missing model is downloaded with progress, then listed in the catalog
    Given the hub sends 1 MiB per second
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 0
    And the keeper shows the progress in MB and percent
    When the operator runs "rbee-keeper models list --node localhost --json"
    Then the one model has a reference, a path, a size of 3 MiB and a time
    And the file of the model is identical to the hub's

  @B15
  Scenario: A model in the catalog is not downloaded again
    Given a running queen
    And the hub's model was pulled
    When the operator runs "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 0
    And the hub sent the file once

  @B17
  Scenario: A download that is interrupted resumes where it stopped
    Given the hub closes the connection at 40 percent of the file 2 times
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 0
    And the keeper says "1 of 6"
    And the hub sent less than 4 MiB
    And the file of the model is identical to the hub's

  @B17
  Scenario: A download that is interrupted every time fails after six more attempts
    Given the hub closes the connection at 40 percent of the file 99 times
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 1
    And the keeper says "6 of 6"
    And the keeper says "DOWNLOAD_FAILED"
    When the operator runs "rbee-keeper models list --node localhost --json"
    Then the JSON list of models is empty

  Scenario: Two requests for the same model share one download
    Given a running queen
    When two operators run "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF" at once
    Then both exit codes are 0
    And the hub sent the file once

  @B98
  Scenario: A download that nobody waits for any more ends, and the next one continues it
    Given the hub sends 1 MiB per second
    And the hive goes on with a download for 1 second when nobody waits for it
    And a running queen
    When the operator starts "rbee-keeper infer --node localhost --model hf:bees/tiny-GGUF --prompt hello"
    And some of the model was received
    And the operator presses Ctrl-C
    Then no download runs within 15 seconds
    When the operator runs "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 0
    And the hub sent the rest only
    And the file of the model is identical to the hub's

  @B98
  Scenario: An operator cancels a download, and whoever waits for it is told
    Given the hub sends 1 MiB per second
    And a running queen
    When the operator starts "rbee-keeper models pull --node localhost hf:bees/tiny-GGUF"
    And some of the model was received
    And another operator runs "rbee-keeper models cancel --node localhost hf:bees/tiny-GGUF"
    Then the exit code is 0
    And it ends with code 1 within 10 seconds
    And the keeper says "CANCELED"
    And the keeper says "an operator canceled it"

  @B98
  Scenario: A small file that claims much is refused by the name of the field
    Given bee is a small file with a long text for its number of heads
    And a running queen
    When the operator runs "rbee-keeper models pull --node localhost bee"
    Then the exit code is 1
    And the keeper says "MODEL_INVALID"
    And the keeper says "llama.attention.head_count_kv"

  @B18
  Scenario: A model whose file is missing on the disk is marked in the list
    Given a running queen
    And the hub's model was pulled
    When the file of the model is deleted
    And the operator runs "rbee-keeper models list --node localhost"
    Then the output shows "is gone"
