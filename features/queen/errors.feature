@process
Feature: Every failure in one shape
  A client of any daemon can read any failure.

  @B53
  Scenario Outline: The same body on every route, also for what does not exist
    Given a machine with the fake engine
    And a running queen
    When <daemon> is asked for <request>
    Then it answers <status> with code "<code>", a message, details and a hint

    Examples:
      | daemon    | request               | status | code               |
      | the queen | a missing route       | 404    | ROUTE_NOT_FOUND    |
      | the queen | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | the queen | a task without model  | 400    | INVALID_REQUEST    |
      | the queen | an unknown worker     | 404    | WORKER_NOT_FOUND   |
      | the queen | anything without key  | 401    | MISSING_API_KEY    |
      | the hive  | a missing route       | 404    | ROUTE_NOT_FOUND    |
      | the hive  | a wrong method        | 405    | METHOD_NOT_ALLOWED |
      | the hive  | a model of nonsense   | 400    | INVALID_MODEL_REF  |
      | the hive  | anything without key  | 401    | MISSING_API_KEY    |
