@engine
Feature: One command gives an answer
  A person with one machine gets an answer
  without starting or configuring anything before,
  and finds the machine as it was.

  Rule: Nothing has to be running before

    @B58 @B51 @B27 @B34
    Scenario: A cold start answers and leaves nothing behind
      Given a machine
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt 'Name three kinds of bees.' --max-tokens 40 --seed 3"
      Then the exit code is 0
      And the answer has at least 10 words
      And nothing that the keeper says is in the answer
      And the keeper reports on the queen, the hive, the worker and the model
      And no process of rbee is left within 2 seconds

    @B09
    Scenario: Without workers the list is empty, and a request begins with the preflight
      Given a machine with a running queen
      When the operator runs "rbee-keeper worker list --json"
      Then the JSON list of workers is empty
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 2"
      Then the exit code is 0
      And the keeper reports a preflight

  Rule: A running worker is reused

    @B08 @B10 @B52 @B50
    Scenario: An idle worker answers at once, and everything that ran before keeps running
      Given a machine with a running queen
      And a worker for "demo" on localhost
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 8"
      Then the exit code is 0
      And it took less than 5 seconds
      And the keeper reports no preflight
      And there is 1 worker
      And the queen, the hive and the worker are the same processes as before

    @B34
    Scenario: The same seed gives the same answer
      Given a machine with a running queen
      And a worker for "demo" on localhost
      When the operator runs "rbee-keeper infer --model demo --prompt 'A bee is' --raw --max-tokens 12 --seed 7" twice
      Then both answers are the same

    Scenario: Two cold starts at the same time share one queen, and both get an answer
      Given a machine
      When two operators run "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 8" at once
      Then both exit codes are 0
      And one queen was started
      And no process of rbee is left within 5 seconds

  Rule: A request that cannot be met is refused before anything is started

    @B06
    Scenario: An unknown node is refused with the command that adds it
      Given a machine with a running queen
      When the operator runs "rbee-keeper infer --node h7 --model demo --prompt hello"
      Then the exit code is 1
      And the keeper says "NODE_NOT_FOUND"
      And the keeper says "rbee-keeper config set-ssh --node h7"
