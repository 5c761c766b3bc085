Feature: The console, and what stands beside it
  A person with several machines looks at what runs where, tries a model and runs the fleet,
  in a browser or on a terminal, and is told by an alert when something is wrong.

  Background:
    Given a machine with the model "bee"
    And a running queen

  @B94 @slow
  Scenario: Each view shows what there is
    Given a worker for bee on localhost
    And a key for the client "anna"
    When the client "anna" chats with "bee"
    And the operator runs "rbee-keeper console --no-browser"
    Then a browser that opens the link shows
      | view     | text           |
      | Fleet    | cpu:0          |
      | Models   | On disks       |
      | Activity | done           |
      | Chat     | Send           |
      | Logs     | worker started |
      | Keys     | anna           |

  @B94 @slow
  Scenario: What is done on the page is done, and commands show it
    When the operator runs "rbee-keeper console --no-browser"
    And the model "bee" is declared as "second" on the page that the link opens
    And the operator runs "rbee-keeper models served"
    Then the exit code is 0
    And the output shows "second"

  @B95 @process
  Scenario: The fleet is followed on a terminal
    Given a worker for bee on localhost
    When the operator opens "rbee-keeper top" on a terminal
    Then the terminal shows "1 of 1 machines"
    And the terminal shows "cpu:0"
    When the operator presses Ctrl-C on the terminal
    Then the command on the terminal ends with code 130

  @B95 @process
  Scenario: A conversation on a terminal
    When the operator opens "rbee-keeper chat bee --max-tokens 5" on a terminal
    And types "What do bees eat?" on the terminal
    Then the terminal shows "5 tokens, the first after"
    When the operator presses Ctrl-D on the terminal
    Then the command on the terminal ends with code 0

  @B95 @slow
  Scenario: A queen that is gone raises an alert that says what to do
    Given a Prometheus that watches the queen with the rules of rbee
    When the queen-rbee is killed
    Then the alert "RbeeDown" says "rbee-keeper daemon status" within 100 seconds

  @B95 @slow
  Scenario: Each panel of the dashboard is understood by Prometheus
    Given a Prometheus that watches the queen with the rules of rbee
    And a worker for bee on localhost
    Then Prometheus answers each panel of the dashboard, and "Machines connected" with 1
