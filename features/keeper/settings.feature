@process
Feature: Installation and settings
  A new user installs rbee, and finds out
  where each setting comes from.

  @B54
  Scenario: rbee is installed for one user
    Given a machine
    When the operator runs "rbee-keeper install"
    Then the exit code is 0
    And the program "rbee-keeper" runs from the user's path
    And the user has a valid config file
    When the operator runs "rbee-keeper install"
    Then the exit code is 0

  @B55
  Scenario: rbee is installed for the whole system
    Given a machine
    When the operator installs rbee for the system below another root
    Then the exit code is 0
    And the programs, the config and the data folder are where the system keeps them

  @B56
  Scenario Outline: The first config file that is found wins
    Given a machine without a config file
    And config files with different addresses of the queen in every place from <first> on
    When the operator runs "rbee-keeper config show --json"
    Then the address of the queen comes from <first>

    Examples:
      | first     |
      | variable  |
      | xdg       |
      | rbee-home |

  @B56
  Scenario: An unknown key in the config file is reported with file and line
    Given a machine
    And the config file has the line "queen_ulr = 'x'"
    When the operator runs "rbee-keeper worker list"
    Then the exit code is 1
    And the keeper says "queen_ulr"
    And the keeper names the config file and the line
    When the operator runs "rbee-keeper config check"
    Then the exit code is 1

  @B56
  Scenario: The environment comes before the config file
    Given a machine
    And the variable "RBEE_QUEEN_URL" is "http://127.0.0.1:1"
    When the operator runs "rbee-keeper config show"
    Then the output shows "http://127.0.0.1:1"
    And the output shows "RBEE_QUEEN_URL"
