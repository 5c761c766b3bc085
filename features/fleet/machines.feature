@rig
Feature: Machines come and go
  One inventory file says which machines there are. The keeper writes into it,
  and so may a person: neither disturbs the other.

  @B01
  Scenario: A machine that can be reached is added with everything that was said about it
    Given an operator without machines
    When the operator types "rbee-keeper config set-ssh --node h1 --host {h1} --user {user} --key {key} --port 22 --git-repo {repository} --git-branch main --install-path /opt/rbee"
    Then the exit code is 0
    And standard output says "Added h1"
    And standard error says "h1 responds"
    And standard error says "Wrote h1"
    And the inventory says for h1
      | variable                     | value        |
      | ansible_host                 | {h1}         |
      | ansible_user                 | {user}       |
      | ansible_port                 | 22           |
      | ansible_ssh_private_key_file | {key}        |
      | rbee_repo_url                | {repository} |
      | rbee_repo_branch             | main         |
      | rbee_install_path            | /opt/rbee    |

  @B02
  Scenario Outline: A machine that cannot be used is not written anywhere, and the reason is told
    Given an operator without machines
    When the operator types "rbee-keeper config set-ssh --node h1 <options>"
    Then the exit code is 1
    And standard error says "<code>"
    And standard error says "<advice>"
    And nothing is known of h1

    Examples:
      | options                                                | code              | advice           |
      | --host {h1} --user {user} --key {key} --port 9         | SSH_REFUSED       | Check the port   |
      | --host {h1} --user {user} --key {other_key}            | SSH_AUTH_FAILED   | Check user       |
      | --host {h1} --user {user} --key {open_key}             | SSH_AUTH_FAILED   | chmod 600        |
      | --host {h1} --user {user} --key /nowhere/key           | SSH_KEY_NOT_FOUND | /nowhere/key     |
      | --host nobody.invalid --user {user} --key {key}        | SSH_HOST_UNKNOWN  | nobody.invalid   |

  @B02
  Scenario: A machine whose host key is not known is refused, with the command that accepts it
    Given an operator without machines
    And the host key of h2 is not known
    When the operator types "rbee-keeper config set-ssh --node h2 --host {h2} --user {user} --key {key}"
    Then the exit code is 1
    And standard error says "HOST_KEY_UNKNOWN"
    And standard error says "ssh-keyscan"
    And nothing is known of h2

  @B69 @B04 @B05
  Scenario: Comments and order of the inventory survive the keeper
    Given an operator with an inventory of their own
    When the operator types "rbee-keeper setup add-node --name h2 --ssh-host {h2} --ssh-user {user} --ssh-key {key}"
    Then the exit code is 0
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper setup add-node --name h2 --ssh-host {h2} --ssh-user {user}"
    Then the exit code is 1
    And standard error says "NODE_EXISTS"
    When the operator types "rbee-keeper config set-ssh --node h1 --host {h1} --user {user} --key {key} --port 22"
    Then the exit code is 0
    And standard output says "Updated h1"
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper config list-nodes"
    Then the exit code is 0
    And the table has a line with "h1, {h1}, unknown, s ago, /opt/rbee, cpu x1"
    When the operator types "rbee-keeper config remove-node --node h2"
    Then the exit code is 0
    And nothing is known of h2
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper setup remove-node --name h2"
    Then the exit code is 1
    And standard error says "NODE_NOT_FOUND"

  @B01 @B05
  Scenario: A queen that runs is told at once
    Given an operator without machines
    And a running queen
    When the operator types "rbee-keeper config set-ssh --node h1 --host {h1} --user {user} --key {key}"
    Then the exit code is 0
    And the queen knows h1
    When the operator types "rbee-keeper config remove-node --node h1"
    Then the exit code is 0
    And the queen does not know h1
    And no key of h1 is kept
    When the operator types "rbee-keeper daemon stop"
    Then the exit code is 0
