@process
Feature: One form of error
  A program that talks to any daemon can read every error.

  @B53
  Scenario Outline: Every error has the same form, also for paths that do not exist
    Given a machine with the model "bee"
    And <running>
    When <daemon> is asked for <request>
    Then the answer has status <status>, code "<code>", a message, details and a hint

    Examples:
      | running         | daemon    | request               | status | code               |
      | a running queen | the queen | an unknown path       | 404    | ROUTE_NOT_FOUND    |
      | a running queen | the queen | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | a running queen | the queen | a task with no model  | 400    | INVALID_REQUEST    |
      | a running queen | the queen | an unknown worker     | 404    | WORKER_NOT_FOUND   |
      | a running queen | the queen | a list without a key  | 401    | MISSING_API_KEY    |
      | a running hive  | the hive  | an unknown path       | 404    | ROUTE_NOT_FOUND    |
      | a running hive  | the hive  | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | a running hive  | the hive  | an invalid model name | 400    | INVALID_MODEL_REF  |
      | a running hive  | the hive  | a list without a key  | 401    | MISSING_API_KEY    |
