@rig
Feature: Adding and removing machines
  One inventory file lists the machines. The keeper and the operator both edit it,
  and neither loses what the other wrote.

  @B01
  Scenario: A machine that can be reached is added with every option that was given
    Given an operator without machines
    When the operator types "rbee-keeper config set-ssh --node h1 --host 192.168.1.11 --user me --key ~/.ssh/id_ed25519 --port 22 --git-repo https://example.org/rbee.git --git-branch main --install-path /opt/rbee"
    Then the exit code is 0
    And the output shows "Added h1"
    And the keeper says "h1 responds"
    And the keeper says "Wrote h1"
    And the inventory says for h1
      | variable                     | value                        |
      | ansible_host                 | 192.168.1.11                 |
      | ansible_user                 | me                           |
      | ansible_port                 | 22                           |
      | ansible_ssh_private_key_file | ~/.ssh/id_ed25519            |
      | rbee_repo_url                | https://example.org/rbee.git |
      | rbee_repo_branch             | main                         |
      | rbee_install_path            | /opt/rbee                    |

  @B02
  Scenario Outline: A machine that cannot be reached is not stored, and the reason is given
    Given an operator without machines
    When the operator types "rbee-keeper config set-ssh --node h1 <options>"
    Then the exit code is 1
    And the keeper says "<code>"
    And the keeper says "<advice>"
    And h1 is stored nowhere

    Examples:
      | options                                                        | code              | advice         |
      | --host 192.168.1.11 --user me --key ~/.ssh/id_ed25519 --port 9 | SSH_REFUSED       | Check the port |
      | --host 192.168.1.11 --user me --key ~/.ssh/another_key         | SSH_AUTH_FAILED   | Check the user     |
      | --host 192.168.1.11 --user me --key ~/.ssh/readable_key        | SSH_AUTH_FAILED   | chmod 600      |
      | --host 192.168.1.11 --user me --key /nowhere/key               | SSH_KEY_NOT_FOUND | /nowhere/key   |
      | --host nobody.invalid --user me --key ~/.ssh/id_ed25519        | SSH_HOST_UNKNOWN  | nobody.invalid |

  @B02
  Scenario: A machine with an unknown host key is refused, with the command that accepts the key
    Given an operator without machines
    And the host key of h2 is not known
    When the operator types "rbee-keeper config set-ssh --node h2 --host 192.168.1.12 --user me --key ~/.ssh/id_ed25519"
    Then the exit code is 1
    And the keeper says "HOST_KEY_UNKNOWN"
    And the keeper says "ssh-keyscan"
    And h2 is stored nowhere

  @B69 @B04 @B05
  Scenario: The keeper keeps the comments and the order of the inventory
    Given an operator with an inventory of their own
    When the operator types "rbee-keeper setup add-node --name h2 --ssh-host 192.168.1.12 --ssh-user me --ssh-key ~/.ssh/id_ed25519"
    Then the exit code is 0
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper setup add-node --name h2 --ssh-host 192.168.1.12 --ssh-user me"
    Then the exit code is 1
    And the keeper says "NODE_EXISTS"
    When the operator types "rbee-keeper config set-ssh --node h1 --host 192.168.1.11 --user me --key ~/.ssh/id_ed25519 --port 22"
    Then the exit code is 0
    And the output shows "Updated h1"
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper config list-nodes"
    Then the exit code is 0
    And the table has a line with "h1, 192.168.1.11, unknown, s ago, /opt/rbee, cpu x1"
    When the operator types "rbee-keeper config remove-node --node h2"
    Then the exit code is 0
    And h2 is stored nowhere
    And every line of the inventory from before is still there, in its order
    When the operator types "rbee-keeper setup remove-node --name h2"
    Then the exit code is 1
    And the keeper says "NODE_NOT_FOUND"

  @B01 @B05
  Scenario: A running queen learns of a new machine at once
    Given an operator without machines
    And a running queen
    When the operator types "rbee-keeper config set-ssh --node h1 --host 192.168.1.11 --user me --key ~/.ssh/id_ed25519"
    Then the exit code is 0
    And the queen knows h1
    When the operator types "rbee-keeper config remove-node --node h1"
    Then the exit code is 0
    And the queen does not know h1
    And no key of h1 is kept
    When the operator types "rbee-keeper daemon stop"
    Then the exit code is 0
