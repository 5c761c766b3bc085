@rig
Feature: Uninstalling
  An operator removes rbee from machines, and nothing of it stays
  except what the operator asked to keep.

  @B71
  Scenario: An uninstallation asks for confirmation, and leaves nothing behind
    Given hives on h1 and h2
    When the operator types "rbee-keeper hive uninstall --all"
    Then the exit code is 2
    And the keeper says "--yes"
    When the operator types "rbee-keeper hive uninstall --node h1 --yes --keep-models"
    Then the exit code is 0
    And only models are left on h1
    When the operator types "rbee-keeper hive uninstall --all --yes"
    Then the exit code is 0
    And nothing of rbee is left on h1
    And nothing of rbee is left on h2

  @B57 @B71
  Scenario: Program and checkout are installed where the config says
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

  Scenario: Keys appear in no output, in no file of a run and in no arguments
    Given an operator with the machines h1 and h2
    Then no key appears in any output, in the files of the runs and in arguments
