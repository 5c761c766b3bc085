@rig
Feature: The way back out
  Whoever installed rbee on machines can take it off again, and nothing of it stays
  but what somebody asked to keep.

  @B71
  Scenario: A removal asks, and leaves nothing behind
    Given hives on h1 and h2
    When the operator types "rbee-keeper hive uninstall --all"
    Then the exit code is 2
    And standard error says "--yes"
    When the operator types "rbee-keeper hive uninstall --node h1 --yes --keep-models"
    Then the exit code is 0
    And only models are left on h1
    When the operator types "rbee-keeper hive uninstall --all --yes"
    Then the exit code is 0
    And nothing of rbee is left on h1
    And nothing of rbee is left on h2

  @B57 @B71
  Scenario: Program and checkout are where the config says
    Given an operator with the machine h1
    And the config names the hive program "/opt/rbee/current/bin/rbee-hive"
    And the config names the checkout "/opt/source-of-the-hive"
    When the operator types "rbee-keeper hive install --node h1"
    Then the exit code is 0
    And the hive of h1 runs "/opt/rbee/current/bin/rbee-hive"
    And "/opt/source-of-the-hive/.git" is on h1
    When the operator types "rbee-keeper hive uninstall --node h1 --yes"
    Then the exit code is 0
    And nothing of rbee is left on h1
    And "/opt/source-of-the-hive" is not on h1

  Scenario: No key is seen anywhere
    Given an operator with the machines h1 and h2
    Then no key is in what was printed, in what the runs left, and in arguments
