@process
Feature: Every failure in one shape
  A client of any daemon can read any failure.

  @B53
  Scenario Outline: The same body on every route, also for what does not exist
    Given a machine with the fake engine
    And <running>
    When <daemon> is asked for <request>
    Then it answers <status> with code "<code>", a message, details and a hint

    Examples:
      | running         | daemon    | request               | status | code               |
      | a running queen | the queen | a missing route       | 404    | ROUTE_NOT_FOUND    |
      | a running queen | the queen | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | a running queen | the queen | a task without model  | 400    | INVALID_REQUEST    |
      | a running queen | the queen | an unknown worker     | 404    | WORKER_NOT_FOUND   |
      | a running queen | the queen | anything without key  | 401    | MISSING_API_KEY    |
      | a running hive  | the hive  | a missing route       | 404    | ROUTE_NOT_FOUND    |
      | a running hive  | the hive  | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | a running hive  | the hive  | a model of nonsense   | 400    | INVALID_MODEL_REF  |
      | a running hive  | the hive  | anything without key  | 401    | MISSING_API_KEY    |
