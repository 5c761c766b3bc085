@rig
Feature: Models that a fleet keeps served
  The inventory declares what is served. It comes up without a request,
  and it is back without one, whatever happens to the machines.

  @B82
  Scenario: Declared models come up unasked, each worker on a machine of its own, with their own settings
    Given bare machines h1, h2 and h3, and an inventory that declares "bee" with 2 replicas, 3 slots and 2048 tokens
    When the operator plays "site"
    Then "bee" has 2 workers on 2 machines within 30 seconds
    And its workers have 3 slots of 2048 tokens
    And nobody has asked for anything

  @B83
  Scenario Outline: What is declared is back unasked after bad luck
    Given the fleet serves "bee" with 2 workers
    When <luck>
    Then "bee" has 2 workers on 2 machines within 30 seconds
    And a request for "bee" is answered

    Examples:
      | luck                                               |
      | a worker is killed on its machine                  |
      | the hive of a machine with a worker is killed      |
      | the queen is killed on its machine                 |
      | the queen's unit is restarted                      |
      | a machine with a worker is rebooted                |
      | all machines are rebooted at once                  |

  @B86
  Scenario: Replicas on lost machines are served by others, and are not too many when the machines are back
    Given the fleet serves "bee" with 2 workers
    When a machine with a worker loses power
    Then "bee" has 2 workers on 2 machines within 15 seconds
    And requests for "bee" go to all of its workers
    When it has power again
    And the cable of a machine with a worker is cut for so long that another one serves
    And its cable is plugged in again
    Then "bee" has 2 workers on 2 machines within 15 seconds
    And no other worker of "bee" is on any machine within 5 seconds

  @B84
  Scenario: A changed declaration is rolled out by the playbook while clients ask
    Given the fleet serves "bee" with 2 workers
    When clients keep asking for "bee"
    And the inventory declares 1024 tokens for "bee"
    And the operator plays "rollout-queen"
    Then "bee" has 2 workers on 2 machines within 30 seconds
    And its workers have 3 slots of 1024 tokens
    And the queen is still the same process
    And every request was answered
