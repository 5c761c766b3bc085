@engine
Feature: One command gives an answer
  A person with one machine wants tokens,
  without having started or configured anything before,
  and wants the machine back as it was.

  Rule: From nothing to tokens

    @B58 @B51 @B27 @B34
    Scenario: A cold start answers and leaves nothing behind
      Given a machine
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt 'Name three kinds of bees.' --max-tokens 40 --seed 3"
      Then the exit code is 0
      And standard output has at least 10 words
      And standard output says nothing of queens, hives and workers
      And standard error tells of the queen, the hive, the worker and the model
      And no process of rbee is left within 2 seconds

    @B09
    Scenario: Without workers the list is empty and the flow goes on to the preflight
      Given a machine with a running queen
      When the operator runs "rbee-keeper worker list --json"
      Then the JSON list of workers is empty
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 2"
      Then the exit code is 0
      And standard error tells of the preflight

  Rule: What is warm is used

    @B08 @B10 @B52 @B50
    Scenario: An idle worker answers at once, and what was there before stays
      Given a machine with a running queen
      And a worker for "demo" on localhost
      When the operator runs "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 8"
      Then the exit code is 0
      And it took less than 5 seconds
      And standard error does not tell of the preflight
      And there is 1 worker
      And the queen, the hive and the worker are the same processes as before

    @B34
    Scenario: The same seed gives the same answer
      Given a machine with a running queen
      And a worker for "demo" on localhost
      When the operator runs "rbee-keeper infer --model demo --prompt 'A bee is' --raw --max-tokens 12 --seed 7" twice
      Then both answers are the same

    Scenario: Two cold starts at once share one queen and both are answered
      Given a machine
      When two operators run "rbee-keeper infer --node localhost --model demo --prompt hello --max-tokens 8" at once
      Then both exit codes are 0
      And one queen was started
      And no process of rbee is left within 5 seconds

  Rule: A wish that cannot be met is refused before anything is started

    @B06
    Scenario: An unknown node names the command that adds it
      Given a machine with a running queen
      When the operator runs "rbee-keeper infer --node h7 --model demo --prompt hello"
      Then the exit code is 1
      And standard error says "NODE_NOT_FOUND"
      And standard error says "rbee-keeper config set-ssh --node h7"
