@process
Feature: The inventory as Ansible has it
  Operators keep inventories in all the ways that Ansible knows.
  The keeper sees the same machines as Ansible,
  and changes no more of a file than it must.

  @B104
  Scenario: The keeper sees the machines that Ansible sees
    Given a machine
    And the inventory has the file "hosts.yml"
      """
      all:
        children:
          rbee_hives:
            children:
              racks:
                hosts:
                  rack[1:3]:
                    ansible_host: "10.1.0.{{ inventory_hostname[-1] }}"
              desks:
          office:
            hosts:
              printer:
      """
    And the inventory has the file "more.ini"
      """
      [desks]
      desk1 ansible_ssh_host=10.2.0.1 ansible_port=2222
      desk2
      [desks:vars]
      rbee_repo_url=https://example.org/desks.git
      """
    And the inventory has the file "host_vars/desk2/address.json"
      """
      {"ansible_host": "fd00::2"}
      """
    When the operator runs "rbee-keeper config list-nodes --json"
    Then the exit code is 0
    And the keeper lists the machines that Ansible has in rbee_hives, at these addresses
      | machine | address  |
      | rack1   | 10.1.0.1 |
      | rack2   | 10.1.0.2 |
      | rack3   | 10.1.0.3 |
      | desk1   | 10.2.0.1 |
      | desk2   | fd00::2  |

  @B104
  Scenario: An edit changes the lines that it must
    Given a machine
    And the inventory has the file "hosts.yml" with the line ends of Windows
      """
      # Kept by hand since 2019.
      rbee_hives:
        hosts:
          h1: &usual {ansible_host: 10.0.0.1}   # the old one
          # Bought in spring.
          h2:
            ansible_host: 10.0.0.2
          h3: *usual
        vars: {rbee_hive_slots: 2}
      """
    When the operator runs "rbee-keeper config remove-node --node h2"
    Then the exit code is 0
    And only these lines of "hosts.yml" are gone
      """
          h2:
            ansible_host: 10.0.0.2
      """

  @B104
  Scenario: What a program cannot edit is left to the operator
    Given a machine
    And the inventory has the file "hosts.yml"
      """
      rbee_hives:
        hosts:
          h[1:9]:
      """
    When the operator runs "rbee-keeper config remove-node --node h3"
    Then the exit code is 1
    And the keeper says "range"
    And the keeper says "hosts.yml"
    And the file "hosts.yml" of the inventory is as before

  @B104
  Scenario Outline: Checking tells what Ansible would refuse, and what rbee would
    Given a machine
    And the inventory has the file "hosts.yml"
      """
      rbee_hives:
        hosts:
          h1: {ansible_host: 10.0.0.1}
          h2:
      """
    And the inventory has the file "group_vars/rbee_hives.yml"
      """
      # What holds for all hives.
      <variable>
      """
    When the operator runs "rbee-keeper config check"
    Then the exit code is 1
    And the keeper says "<says>"

    Examples:
      | variable                           | says                                                 |
      | rbee_hive_slots: -3                | rbee_hive_slots must be 1 or more                    |
      | rbee_hive_settings: {nonsense: 3}  | rbee_hives.yml:2: rbee_hive_settings: unknown key    |
      | rbee_hive_solts: 4                 | rbee_hives.yml:2: unknown variable 'rbee_hive_solts' |
      | ansible_host: 10.0.0.1             | h1, h2 have the same address                         |
      | rbee_models: [nonsense]            | 'nonsense' is not a model reference                  |
      | rbee_models: ['hf:a/b@']           | a branch, a tag or a commit                          |
      | rbee_state_path: /opt/rbee         | is the same as rbee_install_path                     |
      | rbee_queen_url: 10.0.0.9:8080      | must be an address such as http://                   |
      | rbee_hive_slots: [4                | rbee_hives.yml                                       |
